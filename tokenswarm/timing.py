"""The timeline of one request and the arithmetic on it. Integers of CLOCK_MONOTONIC nanoseconds; reads no clock.

    intended ── start ── connected ── sent ── headers ── first token ── … chunks … ── last token ── end

An arrival is a pair (low, at): the chunk came no later than `at` and after `low`. The two are equal unless chunks were
merged in one read while the client was late.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Sequence
from operator import sub

import msgspec

SECOND_NS = 1_000_000_000

LATE_NS = 1_000_000
"""A client busy for less than this before a read is not late: what it then reads together was sent together."""


ONE_EACH = 0.05
"""A reply whose tokens and chunks differ by no more than this share has one token a chunk."""


class Clock(enum.IntEnum):
    """Where a read's `at` comes from."""

    USER = 0
    """The client's clock when it read: there are no kernel stamps on this socket."""
    POLL = 1
    """The client's clock, on a socket with kernel stamps: this read's stamp was not that of its last segment, or the
    wall clock that made it has been set."""
    KERNEL = 2
    """The kernel's receive stamp of the read's last segment."""


class Anchor(msgspec.Struct, frozen=True):
    """One instant on both clocks; turns monotonic nanoseconds into UTC epoch seconds for a whole run."""

    wall_ns: int
    monotonic_ns: int

    def wall(self, monotonic_ns: int) -> float:
        """UTC epoch seconds, exact to the microsecond."""
        return (self.wall_ns + monotonic_ns - self.monotonic_ns) / 1e9

    def monotonic(self, wall: float) -> int:
        """The instant of UTC epoch seconds, in monotonic nanoseconds."""
        return round(wall * 1e9) - self.wall_ns + self.monotonic_ns


class Tally(msgspec.Struct):
    """What arrived during one interval, over all requests; the recorder takes it out, every interval."""

    chunks: int = 0
    characters: int = 0
    bytes: int = 0
    merged_reads: int = 0
    late_merged_reads: int = 0
    ttft_ns: list[int] = msgspec.field(default_factory=list)
    itl_ns: list[int] = msgspec.field(default_factory=list)
    lag_ns: list[int] = msgspec.field(default_factory=list)

    def take(self) -> Tally:
        """What was counted so far; from now on this one counts from nothing."""
        taken, empty = msgspec.structs.replace(self), Tally()
        for name in self.__struct_fields__:
            setattr(self, name, getattr(empty, name))
        return taken


class Timeline:
    """Instants of one request and the arrivals of its output chunks.

    `at[i]`, `low[i]` and `characters[i]` belong to output chunk i. `cumulative[i]` is the server's running count of
    output tokens at that chunk, kept only where it told one with every chunk.
    """

    __slots__ = (
        "at",
        "characters",
        "client_lag_ns",
        "cumulative",
        "dns_ns",
        "end",
        "first_answer",
        "first_read_chunks",
        "headers",
        "intended",
        "low",
        "max_read_chunks",
        "send_ns",
        "sent",
        "start",
        "tcp_ns",
        "tls_ns",
    )

    def __init__(self, start: int, intended: int | None = None) -> None:
        self.start = start
        self.intended = start if intended is None else intended
        self.sent: int | None = None
        self.headers: int | None = None
        self.first_answer: int | None = None
        self.end: int | None = None
        self.dns_ns: int | None = None
        self.tcp_ns: int | None = None
        self.tls_ns: int | None = None
        self.send_ns: int | None = None
        self.at: list[int] = []
        self.low: list[int] = []
        self.characters: list[int] = []
        self.cumulative: list[int] = []
        self.first_read_chunks = 0
        self.max_read_chunks = 0
        self.client_lag_ns: int | None = None

    def forget_response(self) -> None:
        """Back to before anything was received, for another attempt at the same request."""
        self.sent = self.headers = self.first_answer = self.end = None
        self.dns_ns = self.tcp_ns = self.tls_ns = self.send_ns = None

    def gaps(self) -> list[int]:
        """Nanoseconds between successive output chunks whose arrivals are both certain; others are unknown, not 0."""
        at, low = self.at, self.low
        if low == at:
            return list(map(sub, at[1:], at))
        return [at[i] - at[i - 1] for i in range(1, len(at)) if low[i] == at[i] and low[i - 1] == at[i - 1]]

    def read_ended(self, first: int, last_is_exact: bool, handled: int, tally: Tally) -> None:
        """Account for one read that brought the output chunks from index `first` on.

        `last_is_exact`: the read has a kernel stamp and nothing followed the last chunk in it, so the stamp is its own.
        `handled`: when the read was handled.
        """
        at, low, characters = self.at, self.low, self.characters
        count = len(at) - first
        tally.chunks += count
        tally.characters += characters[first] if count == 1 else sum(characters[first:])
        if last_is_exact:
            low[-1] = at[-1]
        lag = handled - low[first]
        if self.client_lag_ns is None or lag > self.client_lag_ns:
            self.client_lag_ns = lag
        tally.lag_ns.append(lag)
        if count > self.max_read_chunks:
            self.max_read_chunks = count
        if count > 1:
            tally.merged_reads += 1
            if low[first] != at[first]:
                tally.late_merged_reads += 1
        i = first
        if first == 0:
            self.first_read_chunks = count
            tally.ttft_ns.append(at[0] - self.start)
            i = 1
        while i < first + count:
            if low[i] == at[i] and low[i - 1] == at[i - 1]:
                tally.itl_ns.append(at[i] - at[i - 1])
            i += 1

    def spread(self, tokens: int, offset_ns: int = 0) -> list[tuple[int, float]]:
        """Output tokens over the seconds in which the chunks that brought them came: (whole second, tokens).

        `offset_ns` leads from our clock to the one whose seconds are meant.
        """
        at, weights = self.at, self._weights(tokens)
        total = sum(weights)
        seconds: list[tuple[int, float]] = []
        first = 0 if total > 0 else len(at)
        while first < len(at):
            second = (at[first] + offset_ns) // SECOND_NS
            end = bisect_left(at, (second + 1) * SECOND_NS - offset_ns, first)
            seconds.append((second, tokens * sum(weights[first:end]) / total))
            first = end
        return seconds

    def _weights(self, tokens: int) -> Sequence[int]:
        """Each chunk's share of the tokens: by the server's own running count where it told one with every chunk;
        evenly where there is about one a chunk; else by characters."""
        count = len(self.at)
        if len(self.cumulative) == count:
            steps = [b - a for a, b in zip([0, *self.cumulative], self.cumulative, strict=False)]
            if sum(steps) > 0 and min(steps) >= 0:
                return steps
        if any(self.characters) and abs(tokens - count) > ONE_EACH * count:
            return self.characters
        return [1] * count


def percentile(values: Sequence[float], q: float) -> float:
    """Percentile q (0 to 100) of sorted values, linear between ranks (Hyndman and Fan's type 7). Needs one value."""
    rank = (len(values) - 1) * q / 100.0
    below = int(rank)
    if below + 1 >= len(values):
        return float(values[-1])
    return values[below] + (values[below + 1] - values[below]) * (rank - below)
