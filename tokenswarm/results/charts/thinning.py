"""Fewer points than were measured, honestly: extremes are kept, and a percentile has enough values behind it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tokenswarm.results.charts.axes import ORANGE, TEAL, Figure, rounded
from tokenswarm.results.distribution import Floats
from tokenswarm.results.language import Language

MOST_POINTS: Final = 4000


def extremes_kept(x: Floats, y: Floats, limit: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Indices of at most about `limit` points: all of them if they fit; else the lowest and highest of every stretch of
    x, which no thinning may hide, and evenly spaced ones between."""
    everything = np.arange(len(x))
    if len(x) <= limit:
        return everything
    bins = limit // 4
    span = float(x.max() - x.min()) or 1.0
    which = np.minimum(((x - x.min()) / span * bins).astype(np.int64), bins - 1)
    order = np.lexsort((y, which))
    first = np.flatnonzero(np.diff(which[order], prepend=-1))
    last = np.append(first[1:], len(order)) - 1
    keep = np.concatenate([order[first], order[last], everything[:: -(-len(x) // (limit // 2))]])
    return np.unique(keep)


def spread_out(values: Floats) -> bool:
    """Whether only a logarithmic axis shows both the bulk and the tail."""
    low, high = np.percentile(values, (1, 99.9))
    return bool(low > 0 and values.min() > 0 and high / low > 50)


def running_percentiles(x: Floats, y: Floats, say: Language) -> list[Figure]:
    """Median and p95 of stretches of time that hold at least 72 requests each; none with fewer than two of them."""
    stretches = min(60, len(x) // 100)
    if stretches < 2:
        return []
    edges = np.linspace(x.min(), x.max() + 1e-9, stretches + 1)
    which = np.digitize(x, edges) - 1
    found = []
    for index in range(stretches):
        inside = y[which == index]
        if len(inside) >= 72:
            middle = float(edges[index] + edges[index + 1]) / 2
            found.append((middle, *(float(p) for p in np.percentile(inside, (50, 95)))))
    if len(found) < 2:
        return []
    table = np.array(found)
    line = {"type": "scatter", "mode": "lines", "x": rounded(table[:, 0])}
    return [
        line | {"y": rounded(table[:, 1]), "name": say("median"), "line": {"color": TEAL, "width": 2}},
        line | {"y": rounded(table[:, 2]), "name": "p95", "line": {"color": ORANGE, "width": 2}},
    ]
