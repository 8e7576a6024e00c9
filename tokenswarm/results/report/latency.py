"""The report's latencies: the table of percentiles."""

from __future__ import annotations

from typing import Any

from tokenswarm.results import wording
from tokenswarm.results.language import Language
from tokenswarm.results.page import escape, section, table
from tokenswarm.results.report.material import Material, marked
from tokenswarm.results.wording import STATISTICS, count, statistic


def percentiles(material: Material) -> str:
    shown, say = wording.shown_latencies(material.summary), material.say
    columns = (*STATISTICS[:1], "std", "min", *STATISTICS[1:])
    rows = [
        [
            _named(wording.LATENCIES[name], say),
            *(_statistic(found, column, say) for column in columns),
            count(found["count"]),
        ]
        for name, found in shown.items()
    ]
    window = say("the whole run") if material.phases.whole_run else say("the steady window")
    lasted = wording.seconds(material.phases.seconds)
    note = say("Milliseconds, requests due in {window} ({time}).", window=window, time=lasted)
    if "unsure" in "".join(cell for row in rows for cell in row):
        note += say(" Grey figures marked ~ have too few requests behind them to be relied on.")
    heads = ["", *(say(column) for column in columns), say("count")]
    return section(say("Latency"), table(heads, rows) if rows else "", note=note)


def _named(name: str, say: Language) -> str:
    full = say(wording.IN_FULL.get(name, ""))
    return escape(say(name)) + (f" <small>{escape(full)}</small>" if full else "")


def _statistic(found: dict[str, Any] | None, name: str, say: Language) -> str:
    return marked(statistic(found, name), say)
