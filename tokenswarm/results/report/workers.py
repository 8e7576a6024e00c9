"""The report's section on who made the load: a line for each worker, where there are several or one was lost."""

from __future__ import annotations

from typing import Any, Final

from tokenswarm.results import page
from tokenswarm.results.language import Language
from tokenswarm.results.page import escape
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import count, number, plain

MOST: Final = 200
"""Shown; a table longer than that is for summary.json."""


def workers(material: Material) -> str:
    """Nothing where the one process there was did well."""
    known, say = material.summary["run"]["workers"], material.say
    if len(known) < 2 and all(worker["status"] in (None, "finished") for worker in known):
        return ""
    rows = [
        [
            str(worker["index"]),
            f'<span class="words">{escape(plain(worker["hostname"] or "", 60))}</span> {worker["pid"] or ""}',
            _status(worker["status"] or "running", say),
            number(None) if worker["rows"] is None else count(worker["rows"]),
            count(worker["in_flight"]),
            count(worker["missing_batches"]),
            _offset(worker),
        ]
        for worker in known[:MOST]
    ]
    heads = [say("Worker"), say("Host, process"), "", say("rows"), say("without a row")]
    heads += [say("reports missing"), say("clock, ms")]
    note = say(
        "Times are the master's. The last column: how far a worker's own clock was off, and how well that is known."
    )
    if len(known) > MOST:
        note += say(" The first {n} of {all}.", n=count(MOST), all=count(len(known)))
    return page.section(say("Workers"), page.table(heads, rows), note=note)


def _status(status: str, say: Language) -> str:
    level = {"finished": "valid", "late": "note"}.get(status, "invalid")
    return f'<span class="level {level} words">{escape(plain(say(status), 40))}</span>'


def _offset(worker: dict[str, Any]) -> str:
    offset, uncertainty = worker["clock_offset_ms"], worker["clock_uncertainty_ms"]
    if offset is None:
        return number(None)
    shown = round(offset, 1) or 0.0  # no -0.0
    return f"{shown:{'+' if shown else ''},.1f} ± {uncertainty or 0:.1f}"
