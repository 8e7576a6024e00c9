"""One latency over time."""

from __future__ import annotations

import numpy as np

from tokenswarm.results.charts.axes import BLUE, RED, Figure, rounded, seconds_axis, shades
from tokenswarm.results.charts.thinning import MOST_POINTS, extremes_kept, running_percentiles, spread_out
from tokenswarm.results.flow import column
from tokenswarm.results.language import Language
from tokenswarm.results.phases import Phases
from tokenswarm.results.read import Run


def over_time(run: Run, phases: Phases, name: str, title: str, say: Language) -> Figure | None:
    """A scatter of one latency against the time the request started, thinned with its extremes kept, and the median
    and p95 of each stretch of time."""
    x, y = column(run.rows, "start_time") - phases.start, column(run.rows, name)
    known = ~(np.isnan(x) | np.isnan(y))
    if not known.any():
        return None
    x, y, ok = x[known], y[known], (run.rows["status"] == "ok").to_numpy()[known]
    kept = extremes_kept(x, y, MOST_POINTS)
    data = []
    for mask, name_of, colour in ((ok[kept], say("ok"), BLUE), (~ok[kept], say("not ok"), RED)):
        if mask.any():
            marker = {"size": 4, "color": colour, "opacity": 0.55}
            points = {"x": rounded(x[kept][mask]), "y": rounded(y[kept][mask])}
            data.append({"type": "scatter", "mode": "markers", "name": name_of, "marker": marker} | points)
    data += running_percentiles(x, y, say)
    axis: Figure = {"title": {"text": f"{title}, ms"}}
    axis |= {"type": "log"} if spread_out(y) else {"rangemode": "tozero"}
    layout = {"height": 360, "xaxis": seconds_axis(phases, say), "yaxis": axis}
    return {"data": data, "layout": layout | shades(phases, say), "shown": len(kept), "of": len(y)}
