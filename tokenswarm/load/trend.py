"""Whether a figure grows over time: a straight line through the means of eight successive stretches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

STRETCHES: Final = 8
FEWEST: Final = 4
_STUDENT: Final = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447}
"""Two-sided 95 % of Student's t, by degrees of freedom."""


def slope(points: Sequence[tuple[float, float]], start: float, end: float) -> tuple[float, float] | None:
    """The 95 % interval of the slope per second of (time, figure) points in [start, end]; None of too few.

    Means of stretches, not the points themselves: neighbours are alike, and would make the interval too narrow.
    """
    if end <= start:
        return None
    stretches: list[list[float]] = [[] for _ in range(STRETCHES)]
    for at, figure in points:
        index = min(STRETCHES - 1, int((at - start) / (end - start) * STRETCHES))
        if index >= 0:
            stretches[index].append(figure)
    width = (end - start) / STRETCHES
    means = [((i + 0.5) * width, sum(each) / len(each)) for i, each in enumerate(stretches) if each]
    if len(means) < FEWEST:
        return None
    count = len(means)
    x, y = sum(m[0] for m in means) / count, sum(m[1] for m in means) / count
    spread = sum((m[0] - x) ** 2 for m in means)
    rise = sum((m[0] - x) * (m[1] - y) for m in means) / spread
    rest = sum((m[1] - y - rise * (m[0] - x)) ** 2 for m in means)
    wide = _STUDENT[count - 2] * math.sqrt(rest / (count - 2) / spread)
    return rise - wide, rise + wide


def grows(points: Sequence[tuple[float, float]], start: float, end: float) -> bool | None:
    """Whether the figure surely grows; None if there is too little to tell."""
    found = slope(points, start, end)
    return None if found is None else found[0] > 0.0
