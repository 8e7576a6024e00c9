"""How a latency is spread: a histogram, the share below each value, and the percentiles that can be had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from hdrh.histogram import HdrHistogram

from tokenswarm import histogram
from tokenswarm.results.charts.axes import CLEAR, GREY, Figure, label, rounded, value_axis
from tokenswarm.results.charts.thinning import spread_out
from tokenswarm.results.distribution import Distribution, Floats
from tokenswarm.results.language import Language
from tokenswarm.results.wording import number

HEIGHT: Final = 300
CURVE_POINTS: Final = 300
MARKED: Final = ("p50", "p95", "p99")


@dataclass(frozen=True)
class Spread:
    """Values in milliseconds, rising, and how many there are up to and with each: rows count once, values of a
    histogram many times."""

    values: Floats
    so_far: Floats

    def at_most(self, values: Floats) -> Floats:
        """How many are no more than each of these."""
        found: Floats = np.append(0.0, self.so_far)[np.searchsorted(self.values, values, side="right")]
        return found

    def quantiles(self, shares: Floats) -> Floats:
        """The values at these shares in per cent."""
        at = np.searchsorted(self.so_far, shares / 100 * self.so_far[-1] - 1e-9, side="left")
        found: Floats = self.values[np.minimum(at, len(self.values) - 1)]
        return found


def of_rows(values: Floats) -> Spread | None:
    """Of a column; None where nothing was measured."""
    known = np.sort(values[~np.isnan(values)])
    return Spread(known, np.arange(1.0, len(known) + 1)) if len(known) else None


def of_histogram(merged: HdrHistogram) -> Spread | None:
    """Of the merged histograms of intervals.jsonl; None of an empty one."""
    values, counts = histogram.recorded(merged)
    return Spread(values / 1e3, np.cumsum(counts, dtype=np.float64)) if len(values) else None


def chart(spread: Spread, found: Distribution, title: str, what: str, colour: str, say: Language) -> Figure:
    """`what` was counted: requests, or gaps. `found`: the percentiles, as in summary.json."""
    wide = spread_out(spread.quantiles(np.linspace(0, 100, 1001)))
    edges = _edges(spread, wide)
    counts = np.diff(spread.at_most(np.append(edges[:-1], np.inf)), prepend=0.0)[1:]
    counts[0] += spread.at_most(edges[:1])[0]
    bars: Figure = {"x": rounded(edges), "y": rounded(np.append(counts, 0.0)), "fill": "tozeroy", "name": what}
    bars["line"] = {"shape": "hv", "width": 1.2, "color": colour}
    x = np.unique(spread.quantiles(np.linspace(0, 100, CURVE_POINTS)))
    curve: Figure = {
        "x": rounded(x),
        "y": rounded(spread.at_most(x) / spread.so_far[-1] * 100),
        "yaxis": "y2",
        "name": say("share below"),
    }
    curve["line"] = {"color": GREY, "width": 2}
    marked = [name for name in MARKED if name not in found["unsure"]]
    layout: Figure = {
        "height": HEIGHT,
        "xaxis": value_axis(f"{title}, ms", spread.values, wide) | {"rangemode": "normal"},
        "yaxis": {"title": {"text": what, "standoff": CLEAR}, "rangemode": "tozero"},
        "yaxis2": {"title": {"text": say("share below, %")}, "overlaying": "y", "side": "right", "range": [0, 101]},
        "shapes": [_line(found[name]) for name in marked],
        "annotations": [
            label(float(np.log10(found[name])) if wide else found[name], f"{name} {number(found[name])}", 1 - 0.1 * i)
            | {"bgcolor": "rgba(0,0,0,0)"}  # the bars behind it are to be seen
            for i, name in enumerate(marked)
        ],
    }
    layout["yaxis2"] |= {"showgrid": False, "tickvals": [0, 25, 50, 75, 100]}
    scatter = {"type": "scatter", "mode": "lines"}
    return {"data": [scatter | bars, scatter | curve], "layout": layout}


def _edges(spread: Spread, wide: bool) -> Floats:
    low, high = float(spread.values[0]), float(spread.values[-1])
    if high - low < 1e-9 * max(1.0, abs(high)):
        half = max(0.05, abs(high) * 0.02)
        return np.linspace(low - half, high + half, 12)
    bins = int(np.clip(np.sqrt(spread.so_far[-1]) * 1.5, 12, 70))
    edges: Floats = np.geomspace(low, high, bins + 1) if wide else np.linspace(low, high, bins + 1)
    edges[0], edges[-1] = low, high
    return edges


def _line(x: float) -> Figure:
    place = {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1}
    return place | {"line": {"color": GREY, "width": 1, "dash": "dot"}}
