"""The rows of a timeline: equal stretches of time, on whole multiples of their length, and which instant is in which.

Microseconds as integers, since 0.2 s is no exact float.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tokenswarm.errors import AnalysisError
from tokenswarm.results.flow import Floats

Indexes = npt.NDArray[np.int64]

MOST_ROWS = 3_000_000
OUTSIDE = -1


@dataclass(frozen=True)
class Bins:
    """`count` stretches of `length_us`, the first of which begins at `origin_us` (µs of UTC since 1970)."""

    origin_us: int
    length_us: int
    count: int

    @property
    def seconds(self) -> float:
        """Length of one."""
        return self.length_us / 1e6

    @property
    def starts(self) -> Floats:
        """When each begins, UTC epoch seconds."""
        return self.edges[:-1]

    @property
    def edges(self) -> Floats:
        """Where they begin and where the last ends, UTC epoch seconds."""
        us = self.origin_us + np.arange(self.count + 1, dtype=np.int64) * self.length_us
        return np.asarray(us / 1e6, dtype=np.float64)

    def index(self, times: Floats) -> Indexes:
        """The number of the stretch in which each instant (UTC epoch seconds) is; OUTSIDE of them, and for NaN: -1."""
        known = np.isfinite(times) & (np.abs(times) < 1e11)
        us = np.round(np.where(known, times, 0.0) * 1e6).astype(np.int64)
        found = (us - self.origin_us) // self.length_us
        return np.where(known & (found >= 0) & (found < self.count), found, OUTSIDE)

    def tally(self, times: Floats) -> Floats:
        """How many of these instants are in each."""
        found = self.index(times)
        return np.bincount(found[found != OUTSIDE], minlength=self.count).astype(np.float64)


def covering(start: float, end: float, every: float) -> Bins:
    """All that [start, end] touches. Raises AnalysisError if they would be more than MOST_ROWS."""
    length = round(every * 1e6)
    origin = round(start * 1e6) // length
    last = round(end * 1e6) // length
    count = last - origin + 1
    if count > MOST_ROWS:
        raise AnalysisError(
            f"a timeline of {count:,} rows of {every:g} s ({(end - start) / 86_400:,.1f} days) is more than the "
            f"{MOST_ROWS:,} that one may have: take a longer --every, if the run's times are right"
        )
    return Bins(origin * length, length, count)
