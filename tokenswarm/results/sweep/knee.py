"""The knee of a load curve: where power, throughput divided by latency, is highest. Numbers only.

Kleinrock, "Power and deterministic rules of thumb for probabilistic problems in computer communications", ICC 1979;
Jain, "The Art of Computer Systems Performance Analysis", 1991, chapter 3: up to the knee more load brings more
throughput than latency, beyond it more latency than throughput. In the plane of throughput (right) and latency (up) it
is the point that a straight line from the origin touches from below. Rules that find the bend after scaling both axes
to the range of the data (Kneedle: Satopää and others, 2011) were not taken: with them the knee moves with how far one
measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FEWEST: Final = 3
"""One level before the knee, the knee, and one beyond it."""
BEND: Final = 0.05
"""So much of the highest power must be lost on either side, or there is no bend to speak of."""

FEW: Final = "few"
BEYOND: Final = "beyond"
BEFORE: Final = "before"
DOUBTED: Final = "doubted"
UNCOUNTED: Final = "uncounted"


@dataclass(frozen=True)
class Point:
    """A level. `chosen`: whether it may be the knee; if not, it only tells what lies beside others."""

    load: float
    throughput: float
    latency: float
    chosen: bool = True

    @property
    def power(self) -> float:
        return self.throughput / self.latency


@dataclass(frozen=True)
class Knee:
    """`index` of the point, or None and `why`: FEW levels; BEYOND the highest load, or BEFORE the lowest one, where it
    may be; DOUBTED: at a level that may not be chosen. UNCOUNTED, by who
    left levels out before: FEW, and there were more."""

    index: int | None
    why: str = ""


def find(points: Sequence[Point]) -> Knee:
    """The knee of these levels, in any order. Those without throughput or latency above 0 say nothing."""
    known = [index for index, point in enumerate(points) if point.throughput > 0 and point.latency > 0]
    if len({points[index].load for index in known}) < FEWEST:
        return Knee(None, FEW)
    best = max(known, key=lambda index: (points[index].power, -points[index].load))
    peak = points[best]

    def lost(index: int) -> bool:
        return points[index].power <= (1 - BEND) * peak.power

    if not any(lost(index) for index in known if points[index].load > peak.load):
        return Knee(None, BEYOND)
    if not any(lost(index) for index in known if points[index].load < peak.load):
        return Knee(None, BEFORE)
    return Knee(best) if peak.chosen else Knee(None, DOUBTED)
