"""Percentiles of rows (type 7, exact) and of merged histograms, and which of them have too few samples behind them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

from tokenswarm import histogram

Floats = npt.NDArray[np.float64]
Distribution = dict[str, Any]

PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}
NEEDED: Final = {"p50": 6, "p90": 36, "p95": 72, "p99": 368, "p99.9": 3688}
"""Rows for a two-sided 95 % interval of the percentile to exist at all: q^n <= 0.025."""


def of(values: Floats, lower_bounds: Floats | None = None) -> Distribution | None:
    """Count, mean, std (of a sample, n - 1), min, max and percentiles of the values that are not NaN; None without any.

    `unsure` names the percentiles with too few samples. With `lower_bounds` (same shape; NaN: equal to the value),
    `low` holds the percentiles of those: the truth lies between the two.
    """
    measured = ~np.isnan(values)
    found = values[measured]
    if not len(found):
        return None
    ranked = np.sort(found)
    result: Distribution = {
        "count": len(found),
        "mean": float(found.mean()),
        "std": float(found.std(ddof=1)) if len(found) > 1 else None,
        "min": float(ranked[0]),
        **_percentiles(ranked),
        "max": float(ranked[-1]),
        "unsure": unsure(len(found)),
    }
    if lower_bounds is not None:
        low = lower_bounds[measured]
        result["low"] = _percentiles(np.sort(np.where(np.isnan(low), found, low)))
    return result


def of_histograms(encoded: Iterable[str]) -> Distribution | None:
    """The same of HDR histograms of microseconds, in milliseconds, within 0.5 %. Raises ValueError on a damaged one."""
    return of_histogram(histogram.merge(encoded))


def of_histogram(merged: HdrHistogram) -> Distribution | None:
    """The same of one."""
    count = int(merged.get_total_count())
    if not count:
        return None
    mean, deviation = histogram.mean_and_deviation_ms(merged)
    return {
        "count": count,
        "mean": mean,
        "std": deviation,
        "min": merged.get_min_value() / 1e3,
        **{name: histogram.percentile_ms(merged, q) for name, q in PERCENTILES.items()},
        "max": merged.get_max_value() / 1e3,
        "unsure": unsure(count),
    }


def between(edges: Floats, at: Floats, values: Floats) -> list[Floats]:
    """The values in each stretch from one edge to the next, by where they are (`at`, same shape; NaN: nowhere); those
    outside are left out."""
    which = np.digitize(at, edges).astype(np.uint16)
    order = np.argsort(which, kind="stable")  # of small integers: by radix, in no time
    ends = np.cumsum(np.bincount(which, minlength=len(edges) + 1))
    return np.split(values[order], ends[:-1])[1:-1]


def unsure(count: int) -> list[str]:
    """The percentiles that so many samples cannot carry."""
    return [name for name, needed in NEEDED.items() if count < needed]


def _percentiles(ranked: Floats) -> dict[str, float]:
    """Of values in order, since then it takes the least time."""
    found = np.percentile(ranked, list(PERCENTILES.values()), method="linear")
    return {name: float(value) for name, value in zip(PERCENTILES, found, strict=True)}
