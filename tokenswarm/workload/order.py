"""In which order the records of a dataset are asked, and which of them each worker asks. Opens no file.

Records have numbers, from 0. Workers deal them out, so that together they ask what one process would ask; a worker
whose number is `workers` or higher came later, and has an order of its own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

SEQUENTIAL: Final = "sequential"
SHUFFLED: Final = "shuffled"
SAMPLED: Final = "sampled"
ORDERS: Final = (SEQUENTIAL, SHUFFLED, SAMPLED)
_MIXED: Final = 6
"""Times that both halves of a number are changed: with fewer, the orders of a short dataset are not equally likely."""


class Share:
    """Which records one worker asks of `count`, round after round. Each call of `round` gives the next one's numbers.

    - sequential: in the order of the file, every round;
    - shuffled: each round in another order, in which every number is there once;
    - sampled: any number at any time, drawn anew; a round is as many as there are.

    The same seed, worker and number of workers give the same numbers on every machine; another `stream`, other ones.
    """

    def __init__(self, order: str, count: int, *, seed: int, worker: int, workers: int = 1, stream: str = "") -> None:
        shared = worker < workers
        # Whole texts are hashed, so that no two of them meet, as sums of numbers would.
        self._seed = f"seed {seed}{stream}" if shared else f"seed {seed}{stream}, worker {worker}"
        self._drawn = random.Random(f"seed {seed}{stream}, worker {worker}, sampled")
        self._order, self._count = order, count
        self._hand, self._hands = (worker, workers) if shared else (0, 1)
        self._rounds = 0

    def round(self) -> Iterator[int]:
        """This worker's numbers of the next round, perhaps none where there are more workers than records."""
        number, self._rounds = self._rounds, self._rounds + 1
        # Dealing goes on where it stopped, so that no worker is left out where records are few.
        first = (self._hand - number * self._count) % self._hands
        places = range(first, self._count, self._hands)
        if self._order == SAMPLED:
            return (self._drawn.randrange(self._count) for _ in places)
        if self._order == SHUFFLED:
            return map(Permutation(self._count, f"{self._seed}, round {number}").__getitem__, places)
        return iter(places)


class Permutation:
    """The numbers below `count` in an order that `seed` decides, each found by itself: none of it is in memory.

    A number is a pair (a, b), and each half is moved round by what a keyed hash makes of the other, in turns, which can
    be undone and so meets no pair twice (a Feistel network). A pair that is no number below `count` is moved again.
    """

    def __init__(self, count: int, seed: str) -> None:
        self._count = count
        self._high = max(1, math.isqrt(count - 1) + 1) if count else 1
        self._low = -(-count // self._high)
        key = blake2b(seed.encode()).digest()
        self._keys = [blake2b(bytes([step]), key=key).digest() for step in range(2 * _MIXED)]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> int:
        """The number at this place. Raises IndexError."""
        if not 0 <= place < self._count:
            raise IndexError(place)
        number = place
        while True:
            number = self._moved(number)
            if number < self._count:
                return number

    def _moved(self, number: int) -> int:
        high, low = divmod(number, self._low)
        for step in range(0, 2 * _MIXED, 2):
            high = (high + self._hash(step, low)) % self._high
            low = (low + self._hash(step + 1, high)) % self._low
        return high * self._low + low

    def _hash(self, step: int, half: int) -> int:
        return int.from_bytes(blake2b(half.to_bytes(8), digest_size=8, key=self._keys[step]).digest())
