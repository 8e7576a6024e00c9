"""Wald's sequential probability ratio test of an objective: as many requests as it takes to tell, and no more.

An objective allows a share q of its requests to miss. Tested is a share of 0.7 q (it passes) against one of 1.4 q (it
fails), so p95 is 3.5 % against 7 %; a share in between may end either way. Formulas: A. Wald, Sequential Analysis
(1947). Requests that share batches and queues are alike, and so count for fewer: how many is estimated from the means
of ten successive batches, of the misses and of the latencies themselves, which tell it before anything misses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

GOOD: Final = 0.7
BAD: Final = 1.4
"""Shares that pass and fail, as multiples of what is allowed."""
RISK: Final = 0.05
"""Of a bad share passing, and of a good one failing."""
BATCHES: Final = 10
FEWEST_A_BATCH: Final = 2
FEWEST: Final = 4
"""Nothing is decided on fewer."""
MOST: Final = 40.0
"""Requests times the allowed share at which the test gives up: 800 for p95."""

PASS: Final = "pass"
FAIL: Final = "fail"
UNDECIDED: Final = "undecided"

_THRESHOLD: Final = math.log((1.0 - RISK) / RISK)


class Sample:
    """Hits and misses in the order in which they ended, against an allowed share of misses."""

    def __init__(self, allowed: float) -> None:
        self.allowed = allowed
        self._good = GOOD * allowed
        self._bad = min(BAD * allowed, (1.0 + allowed) / 2)  # a share that may miss is below 1
        self._so_far = [0]
        """Misses among the first requests."""
        self._values: list[float] = []

    def __len__(self) -> int:
        return len(self._so_far) - 1

    def add(self, missed: bool, value: float | None = None) -> None:
        """One more request; `value` is its latency, where there is one."""
        self._so_far.append(self._so_far[-1] + missed)
        self._values.append(math.inf if value is None else value)

    @property
    def misses(self) -> int:
        return self._so_far[-1]

    @property
    def share(self) -> float | None:
        """Of misses; None without requests."""
        return self.misses / len(self) if len(self) else None

    @property
    def full(self) -> bool:
        """Whether so many were seen that no more are worth it."""
        return len(self) >= MOST / self.allowed

    @property
    def passes_after(self) -> int:
        """How many requests without a miss it takes to pass."""
        return math.ceil(_THRESHOLD / -math.log((1.0 - self._bad) / (1.0 - self._good)))

    def evidence(self) -> float:
        """The logarithm of the likelihood ratio, bad against good, of the sample as if it were of independent requests;
        above 2.94 it fails, below -2.94 it passes."""
        misses, hits = self.misses, len(self) - self.misses
        ratio = misses * math.log(self._bad / self._good)
        ratio += hits * math.log((1.0 - self._bad) / (1.0 - self._good))
        return ratio / max(clustering(self._so_far), clustering(self._slow_so_far()))

    def decision(self, fewest: int = 0) -> str:
        """PASS, FAIL or UNDECIDED; it passes after `fewest` requests at the earliest."""
        if len(self) < FEWEST:
            return UNDECIDED
        evidence = self.evidence()
        if evidence >= _THRESHOLD:
            return FAIL
        return PASS if evidence <= -_THRESHOLD and len(self) >= fewest else UNDECIDED

    def _slow_so_far(self) -> list[int]:
        """Requests above the median latency among the first ones."""
        middle = sorted(self._values)[len(self._values) // 2]
        return [0, *accumulate(int(value > middle) for value in self._values)]


def clustering(so_far: Sequence[int]) -> float:
    """How many requests say as much as one independent one would, at least 1: the variance of the means of ten batches
    against what it would be. `so_far`: 0, then the misses among the first one, two, … requests."""
    count = len(so_far) - 1
    size, misses = count // BATCHES, so_far[-1]
    if size < FEWEST_A_BATCH or not 0 < misses < count:
        return 1.0
    first = count - size * BATCHES
    edges = range(first, count + 1, size)
    means = [(so_far[edge + size] - so_far[edge]) / size for edge in edges[:-1]]
    mean = sum(means) / BATCHES
    variance = sum((each - mean) ** 2 for each in means) / (BATCHES - 1)
    expected = mean * (1.0 - mean) / size
    return max(1.0, variance / expected) if expected else 1.0
