"""Errors by class, over time."""

from __future__ import annotations

from typing import Final

import numpy as np

from tokenswarm.results.charts.axes import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    TEAL,
    VIOLET,
    Figure,
    rounded,
    seconds_axis,
    shades,
    time_bins,
)
from tokenswarm.results.cohort import tally
from tokenswarm.results.flow import column
from tokenswarm.results.language import Language
from tokenswarm.results.phases import Phases
from tokenswarm.results.read import Run
from tokenswarm.results.wording import on_chart

CLASS_COLOURS: Final = (RED, ORANGE, VIOLET, BLUE, TEAL, "#d6409f", "#b59a00", GREY)


def over_time(run: Run, phases: Phases, say: Language) -> Figure | None:
    """Stacked bars of requests that ended in an error, by class."""
    rows = run.rows[run.rows["error_class"] != ""]
    edges = time_bins(phases, 120)
    if rows.empty or edges is None:
        return None
    times = column(rows, "end_time")
    times = np.where(np.isnan(times), column(rows, "start_time"), times)
    times = np.clip(times, edges[0], edges[-1] - 1e-6)
    x, width = rounded(edges[:-1] - phases.start), float(edges[1] - edges[0])
    data = []
    for index, name in enumerate(tally(rows["error_class"])):
        counts, _ = np.histogram(times[(rows["error_class"] == name).to_numpy()], edges)
        bar = {"x": x, "y": counts.tolist(), "width": width, "offset": 0, "name": on_chart(name, 40)}
        data.append({"type": "bar", "marker": {"color": CLASS_COLOURS[index % len(CLASS_COLOURS)]}} | bar)
    axis = {"title": {"text": say("errors per {width} s", width=f"{width:g}")}, "rangemode": "tozero"}
    layout = {"height": 300, "barmode": "stack", "xaxis": seconds_axis(phases, say), "yaxis": axis}
    return {"data": data, "layout": layout | shades(phases, say)}
