"""Charts of several sides in one: changes with their intervals, shares below a value, figures over time.

Plotly figures in plain dicts, as `results/charts.py` makes them; None where nothing was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from tokenswarm.results.charts.axes import BLUE, GREY, ORANGE, RED, TEAL, VIOLET, Figure, rounded
from tokenswarm.results.charts.thinning import spread_out
from tokenswarm.results.compare import bootstrap, metrics
from tokenswarm.results.compare.bootstrap import Floats, Sample
from tokenswarm.results.compare.differences import Comparison
from tokenswarm.results.compare.sides import Side
from tokenswarm.results.wording import on_chart

COLOURS: Final = (GREY, BLUE, ORANGE, TEAL, VIOLET, RED)
POINTS: Final = 400
MOST_STRETCHES: Final = 60
STRETCH_ROWS: Final = 20
_WIDEST: Final = 10.0
"""An interval beyond 1,000 % is drawn to there."""


def changes(comparisons: Sequence[Comparison]) -> Figure | None:
    """Relative changes as points with their intervals, a line for each metric, a colour for each candidate."""
    traces: list[Figure] = []
    titles: list[str] = []
    for index, comparison in enumerate(comparisons, 1):
        known = [one for one in comparison.differences if one.relative and one.relative.low is not None]
        found = [(one.title, one.relative) for one in known if one.relative]
        titles += [title for title, _ in found if title not in titles]
        x = np.array([change.estimate for _, change in found])
        ends = np.array([(change.low, change.high) for _, change in found], dtype=np.float64).reshape(-1, 2)
        x, ends = np.clip(x, -1, _WIDEST) * 100, np.clip(ends, -1, _WIDEST) * 100
        if len(x):
            bars = {"type": "data", "symmetric": False, "array": rounded(ends[:, 1] - x)}
            bars |= {"arrayminus": rounded(x - ends[:, 0]), "thickness": 1.5, "width": 4}
            traces.append(
                {"type": "scatter", "mode": "markers", "x": rounded(x), "y": [title for title, _ in found]}
                | {"error_x": bars, "name": on_chart(comparison.candidate.name)}
                | {"marker": {"color": _colour(index), "size": 8}}
            )
    if not traces:
        return None
    zero = {"type": "line", "xref": "x", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "line": {"color": GREY}}
    layout: Figure = {
        "height": 110 + (20 + 8 * len(traces)) * len(titles),
        "xaxis": {"title": {"text": "change against the baseline, %"}},
        "yaxis": {"type": "category", "categoryorder": "array", "categoryarray": titles[::-1]},
        "shapes": [zero],
        "scattermode": "group",
        "showlegend": len(traces) > 1,
    }
    return {"data": traces, "layout": layout}


def shares_below(sides: Sequence[Side], latency: str) -> Figure | None:
    """The share of requests (of ITL: of gaps) below each value; thin lines are the runs of a side that has several."""
    traces: list[Figure] = []
    everything: list[Floats] = []
    for index, side in enumerate(sides):
        samples = [run.samples[latency] for run in side.runs if latency in run.samples]
        if not samples:
            continue
        whole = bootstrap.pooled_samples(samples)
        everything.append(whole.values)
        for one in samples if len(samples) > 1 else ():
            thin = {"width": 0.8, "color": _colour(index)}
            traces.append(_curve(one) | {"line": thin, "opacity": 0.45, "showlegend": False, "hoverinfo": "skip"})
        traces.append(_curve(whole) | {"line": {"width": 2.2, "color": _colour(index)}, "name": _named(side)})
    if not traces:
        return None
    wide = spread_out(np.concatenate(everything))
    layout: Figure = {
        "height": 320,
        "xaxis": {"title": {"text": f"{metrics.title_of(latency)}, ms"}, "type": "log" if wide else "linear"},
        "yaxis": {"title": {"text": "share below, %"}, "range": [0, 101]},
        "showlegend": True,
    }
    return {"data": traces, "layout": layout}


def over_time(sides: Sequence[Side], name: str, title: str) -> Figure | None:
    """A latency's running median, or tokens a second, from the start of each run's window; a line for each run."""
    traces: list[Figure] = []
    for index, side in enumerate(sides):
        first = True
        for run in side.runs:
            if name not in run.over_time:
                continue
            x, y = run.over_time[name]
            if name in metrics.COLUMNS:
                x, y = running_median(x, y)
            if len(x) < 2:
                continue
            points = {"type": "scatter", "mode": "lines", "x": rounded(x), "y": rounded(y)}
            line = {"color": _colour(index), "width": 1.8 if len(side.runs) == 1 else 1.1}
            group = {"name": _named(side), "legendgroup": str(index), "showlegend": first}
            traces.append(points | {"line": line} | group)
            first = False
    if not traces:
        return None
    layout: Figure = {
        "height": 300,
        "xaxis": {"title": {"text": "seconds since the steady window's start"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": title}, "rangemode": "tozero"},
        "showlegend": True,
    }
    return {"data": traces, "layout": layout}


def running_median(times: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Medians of stretches of time of equal length that hold twenty values each on average; of those with any."""
    measured = ~(np.isnan(times) | np.isnan(values))
    times, values = times[measured], values[measured]
    stretches = min(MOST_STRETCHES, len(times) // STRETCH_ROWS)
    if stretches < 2:
        return np.empty(0), np.empty(0)
    edges = np.linspace(times.min(), times.max(), stretches + 1)
    which = np.minimum(np.searchsorted(edges, times, "right") - 1, stretches - 1)
    order = np.argsort(which, kind="stable")
    parts = np.split(values[order], np.searchsorted(which[order], np.arange(1, stretches)))
    middles = (edges[:-1] + edges[1:]) / 2
    filled = np.array([len(part) > 0 for part in parts])
    return middles[filled], np.array([np.median(part) for part in parts if len(part)])


def _curve(found: Sample) -> dict[str, Any]:
    # Evenly spaced, and closer towards the tail, whose far end matters most.
    shares = np.unique(np.concatenate([np.linspace(0, 0.99, POINTS), 1 - np.geomspace(0.01, 1e-4, POINTS // 4), [1.0]]))
    shares = shares if found.size > POINTS else np.linspace(0, 1, max(2, int(found.size)))
    points = {"x": rounded(bootstrap.quantile(found, shares)), "y": rounded(shares * 100)}
    return {"type": "scatter", "mode": "lines"} | points


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _named(side: Side) -> str:
    return on_chart(f"{side.role}: {side.name}")
