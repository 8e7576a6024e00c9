"""Which level of load a capacity search tries next: up by half until one fails, then halves, then a confirmation.

Knows levels and what was found at them. Not here: how a level is tried (`probe.py`).
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from tokenswarm.load.sequential import FAIL, PASS, UNDECIDED

CLIENT: Final = "client limit"
"""What our own client did there says nothing about the server."""
FINE: Final = "fine"
"""Good enough to go on up, and no more than that."""

COARSE: Final = "coarse"
BISECT: Final = "bisect"
CONFIRM: Final = "confirm"
ABOVE: Final = "above"
"""A level clearly above the answer, which must fail."""

STEP: Final = 1.5
CLOSE: Final = 0.05
"""The highest pass and the lowest fail may be apart by this share of the answer, and must by 1."""
CLEARLY_ABOVE: Final = 1.1
MOST_CONTRADICTIONS: Final = 3

_GOOD: Final = frozenset((PASS, FINE))


class Next(msgspec.Struct, frozen=True):
    """A level to try, and what for."""

    level: int
    kind: str


class Bracket:
    """Levels that were tried: whatever is good lies below whatever is not; a newer finding takes back older ones that
    contradict it."""

    def __init__(self, most: int, first: int = 1) -> None:
        """`most`: the highest level that may be tried."""
        self.most = most
        self.contradictions = 0
        self._first = min(first, most)
        self._found: dict[int, str] = {}
        self._confirmed: set[int] = set()

    @property
    def low(self) -> int:
        """The highest good level; 0 for none."""
        return max((level for level, found in self._found.items() if found in _GOOD), default=0)

    @property
    def passed(self) -> int | None:
        """The highest level that passed a whole test."""
        return max((level for level, found in self._found.items() if found == PASS), default=None)

    @property
    def failed(self) -> int | None:
        """The lowest level that failed."""
        return min((level for level, found in self._found.items() if found == FAIL), default=None)

    @property
    def high(self) -> int | None:
        """The lowest level that was not good, for whatever reason."""
        return min((level for level, found in self._found.items() if found not in _GOOD), default=None)

    @property
    def ceiling(self) -> str | None:
        """What was found at `high`."""
        return None if self.high is None else self._found[self.high]

    @property
    def confirmed(self) -> bool:
        """Whether the highest good level has been confirmed."""
        return self.low in self._confirmed

    @property
    def exhausted(self) -> bool:
        """Whether findings contradict each other too often to go on."""
        return self.contradictions >= MOST_CONTRADICTIONS

    def record(self, tried: Next, found: str) -> None:
        """What was found at a level."""
        if found in _GOOD:
            wrong = [level for level, other in self._found.items() if level < tried.level and other not in _GOOD]
        else:
            wrong = [level for level, other in self._found.items() if level >= tried.level and other in _GOOD]
            self._confirmed.difference_update(wrong)
        # What was only fine, or undecided, was never sure.
        self.contradictions += any(self._found[level] in (PASS, FAIL) for level in wrong)
        for level in wrong:
            del self._found[level]
        self._found[tried.level] = PASS if self._found.get(tried.level) == PASS and found == FINE else found
        if tried.kind == CONFIRM and found == PASS:
            self._confirmed.add(tried.level)

    def next(self) -> Next | None:
        """The next level; None when there is nothing more to learn."""
        if self.exhausted:
            return None
        low, high = self.low, self.high
        if not any(found in (FAIL, CLIENT) for found in self._found.values()):
            top = max(self._found, default=0)
            if top < self.most:
                return Next(min(self.most, max(top + 1, math.floor(top * STEP), self._first)), COARSE)
        if high is not None and high - low > max(1.0, CLOSE * low):
            return Next((low + high) // 2, BISECT)
        if not low:
            return None
        if not self.confirmed:
            return Next(low, CONFIRM)
        above = min(self.most, math.ceil(low * CLEARLY_ABOVE - 1e-9))
        if above > low and self._found.get(above) not in (FAIL, CLIENT, UNDECIDED):
            return Next(above, ABOVE)
        return None
