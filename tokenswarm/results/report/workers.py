"""The report's section on who made the load: a line for each worker, where there are several or one was lost."""

from __future__ import annotations

from typing import Any, Final

from tokenswarm.results import page
from tokenswarm.results.page import escape
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import count, number, plain

MOST: Final = 200
"""Shown; a table longer than that is for summary.json."""


def workers(material: Material) -> str:
    """Nothing where the one process there was did well."""
    known = material.summary["run"]["workers"]
    if len(known) < 2 and all(worker["status"] in (None, "finished") for worker in known):
        return ""
    rows = [
        [
            str(worker["index"]),
            f'<span class="words">{escape(plain(worker["hostname"] or "", 60))}</span> {worker["pid"] or ""}',
            _status(worker["status"] or "running"),
            number(None) if worker["rows"] is None else count(worker["rows"]),
            count(worker["in_flight"]),
            count(worker["missing_batches"]),
            _offset(worker),
        ]
        for worker in known[:MOST]
    ]
    heads = ["Worker", "Host, process", "", "rows", "without a row", "reports missing", "clock, ms"]
    left_out = f" The first {MOST} of {count(len(known))}." if len(known) > MOST else ""
    note = "Times are the master's. The last column: how far a worker's own clock was off, and how well that is known."
    return page.section("Workers", page.table(heads, rows), note=note + left_out)


def _status(status: str) -> str:
    level = {"finished": "valid", "late": "note"}.get(status, "invalid")
    return f'<span class="level {level} words">{escape(plain(status, 40))}</span>'


def _offset(worker: dict[str, Any]) -> str:
    offset, uncertainty = worker["clock_offset_ms"], worker["clock_uncertainty_ms"]
    return number(None) if offset is None else f"{offset:+,.1f} ± {uncertainty or 0:.1f}"
