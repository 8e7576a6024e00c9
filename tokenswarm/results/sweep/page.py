"""sweep.html: the answers, the charts, the table, and what to doubt. One offline file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tokenswarm.results import wording as results_wording
from tokenswarm.results.language import ENGLISH, Language
from tokenswarm.results.page import escape, facts, figure, section, table, whole
from tokenswarm.results.sweep import charts, wording
from tokenswarm.results.sweep import table as levels_table
from tokenswarm.results.sweep.cautions import cautions
from tokenswarm.results.sweep.curve import Sweep
from tokenswarm.results.sweep.wording import Answer
from tokenswarm.results.wording import UNKNOWN, UNSURE, count, plain

DEFINITIONS: Final = {
    "Level": "A stretch in which the load stayed at one target, its settling time left out. Requests count that were "
    "due in it, whenever they ended.",
    "Pareto front": "The levels to which no other is better: none has at least the throughput at no more latency. Of "
    "bounds of a latency the upper one counts.",
    "Knee": "The level with the most throughput for its latency (Kleinrock's power, throughput / latency): before it "
    "more load brings more throughput than latency, beyond it more latency than throughput.",
    "Best": "The highest throughput of the levels that kept all goals.",
    "Speed of one user": "Median of the tokens a second of each request while it streams, 1 / TPOT.",
    "Goodput": "Requests a second that kept to all limits; what failed has kept none.",
    "Not counted": "The verdict on the level is not valid: it is shown, and never chosen.",
}

CHARTS: Final = {
    "throughput": (charts.throughput, "Throughput against load"),
    "latencies": (charts.latencies, "Latency against load"),
    "speeds": (charts.speeds, "Speed of one user and of all"),
    "goodput": (charts.goodput, "Goodput against load"),
    "load": (charts.load, "Load: asked, offered, achieved"),
    "energy": (charts.energy, "Energy against load"),
    "cost": (charts.cost, "Cost against load"),
}
"""With their captions."""
HEADS: Final = ("Run", "Target", "Models", "Arrivals", "Levels", "Started")


def render(sweep: Sweep, say: Language = ENGLISH) -> str:
    """The whole page, in a language."""
    parts = [
        _heading(sweep, say),
        *_answers(sweep, say),
        _main_chart(sweep, say),
        _table(sweep, say),
        _charts(sweep, say),
        _doubts(sweep, say),
        _runs(sweep, say),
        section(say("How to read it"), facts((say(name), escape(say(text))) for name, text in DEFINITIONS.items())),
    ]
    return whole(f"{_title(sweep, say)} – tokenswarm", parts, say)


def _title(sweep: Sweep, say: Language) -> str:
    names = dict.fromkeys(plain(run.label or run.name, 60) for run in sweep.runs)
    return next(iter(names)) if len(names) == 1 else say("{count} runs", count=len(sweep.runs))


def _heading(sweep: Sweep, say: Language) -> str:
    models = dict.fromkeys(str(model) for run in sweep.runs for model in run.described["run"]["models"] if model)
    targets = dict.fromkeys(run.described["run"]["target"]["host"] or UNKNOWN for run in sweep.runs)
    lines = [f'<header><div class="kicker">{escape(say("tokenswarm sweep"))}</div>']
    lines.append(f"<h1>{escape(_title(sweep, say), 240)}</h1>")
    at = say("{models} at {targets}", models=", ".join(models) or UNKNOWN, targets=", ".join(targets))
    runs = say("one run") if len(sweep.runs) == 1 else say("{count} runs", count=len(sweep.runs))
    levels = say("{levels} load levels of {runs}", levels=len(sweep.levels), runs=runs)
    lines.append(f'<p class="lead">{escape(at, 300)} · {escape(levels)} · {escape(_when(sweep))}</p></header>')
    if sweep.simulator:
        said = say("At least one of these runs loaded tokenswarm's built-in simulator, not a model server.")
        lines.append(
            f'<div class="simulator" role="alert"><strong>{escape(say("SIMULATOR"))}</strong> {escape(said)}</div>'
        )
    return "\n".join(lines)


def _when(sweep: Sweep) -> str:
    """When the first run began, and the last one."""
    starts = [run.start for run in sweep.runs]
    return " – ".join(dict.fromkeys(map(results_wording.instant, (min(starts), max(starts)))))


def _answers(sweep: Sweep, say: Language) -> Iterator[str]:
    for curve in sweep.curves:
        if len(sweep.curves) > 1:
            yield f"<h3>{escape(curve.name)}</h3>"
        yield f'<div class="cards">{"".join(_card(answer) for answer in wording.answers(sweep, curve, say))}</div>'


def _card(answer: Answer) -> str:
    below = (
        " · ".join(f"<span>{escape(part)}</span>" for part in answer.more) if answer.value else escape(answer.more[0])
    )
    value = answer.value or UNKNOWN
    return (
        f'<div class="card"><div class="name">{escape(answer.title)}</div>'
        f'<div class="value">{escape(value)}</div><div class="more">{below}</div></div>'
    )


def _main_chart(sweep: Sweep, say: Language) -> str:
    if len(sweep.levels) < 2:
        return ""
    caption = say("Each point is a level, its load beside it. Down and to the right is better.")
    return section(say("Throughput and latency"), figure("chart-trade-off", charts.trade_off(sweep, say), caption))


def _table(sweep: Sweep, say: Language) -> str:
    tables = []
    for heads, *rows in levels_table.halves(sweep, say):
        tables.append(table([escape(head) for head in heads], [[_cell(cell) for cell in row] for row in rows]))
    return section(
        say("The levels"),
        *tables,
        note=" ".join([say("Latencies in ms."), *wording.how(sweep, say)]),
    )


def _cell(text: str) -> str:
    if text.startswith(UNSURE):
        return f'<span class="unsure">{escape(text)}</span>'
    return escape(text)


def _charts(sweep: Sweep, say: Language) -> str:
    if len(sweep.levels) < 2:
        return ""
    drawn = [figure(f"chart-{name}", chart(sweep, say), say(caption)) for name, (chart, caption) in CHARTS.items()]
    inside = "".join(drawn)
    return section(say("Against load"), f'<div class="pair">{inside}</div>' if inside else "")


def _doubts(sweep: Sweep, say: Language) -> str:
    """What is not comparable, and why levels do not count."""
    items = [("note", caution) for caution in (*sweep.unread, *cautions(sweep, say))]
    for curve, index in sweep.places():
        level = curve.levels[index]
        if level.reasons:
            items.append((level.verdict, f"{wording.load(level, say)}: {wording.doubts(level, say)}"))
    markup = "".join(
        f'<li><span class="level {escape(kind)}">{escape(say(kind))}</span><span>{escape(said)}</span></li>'
        for kind, said in items
    )
    return section(say("What to doubt"), f'<ul class="reasons">{markup}</ul>' if items else "")


def _runs(sweep: Sweep, say: Language) -> str:
    heads = [say(head) for head in HEADS]
    rows = []
    for run in sweep.runs:
        told = run.described["run"]
        rows.append(
            [
                f"<code>{escape(run.path)}</code>",
                escape(told["target"]["host"] or UNKNOWN),
                escape(", ".join(map(str, told["models"])) or UNKNOWN, 120),
                escape(say(told["load"]["arrivals"])),
                count(len(run.parts)),
                results_wording.instant(run.start),
            ]
        )
    return section(say("The runs"), table(heads, rows, "texts"))
