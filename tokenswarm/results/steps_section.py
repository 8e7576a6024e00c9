"""The report's table of a load that changed while the run went on: a line for each step."""

from __future__ import annotations

from typing import Any

from tokenswarm.results import page, steps_text, wording
from tokenswarm.results.page import escape


def section(summary: dict[str, Any]) -> str:
    """Markup; nothing where the load had one level all along."""
    rows = [[_cell(text) for text in row] for row in steps_text.table(summary)]
    left_out = "".join(f"<li>{escape(text)}</li>" for text in steps_text.left_out(summary))
    settling = summary["phases"]["settling"]
    return page.section(
        "Steps",
        page.table(rows[0], rows[1:]) if rows else "",
        f"<ul>{left_out}</ul>" if left_out else "",
        note=f"The load changed while the run went on; each level by itself, its settling time ({settling}) left out.",
    )


def _cell(text: str) -> str:
    shown = escape(text)
    return f'<span class="unsure" title="too few requests">{shown}</span>' if text.startswith(wording.UNSURE) else shown
