"""When tasks are due in the open loop: seeded gaps, and schedules that make instants of them. Reads no clock.

Instants are integers of CLOCK_MONOTONIC nanoseconds. A schedule tells its next instant as `due`, and `take` goes on to
the one after. Not here: who sends, and what (open_loop.py).
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from tokenswarm.workload.traces import TraceEntry

SECOND_NS: Final = 1_000_000_000

CLOSED: Final = "closed"
POISSON: Final = "poisson"
CONSTANT: Final = "constant"
GAMMA: Final = "gamma"
TRACE: Final = "trace"
LARGEST_CV: Final = 100.0

Gap = Callable[[random.Random], float]
"""Draws the time to the next arrival, 1 on average."""


class Kind(NamedTuple):
    """What --arrivals asks for: `gap` is None in the closed loop and where a trace tells the times."""

    name: str
    gap: Gap | None = None
    trace: str = ""
    """The file."""

    @property
    def open(self) -> bool:
        """Whether tasks begin when they are due, whoever still waits for a reply."""
        return self.name != CLOSED


def parse(text: str) -> Kind:
    """`closed`, `poisson`, `constant`, `gamma:CV` or `trace:FILE`. Raises ValueError, fit for a user."""
    name, _, rest = text.partition(":")
    if name == GAMMA:
        return Kind(GAMMA, _gamma(rest))
    if name == TRACE and rest:
        return Kind(TRACE, trace=rest)
    gaps: dict[str, Gap | None] = {CLOSED: None, POISSON: lambda draw: draw.expovariate(1.0), CONSTANT: lambda _: 1.0}
    if text not in gaps:
        raise ValueError("must be closed, poisson, constant, gamma:CV (as in gamma:2) or trace:FILE")
    return Kind(text, gaps[text])


def _gamma(cv: str) -> Gap:
    """Gaps of a gamma distribution of mean 1 and this coefficient of variation: 1 is Poisson, more is burstier."""
    try:
        variation = float(cv)
    except ValueError:
        variation = math.nan
    if not 0.01 <= variation <= LARGEST_CV:
        raise ValueError(f"gamma wants its coefficient of variation, 0.01 to {LARGEST_CV:g}, as in gamma:2")
    square = variation * variation
    return lambda draw: draw.gammavariate(1.0 / square, square)


class Arrival(NamedTuple):
    """A task is due at `at`, of this process's user number `user`, counted round and round."""

    at: int
    user: int
    entry: TraceEntry | None = None
    """What is to be sent, where a trace says so."""


class Schedule(Protocol):
    """Instants, one after another."""

    @property
    def due(self) -> int | None:
        """The next one; None while there is none, or none any more."""

    def take(self) -> Arrival:
        """The arrival that is due next; `due` is then the one after it."""


class Stream:
    """A renewal process: gaps of mean 1, of a time that runs as fast as the rate says, which may change at any instant.

    What is left of a gap when the rate changes is stretched or squeezed by as much, which makes it exactly the process
    whose rate changes so. The same seed gives the same arrivals.
    """

    def __init__(self, gap: Gap, seed: str, users: int = 0, rate: float = 0.0, at: int = 0) -> None:
        """`rate` arrivals a second, from the instant `at` on, of so many users, whom they belong to by lot."""
        self._gap = gap
        self._gaps, self._lots = random.Random(f"{seed}, gaps"), random.Random(f"{seed}, users")
        self._users, self._rate, self._at = users, rate, at
        self._left = gap(self._gaps)
        self._overdue: deque[Arrival] = deque()

    @property
    def users(self) -> int:
        """Whom the arrivals belong to now, from 0 on."""
        return self._users

    @property
    def due(self) -> int | None:
        """As `Schedule` has it."""
        return self._overdue[0].at if self._overdue else self._next()

    def take(self) -> Arrival:
        """As `Schedule` has it; `user` is one of them all."""
        return self._overdue.popleft() if self._overdue else self._draw()

    def change(self, users: int, rate: float, at: int) -> None:
        """So many users, and this rate of all of them together, from `at` on, which is never before an earlier one."""
        while (due := self._next()) is not None and due <= at:
            self._overdue.append(self._draw())
        self._left -= self._rate * (at - self._at) / SECOND_NS
        self._users, self._rate, self._at = users, rate, at

    def _next(self) -> int | None:
        if self._rate <= 0 or self._users <= 0:
            return None
        return self._at + round(max(0.0, self._left) / self._rate * SECOND_NS)

    def _draw(self) -> Arrival:
        due = self._next()
        assert due is not None
        self._at, self._left = due, self._gap(self._gaps)
        return Arrival(due, self._lots.randrange(self._users))


class Share:
    """One process's part of a stream that all processes follow: the arrivals of its own users. Together they have all
    of it, and each has it once."""

    def __init__(self, stream: Stream, before: int, own: int, since: int) -> None:
        """The users numbered from `before` on, `own` of them; arrivals before `since` are not asked for. None of them
        is among the stream's users where `before` was counted when others had not left yet."""
        self._stream = stream
        self._before, self._own = before, own
        self._next = self._find(since) if own > 0 and before < stream.users else None

    @property
    def due(self) -> int | None:
        """As `Schedule` has it."""
        return None if self._next is None else self._next.at

    def take(self) -> Arrival:
        """As `Schedule` has it."""
        taken = self._next
        assert taken is not None
        self._next = self._find(taken.at)
        return taken

    def _find(self, since: int) -> Arrival | None:
        while self._stream.due is not None:
            at, user, _ = self._stream.take()
            if at >= since and 0 <= user - self._before < self._own:
                return Arrival(at, user - self._before)
        return None


class Replay:
    """A trace, from the instant `begin` on, `scale` times as fast as it was recorded. Of `hands` processes, numbered
    from 0, each takes its turn."""

    def __init__(self, entries: Iterator[TraceEntry], begin: int, scale: float, hand: int, hands: int) -> None:
        self._entries = entries
        self._begin, self._scale = begin, scale
        self._hand, self._hands = hand, hands
        self._taken = self._dealt = 0
        self._next: Arrival | None = None

    @property
    def due(self) -> int | None:
        """As `Schedule` has it. Raises what the entries raise."""
        if self._next is None:
            self._next = self._find()
        return None if self._next is None else self._next.at

    def take(self) -> Arrival:
        """As `Schedule` has it; users have their turns one after another."""
        assert self.due is not None
        taken, self._next = self._next, None
        assert taken is not None
        return taken

    def _find(self) -> Arrival | None:
        for entry in self._entries:
            mine = self._dealt % self._hands == self._hand
            self._dealt += 1
            if mine:
                self._taken += 1
                at = self._begin + round(entry.at / self._scale * SECOND_NS)
                return Arrival(at, self._taken - 1, entry)
        return None
