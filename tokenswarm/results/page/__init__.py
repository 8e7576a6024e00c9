"""The report's page: one HTML file that asks the network for nothing, and the few pieces of markup it is made of.

Everything that comes from a server, a model or a user passes `escape` or `figure`; a content policy in the page forbids
the browser to fetch anything whatever gets in.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any, Final

from plotly.offline import get_plotlyjs

from tokenswarm.results.charts.thinning import fitting
from tokenswarm.results.language import ENGLISH, Language
from tokenswarm.results.wording import plain

POLICY: Final = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

_PAGE: Final = """<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
{scripts}
</body>
</html>
"""

_NAMED: Final = re.compile(r'<section id="([\w-]+)">\s*<h2>(.*?)</h2>')
_FILES: Final = resources.files(__name__)


def whole(title: str, sections: Iterable[str], say: Language = ENGLISH) -> str:
    """The page, in this language. plotly.js goes in once, and only if a section has a chart."""
    body = "\n".join(section for section in sections if section)
    scripts = ""
    if "data-chart=" in body:
        scripts = f"<script>{get_plotlyjs()}</script>\n<script>{_file('draw.js')}</script>"
    style = _file("style.css")
    return _PAGE.format(language=say.code, policy=POLICY, title=escape(title), style=style, body=body, scripts=scripts)


def _file(name: str) -> str:
    return (_FILES / name).read_text("utf-8")


def escape(text: object, length: int = 1000) -> str:
    """Text of unknown origin, for element content and quoted attributes."""
    return html.escape(plain(text, length))


def section(title: str, *content: str, note: str = "") -> str:
    """A titled part of the page; nothing if it has no content. `content` is markup, `title` and `note` are text."""
    inside = "\n".join(part for part in content if part)
    if not inside:
        return ""
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{below}{inside}\n</section>"


def named(markup: str, name: str) -> str:
    """A section that links can lead to, as `#name`; what is no section stays as it is."""
    return markup.replace("<section>", f'<section id="{name}">', 1) if markup.startswith("<section>") else markup


def contents(sections: Iterable[str], say: Language = ENGLISH) -> str:
    """Links to all sections that have a name, and how charts are used, if there are any."""
    markup = "\n".join(sections)
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title in _NAMED.findall(markup))
    if not links:
        return ""
    hint = say("Charts: drag to zoom, double-click to zoom out, click a name in the legend to hide its line.")
    below = f'<p class="hint">{escape(hint)}</p>' if "data-chart=" in markup else ""
    return f'<nav class="contents" aria-label="{escape(say("Contents"))}">{links}</nav>{below}'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "figures") -> str:
    """A table; every cell is markup already. `figures`: all but the first column are numbers, to the right."""
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, as a list of definitions; values are markup, empty ones are left out."""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in pairs if value)
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def figure(name: str, chart: dict[str, Any] | None, caption: str, *, wide: bool = False) -> str:
    """A chart with its caption (text) and its data beside it; nothing if there is no chart. A `wide` one has no room on
    a phone, and is scrolled there."""
    if chart is None:
        return ""
    data = embedded({"data": fitting(chart["data"]), "layout": chart["layout"]})
    height = int(chart["layout"]["height"])
    plot = f'<div class="plot" role="img" aria-label="{escape(caption)}" style="height:{height}px"></div>'
    if wide:
        plot = f'<div class="scroll wide">{plot}</div>'
    return (
        f'<figure data-chart="{name}"><figcaption>{escape(caption)}</figcaption>{plot}</figure>'
        f'<script type="application/json" id="{name}">{data}</script>'
    )


def embedded(value: object) -> str:
    """JSON that cannot end the script element it stands in, nor be taken for markup."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
