"""Fewer points than were measured, honestly: extremes are kept, and a percentile has enough values behind it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tokenswarm.results.charts.axes import ORANGE, TEAL, Figure, rounded
from tokenswarm.results.distribution import NEEDED, Floats
from tokenswarm.results.language import Language

MOST_POINTS: Final = 4000
MOST_OF_A_CHART: Final = 40_000
"""Points of all its lines together, some 0.7 MB: a report must open fast however long the run was."""


def extremes_kept(x: Floats, y: Floats, limit: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Indices of at most about `limit` points: all of them if they fit; else the lowest and highest of every stretch of
    x, which no thinning may hide, and evenly spaced ones between. None of them is NaN."""
    everything = np.arange(len(x))
    if len(x) <= limit:
        return everything
    bins = limit // 4
    span = float(x.max() - x.min()) or 1.0
    which = np.minimum(((x - x.min()) / span * bins).astype(np.uint16), bins - 1)
    order = np.argsort(which, kind="stable")  # of small integers: by radix, in no time
    sizes = np.bincount(which)
    sizes = sizes[sizes > 0]
    starts = np.cumsum(sizes) - sizes
    values = y[order]
    keep = [everything[:: -(-len(x) // (limit // 2))]]
    for extreme in (np.minimum, np.maximum):
        reached = np.flatnonzero(values == np.repeat(extreme.reduceat(values, starts), sizes))
        keep.append(order[reached[np.searchsorted(reached, starts)]])  # the first of each stretch that has it
    return np.unique(np.concatenate(keep))


def fitting(traces: list[Figure]) -> list[Figure]:
    """The traces of a chart; where its lines have more points than one may have, each keeps its share of them."""
    lines = [trace for trace in traces if trace.get("mode") == "lines"]
    if sum(len(line["x"]) for line in lines) <= MOST_OF_A_CHART:
        return traces
    each = MOST_OF_A_CHART // len(lines)
    return [_thinned(trace, each) if trace.get("mode") == "lines" else trace for trace in traces]


def _thinned(line: Figure, limit: int) -> Figure:
    x, y = np.array(line["x"], dtype=np.float64), np.array(line["y"], dtype=np.float64)
    gap = np.isnan(y)
    there = np.flatnonzero(~gap)
    kept = there[extremes_kept(x[there], y[there], limit)]
    breaks = np.flatnonzero(gap & ~np.roll(gap, 1))  # no line is drawn over what was not measured
    kept = np.sort(np.concatenate([kept, breaks]))
    return line | {name: [line[name][index] for index in kept.tolist()] for name in ("x", "y")}


def spread_out(values: Floats) -> bool:
    """Whether only a logarithmic axis shows both the bulk and the tail."""
    low, high = np.percentile(values, (1, 99.9))
    return bool(low > 0 and values.min() > 0 and high / low > 50)


def running_percentiles(x: Floats, y: Floats, say: Language) -> list[Figure]:
    """Median and p95 of stretches of time that hold at least 72 requests each, with a gap where one holds fewer; none
    with fewer than two of them."""
    stretches = min(60, len(x) // 100)
    if stretches < 2:
        return []
    edges = np.linspace(x.min(), x.max() + 1e-9, stretches + 1)
    which = np.digitize(x, edges) - 1
    found = np.full((2, stretches), np.nan)
    for index in range(stretches):
        inside = y[which == index]
        if len(inside) >= NEEDED["p95"]:
            found[:, index] = np.percentile(inside, (50, 95))
    if np.isfinite(found[0]).sum() < 2:
        return []
    line = {"type": "scatter", "mode": "lines", "x": rounded((edges[:-1] + edges[1:]) / 2)}
    lines = (found[0], say("median"), TEAL), (found[1], "p95", ORANGE)
    return [
        line | {"y": rounded(values)} | {"name": name, "line": {"color": colour, "width": 2}}
        for values, name, colour in lines
    ]
