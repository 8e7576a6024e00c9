"""A server's own Prometheus histograms, and what they say about the time between two looks at them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

BOUND = re.compile(r'le="([^"]+)"')


@dataclass(frozen=True)
class Histogram:
    """Seconds. `buckets` counts what is at most each bound, in ascending order."""

    count: float
    total: float
    buckets: dict[float, float]

    @property
    def mean_ms(self) -> float:
        """Milliseconds."""
        return self.total / self.count * 1e3

    def percentile_ms(self, share: float) -> tuple[float, float]:
        """The bounds of the bucket in which a percentile lies, milliseconds."""
        low = 0.0
        for bound, count in self.buckets.items():
            if count >= share * self.count:
                return low * 1e3, bound * 1e3
            low = bound
        return low * 1e3, math.inf


def growth(before: dict[str, float], after: dict[str, float], name: str) -> Histogram:
    """What a histogram was told between two readings of the page, all its label sets together."""
    grown = {series: value - before.get(series, 0.0) for series, value in after.items() if series.startswith(name)}

    def total(suffix: str) -> float:
        return sum(value for series, value in grown.items() if series.partition("{")[0] == f"{name}_{suffix}")

    buckets: dict[float, float] = {}
    for series, value in grown.items():
        if series.startswith(f"{name}_bucket{{"):
            found = BOUND.search(series)
            assert found is not None, series
            bound = float(found[1])
            buckets[bound] = buckets.get(bound, 0.0) + value
    return Histogram(total("count"), total("sum"), dict(sorted(buckets.items())))
