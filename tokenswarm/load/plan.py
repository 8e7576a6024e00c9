"""A load that changes over a run, as levels one after another, and where in them a run is. No clock, no Locust."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

SPAWN_RATE: Final = 100.0
"""Users a second where nothing is said: Locust warns of more."""
MOST_STEPS: Final = 1000
MOST_USERS: Final = 1_000_000


class Level(NamedTuple):
    """So many users, for so many seconds from when all of them are there; on the way, `spawn_rate` of them a second."""

    users: int
    seconds: float
    spawn_rate: float = SPAWN_RATE


Levels = tuple[Level, ...]


def steps(users: Iterable[int], seconds: float, spawn_rate: float = SPAWN_RATE) -> Levels:
    """Each of these numbers of users for so long."""
    return tuple(Level(count, seconds, spawn_rate) for count in users)


def ramp(start: int, users: int, seconds: float, hold: float) -> Levels:
    """From `start` to `users` in `seconds`, evenly, up or down, and then there for `hold` seconds."""
    rate = abs(users - start) / seconds if seconds else SPAWN_RATE
    return Level(start, 0), Level(users, hold, rate or SPAWN_RATE)


def spike(base: int, peak: int, before: float, lasting: float, after: float, spawn_rate: float = SPAWN_RATE) -> Levels:
    """`base` users for `before` seconds, `peak` users for `lasting`, and `base` again for `after`."""
    times = (base, before), (peak, lasting), (base, after)
    return tuple(Level(count, seconds, spawn_rate) for count, seconds in times)


class Walk:
    """Through levels: each lasts its time from when its users are there, so that a slow way to one skips no other."""

    def __init__(self, levels: Iterable[Level]) -> None:
        """Raises ValueError on levels that no load can have."""
        self._left = joined(levels)
        self._since: float | None = None

    def tick(self, now: float, there: bool) -> Level | None:
        """The level that is on at `now`, in seconds of any clock; None after the last. `there`: whether the users of
        the level that the call before gave run."""
        if self._left and there and self._since is None:
            self._since = now
        if self._since is not None and now >= self._since + self._left[0].seconds:
            self._left, self._since = self._left[1:], None
        return self._left[0] if self._left else None


def joined(levels: Iterable[Level]) -> Levels:
    """Levels without those that change nothing: two of as many users are one. Raises ValueError on levels that no load
    can have."""
    found: list[Level] = []
    for level in levels:
        if level.users < 0 or level.seconds < 0 or not level.spawn_rate > 0:
            raise ValueError(f"neither users nor seconds may be below 0, nor the spawn rate 0: {level}")
        if level.users == (found[-1].users if found else 0):
            if found:
                found[-1] = found[-1]._replace(seconds=found[-1].seconds + level.seconds)
            elif level.seconds:
                found.append(level)
        else:
            found.append(level)
    return tuple(found)


def shortest(levels: Iterable[Level]) -> float:
    """Seconds that the levels take if users come as fast as they are asked for."""
    found, before = 0.0, 0
    for level in joined(levels):
        found += abs(level.users - before) / level.spawn_rate + level.seconds
        before = level.users
    return found


def numbers(text: str) -> tuple[int, ...]:
    """The users of each step, from `1,2,4,8` or `10..100:10` or both. Raises ValueError, fit for the user."""
    found: list[int] = []
    for part in text.split(","):
        found += _range(part.strip())
        if len(found) > MOST_STEPS:
            raise ValueError(f"more than {MOST_STEPS:,} steps")
    for before, after in pairwise(found):
        if before == after:
            raise ValueError(f"{after} follows {before}, which is no step: give that one more --step-time")
    return tuple(found)


def _range(part: str) -> Sequence[int]:
    first, dots, rest = part.partition("..")
    if not dots:
        return [_users(part)]
    last, _, by = rest.partition(":")
    low, high, width = _users(first), _users(last), _users(by or "1")
    if low > high:
        raise ValueError(f"{part}: {low} is more than {high}")
    if (high - low) // width >= MOST_STEPS:
        raise ValueError(f"more than {MOST_STEPS:,} steps")
    return range(low, high + 1, width)


def _users(part: str) -> int:
    if not (part.isascii() and part.isdigit()) or not 1 <= int(part) <= MOST_USERS:
        raise ValueError(f"{part!r} is no number of users; write 1,2,4,8 or 10..100:10")
    return int(part)
