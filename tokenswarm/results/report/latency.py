"""The report's latencies: the table of percentiles, and distributions."""

from __future__ import annotations

from typing import Any

from tokenswarm.results import wording
from tokenswarm.results.charts import latency as charts
from tokenswarm.results.charts.axes import BLUE, TEAL
from tokenswarm.results.flow import column
from tokenswarm.results.page import escape, figure, section, table
from tokenswarm.results.phases import intended
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import STATISTICS, count, statistic


def percentiles(material: Material) -> str:
    shown = wording.shown_latencies(material.summary)
    columns = (*STATISTICS[:1], "std", "min", *STATISTICS[1:])
    rows = [
        [escape(wording.LATENCIES[name]), *(_statistic(found, column) for column in columns), count(found["count"])]
        for name, found in shown.items()
    ]
    window = "the whole run" if material.phases.whole_run else "the steady window"
    note = f"Milliseconds, requests due in {window} ({wording.seconds(material.phases.seconds)})."
    if "unsure" in "".join(cell for row in rows for cell in row):
        note += " Grey figures marked ~ have too few requests behind them to be relied on."
    return section("Latency", table(["", *columns, "count"], rows) if rows else "", note=note)


def _statistic(found: dict[str, Any] | None, name: str) -> str:
    text = escape(statistic(found, name))
    return f'<span class="unsure" title="too few requests">{text}</span>' if text.startswith(wording.UNSURE) else text


def distributions(material: Material) -> str:
    cohort = material.run.rows[material.phases.contain(intended(material.run))]
    ok = cohort[cohort["status"] == "ok"]
    drawn = []
    for name, rows, colour in (("ttft_ms", cohort, BLUE), ("tpot_ms", ok, TEAL)):
        label = wording.LATENCIES[name]
        chart = charts.distribution(column(rows, name), material.summary["latency"][name], label, colour)
        drawn.append(figure(f"chart-{name}", chart, f"{label} of {count(int(rows[name].notna().sum()))} requests"))
    inside = "".join(drawn)
    return section("Distributions", f'<div class="pair">{inside}</div>' if inside else "")
