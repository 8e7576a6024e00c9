"""One latency against what may explain it: the requests, thinned, and the median and p95 of each bin."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tokenswarm.results.charts.axes import BLUE, ORANGE, RED, TEAL, Figure, rounded, value_axis
from tokenswarm.results.charts.thinning import extremes_kept, spread_out
from tokenswarm.results.figures.against import Pairs
from tokenswarm.results.language import Language

MOST_POINTS: Final = 1200


def scatter(pairs: Pairs, bins: list[dict[str, Any]], x_title: str, y_title: str, say: Language) -> Figure:
    """Points and bins of one relation (`bins` as in summary.json); `shown` of `of` requests are drawn."""
    wide = spread_out(pairs.x)
    kept = extremes_kept(np.log10(pairs.x) if wide else pairs.x, pairs.y, MOST_POINTS)
    data: list[Figure] = []
    for mask, name, colour in ((pairs.ok[kept], say("ok"), BLUE), (~pairs.ok[kept], say("not ok"), RED)):
        if mask.any():
            marker = {"size": 4, "color": colour, "opacity": 0.4}
            points = {"x": rounded(pairs.x[kept][mask]), "y": rounded(pairs.y[kept][mask])}
            data.append({"type": "scatter", "mode": "markers", "name": name, "marker": marker} | points)
    for statistic, name, colour in (("p50", say("median"), TEAL), ("p95", say("p95"), ORANGE)):
        known = [one for one in bins if one[statistic] is not None]
        if len(known) > 1:
            points = {"x": [one["x"] for one in known], "y": rounded(np.array([one[statistic] for one in known]))}
            style = {"line": {"color": colour, "width": 2.5}, "marker": {"color": colour, "size": 6}}
            data.append({"type": "scatter", "mode": "lines+markers", "name": name} | style | points)
    layout: Figure = {"height": 330, "xaxis": value_axis(x_title, pairs.x, wide)}
    layout["yaxis"] = value_axis(y_title, pairs.y, spread_out(pairs.y))
    return {"data": data, "layout": layout, "shown": len(kept), "of": len(pairs.x)}
