"""One latency: over time, and as a distribution."""

from __future__ import annotations

import numpy as np

from tokenswarm.results.charts.axes import BLUE, GREY, RED, Figure, label, rounded, seconds_axis, shades
from tokenswarm.results.charts.thinning import MOST_POINTS, extremes_kept, running_percentiles, spread_out
from tokenswarm.results.distribution import Distribution, Floats
from tokenswarm.results.flow import column
from tokenswarm.results.language import Language
from tokenswarm.results.phases import Phases
from tokenswarm.results.read import Run
from tokenswarm.results.wording import number


def over_time(run: Run, phases: Phases, name: str, title: str, say: Language) -> Figure | None:
    """A scatter of one latency against the time the request started, thinned with its extremes kept, and the median
    and p95 of each stretch of time."""
    rows = run.rows[run.rows[name].notna() & run.rows["start_time"].notna()]
    if rows.empty:
        return None
    x, y = column(rows, "start_time") - phases.start, column(rows, name)
    ok = (rows["status"] == "ok").to_numpy()
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


def distribution(values: Floats, found: Distribution | None, title: str, colour: str, say: Language) -> Figure | None:
    """A histogram and the share of requests below each value (right axis), with the percentiles that can be had."""
    values = np.sort(values[~np.isnan(values)])
    if not len(values) or found is None:
        return None
    wide = spread_out(values)
    edges = _histogram_edges(values, wide)
    counts, _ = np.histogram(values, edges)
    shares = np.linspace(0, 100, min(400, max(2, len(values))))
    bars: Figure = {"x": rounded(edges), "y": [*counts.tolist(), 0], "fill": "tozeroy"}
    bars["line"] = {"shape": "hv", "width": 1.2, "color": colour}
    curve: Figure = {"x": rounded(np.percentile(values, shares)), "y": rounded(shares), "yaxis": "y2"}
    curve["line"] = {"color": GREY, "width": 2}
    lines = [name for name in ("p50", "p95", "p99") if name not in found["unsure"]]
    layout: Figure = {
        "height": 320,
        "xaxis": {"title": {"text": f"{title}, ms"}, "type": "log" if wide else "linear"},
        "yaxis": {"title": {"text": say("requests")}, "rangemode": "tozero"},
        "yaxis2": {"title": {"text": say("share below, %")}, "overlaying": "y", "side": "right", "range": [0, 101]},
        "shapes": [_percentile_line(found[name]) for name in lines],
        "annotations": [
            label(
                float(np.log10(found[name])) if wide else found[name], f"{name} {number(found[name])}", 1.0 - 0.09 * i
            )
            for i, name in enumerate(lines)
        ],
    }
    layout["yaxis2"] |= {"showgrid": False, "tickvals": [0, 25, 50, 75, 100]}
    scatter = {"type": "scatter", "mode": "lines"}
    return {
        "data": [scatter | bars | {"name": say("requests")}, scatter | curve | {"name": say("share below")}],
        "layout": layout,
    }


def _histogram_edges(values: Floats, wide: bool) -> Floats:
    low, high = float(values[0]), float(values[-1])
    if high - low < 1e-9 * max(1.0, abs(high)):
        half = max(0.05, abs(high) * 0.02)
        return np.linspace(low - half, high + half, 12)
    bins = int(np.clip(np.sqrt(len(values)) * 1.5, 12, 70))
    edges: Floats = np.geomspace(low, high, bins + 1) if wide else np.linspace(low, high, bins + 1)
    edges[0], edges[-1] = low, high
    return edges


def _percentile_line(x: float) -> Figure:
    place = {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1}
    return place | {"line": {"color": GREY, "width": 1, "dash": "dot"}}
