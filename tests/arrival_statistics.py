"""Are these arrivals of the process that was asked for? Two textbook figures, made by another way than the schedule's.

The distribution of gamma gaps is integrated numerically, so that no library that could draw them judges them.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Sequence

STEPS = 4000


def dispersion(times: Sequence[float], seconds: float, bin_seconds: float) -> float:
    """Variance of the counts in bins / their mean, from the first instant on: 1 of a Poisson process, more of a bursty
    one, less of an even one."""
    bins = int(seconds / bin_seconds)
    counted = Counter(int((time - times[0]) / bin_seconds) for time in times)
    counts = [counted[index] for index in range(bins)]
    mean = sum(counts) / bins
    return sum((count - mean) ** 2 for count in counts) / (bins - 1) / mean


def ks_distance(gaps: Sequence[float], kind: str, blur: float = 0.0) -> float:
    """Kolmogorov–Smirnov: the largest distance of the distribution of these gaps, whose mean should be 1, from that of
    `poisson` or `gamma:CV`. Of n gaps that are from it, 99 % are below 1.63 / √n. `blur`: how far each may be off, as
    gaps between two clocks are; what that may explain is no distance."""
    variation = float(kind.partition(":")[2] or 1)
    edges, below = _gamma(1.0 / variation**2, max(gaps) + blur)

    def share(gap: float) -> float:
        return below[min(bisect.bisect_left(edges, gap), len(edges) - 1)] if gap > 0 else 0.0

    count, worst = len(gaps), 0.0
    for rank, gap in enumerate(sorted(gaps)):
        worst = max(worst, share(gap - blur) - rank / count, (rank + 1) / count - share(gap + blur))
    return worst


def _gamma(shape: float, highest: float) -> tuple[list[float], list[float]]:
    """Edges, and the share of a gamma distribution of mean 1 that lies below each: by midpoints, in u = x^shape, where
    the density has no pole."""
    top = highest**shape
    step = top / STEPS
    weights = [math.exp(-shape * ((n + 0.5) * step) ** (1 / shape)) for n in range(STEPS)]
    scale = shape**shape / math.gamma(shape + 1) * step
    edges = [((n + 1) * step) ** (1 / shape) for n in range(STEPS)]
    total, below = 0.0, []
    for weight in weights:
        total += weight * scale
        below.append(min(1.0, total))
    return edges, below
