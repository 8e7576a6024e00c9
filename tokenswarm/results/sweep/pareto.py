"""The Pareto front: of many points with a gain and a cost, those of which no other is better. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Indices of the points (gain, cost) that no other point dominates, in order of rising gain and cost.

    A point dominates another if it has at least its gain at no more than its cost, and is better in one of the two. So
    of equal points all are on the front. Raises ValueError for NaN: what was not measured has no place among them.
    """
    if any(math.isnan(gain) or math.isnan(cost) for gain, cost in points):
        raise ValueError("a point of a Pareto front is NaN")
    order = sorted(range(len(points)), key=lambda index: (-points[index][0], points[index][1]))
    found: list[int] = []
    for index in order:  # the highest gain first: who follows must cost less, or be the same
        if not found or points[index][1] < points[found[-1]][1] or points[index] == points[found[-1]]:
            found.append(index)
    return tuple(reversed(found))
