"""The report's section on requests one by one: a sample in the middle of what is measured, and one around the worst
moment."""

from __future__ import annotations

import numpy as np

from tokenswarm.results import page
from tokenswarm.results.charts import timeline as charts
from tokenswarm.results.charts.stalls import SURE_S
from tokenswarm.results.flow import column
from tokenswarm.results.phases import intended
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import count, number


def timeline(material: Material) -> str:
    """Nothing where no request started."""
    say, run, phases = material.say, material.run, material.phases
    longest = max(phases.windows, key=lambda window: window.seconds)
    middle = charts.sample(run.rows, (longest.start + longest.end) / 2)
    if middle is None:
        return ""
    where = say("in the middle of the whole run") if phases.whole_run else say("in the middle of the steady window")
    drawn = [_figure("chart-timeline", material, middle, None, where)]
    worst = _worst(material)
    if worst is not None:
        row, about = worst
        around = charts.sample(run.rows, float(column(run.rows, "start_time")[row]))
        if around is not None and not (around.start == middle.start and around.end == middle.end):
            drawn.append(_figure("chart-timeline-worst", material, around, str(run.rows["id"].iat[row]), about))
    note = say(
        "A bar is a request, in the first line that was free then: a line is no user. Point at it for its id and its "
        "times. Not chosen by how they went: each picture has every request that started nearest to its moment, up to "
        "{most}.",
        most=charts.MOST,
    )
    return page.section(say("Requests one by one"), *drawn, note=note)


def _figure(name: str, material: Material, found: charts.Sample, marked: str | None, where: str) -> str:
    say, origin = material.say, material.phases.start
    each = (material.summary["stalls"] or {"each": []})["each"]
    known = [stall for stall in each if stall["to_s"] - stall["from_s"] <= SURE_S]
    stalls = {stall["id"]: (stall["at_s"] - stall["gap_ms"] / 1e3, stall["at_s"]) for stall in known}
    caption = say(
        "{count} requests that started from {start} to {end} s, {where}",
        count=count(len(found.rows)), start=f"{found.start - origin:.2f}", end=f"{found.end - origin:.2f}", where=where,
    )  # fmt: skip
    return page.figure(name, charts.chart(found, origin, stalls, marked, say), caption)


def _worst(material: Material) -> tuple[int, str] | None:
    """The row that stood still for longest, where one did, else that with the highest TTFT; and what that was."""
    say, rows, stalls = material.say, material.run.rows, material.summary["stalls"]
    if stalls and stalls["requests"]:
        gaps = column(rows, "itl_max_ms")
        return int(np.nanargmax(gaps)), say("around the longest stall, {s} s", s=number(float(np.nanmax(gaps)) / 1e3))
    ttft = np.where(material.phases.contain(intended(material.run)), column(rows, "ttft_ms"), np.nan)
    if np.isnan(ttft).all():
        return None
    return int(np.nanargmax(ttft)), say("around the highest TTFT, {ms} ms", ms=number(float(np.nanmax(ttft))))
