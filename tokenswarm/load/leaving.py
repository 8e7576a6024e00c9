"""Users who leave before a reply has ended: which of them, and when. Drawn by the seed; waits for nothing."""

from __future__ import annotations

import random

import msgspec

from tokenswarm.transport.request import Leaving


class After(msgspec.Struct, frozen=True):
    """How much of a reply somebody stays for: seconds from the start, or output chunks, each drawn evenly from `low` to
    `high`."""

    low: float
    high: float
    tokens: bool = False
    """Chunks rather than seconds: what a server sends a token at a time, which is known at the end only."""


class Leavers:
    """A share `rate` of all requests is given up `after` so much; every one after `patience` seconds without output."""

    def __init__(self, rate: float, after: After | None, patience: float | None, *, seed: int, worker: int) -> None:
        self._rate = rate
        self._after = after
        self._patience_ns = None if patience is None else round(patience * 1e9)
        # A text seed is hashed with SHA-512, so no two of them meet, as sums of numbers would.
        self._random = random.Random(f"leaving, seed {seed}, worker {worker}")

    def draw(self, wanted: After | None = None) -> Leaving | None:
        """What the user of the next request will do; None: stay to the end. `wanted`: leave after this, whatever the
        share of those who do."""
        after = wanted
        if after is None and self._after is not None and self._random.random() < self._rate:
            after = self._after
        if after is None:
            return None if self._patience_ns is None else Leaving(patience_ns=self._patience_ns)
        if after.tokens:
            chunks = self._random.randint(round(after.low), round(after.high))
            return Leaving(chunks=chunks, patience_ns=self._patience_ns)
        seconds = self._random.uniform(after.low, after.high)
        return Leaving(after_ns=round(seconds * 1e9), patience_ns=self._patience_ns)
