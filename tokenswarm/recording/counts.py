"""What the runs of this process add up to, read from their directories when somebody asks. Writes nothing.

Nothing is counted while tokens arrive: intervals.jsonl and requests.csv hold it all a second later at most.
"""

from __future__ import annotations

import csv
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Final

import gevent
import msgspec
import numpy as np
from gevent.lock import RLock
from hdrh.histogram import HdrHistogram

from tokenswarm import histogram
from tokenswarm.record import ERROR_CLASSES, OK, STATUSES, csv_header
from tokenswarm.recording.directory import INTERVALS, REQUESTS

OTHER: Final = "other"
LONGEST_HISTOGRAM: Final = 200_000
"""Characters; a worker's own is a hundredth of that, and what is unpacked from more could be huge."""
ROWS_AT_ONCE: Final = 50
"""Rows that are read before others have their turn, since users of this process may be timing tokens."""

SHORT_BOUNDS: Final = (
    *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0),
)
"""Upper ends of buckets for times between tokens, in seconds."""
LONG_BOUNDS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0),
)
"""Upper ends of buckets for whole requests and their first tokens, in seconds."""

_Amount = Annotated[float, msgspec.Meta(ge=0)]
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Text = Annotated[str, msgspec.Meta(max_length=LONGEST_HISTOGRAM)]


class _Interval(msgspec.Struct):
    """What is added up of a line of intervals.jsonl, which is as its worker sent it."""

    ended: dict[str, _Count]
    errors: dict[str, _Count]
    chunks: _Count
    tokens: list[tuple[int, _Amount]]
    input_tokens: list[tuple[int, _Amount]]
    ttft: _Text
    itl: _Text


class Durations:
    """How many durations lie in each bucket, and their sum; in seconds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def cumulative(self) -> list[int]:
        """Durations up to each bound, and at last all of them."""
        return list(accumulate(self._counts))

    def add(self, seconds: float, count: int = 1) -> None:
        """So many of this length."""
        self._counts[bisect_left(self.bounds, seconds)] += count
        self.sum += seconds * count


class Counts:
    """Sums since the start of this process, over all its runs. They only grow."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter(dict.fromkeys(STATUSES, 0))
        self.errors: Counter[str] = Counter(dict.fromkeys(ERROR_CLASSES, 0))
        self.chunks = 0
        self.output_tokens = 0.0
        self.input_tokens = 0.0
        self.tpot = Durations(SHORT_BOUNDS)
        """Of the requests that went well, as `e2e`."""
        self.e2e = Durations(LONG_BOUNDS)
        self.unreadable = 0
        """Lines that could not be understood, and are in none of these."""
        self._ttft = histogram.new()
        self._itl = histogram.new()
        self._reading = RLock()
        self._intervals: list[_Tail] = []
        self._rows: list[_Tail] = []
        columns = csv_header().strip().split(",")
        self._status, self._tpot, self._e2e = map(columns.index, ("status", "tpot_ms", "e2e_ms"))

    @property
    def ttft(self) -> Durations:
        """Of every request whose first token came, as it came."""
        return _in_buckets(self._ttft, LONG_BOUNDS)

    @property
    def itl(self) -> Durations:
        """Gaps between successive chunks, as they came."""
        return _in_buckets(self._itl, SHORT_BOUNDS)

    def follow(self, path: Path) -> None:
        """A run begins, with this directory."""
        self._intervals.append(_Tail(path / INTERVALS))
        self._rows.append(_Tail(path / REQUESTS, skip=1))

    def catch_up(self) -> None:
        """Count what was written since the last time. Lets other greenlets run meanwhile. Raises OSError."""
        with self._reading:
            for tail in self._intervals:
                for line in tail.lines():
                    self._count_interval(line)
                    gevent.sleep(0)
            for tail in self._rows:
                for number, line in enumerate(tail.lines(), 1):
                    self._count_row(line)
                    if number % ROWS_AT_ONCE == 0:
                        gevent.sleep(0)

    def _count_interval(self, line: bytes) -> None:
        try:
            interval = msgspec.json.decode(line, type=_Interval)
            ttft, itl = histogram.decode(interval.ttft), histogram.decode(interval.itl)
        except ValueError:  # msgspec's errors are of that kind, too
            self.unreadable += 1
            return
        self._ttft.add(ttft)
        self._itl.add(itl)
        for counts, new in ((self.requests, interval.ended), (self.errors, interval.errors)):
            for name, count in new.items():
                counts[name if name in counts else OTHER] += count
        self.chunks += interval.chunks
        self.output_tokens += sum(tokens for _, tokens in interval.tokens)
        self.input_tokens += sum(tokens for _, tokens in interval.input_tokens)

    def _count_row(self, line: bytes) -> None:
        try:
            (cells,) = csv.reader([line.decode()])
            if cells[self._status] != OK:
                return
            tpot, e2e = (_seconds(cells[column]) for column in (self._tpot, self._e2e))
        except (ValueError, IndexError, csv.Error):
            self.unreadable += 1
            return
        for seconds, durations in ((tpot, self.tpot), (e2e, self.e2e)):
            if seconds is not None:
                durations.add(seconds)


def _seconds(cell: str) -> float | None:
    """Of milliseconds; None if there are none. Raises ValueError."""
    milliseconds = float(cell) if cell else 0.0
    if not 0 <= milliseconds < math.inf:
        raise ValueError(f"{cell} is no duration")
    return milliseconds / 1000 if cell else None


def _in_buckets(merged: HdrHistogram, bounds: Sequence[float]) -> Durations:
    durations = Durations(bounds)
    for microseconds, count in zip(*map(np.ndarray.tolist, histogram.recorded(merged)), strict=True):
        durations.add(microseconds / 1e6, count)
    return durations


class _Tail:
    """A file that somebody appends whole lines to."""

    def __init__(self, path: Path, skip: int = 0) -> None:
        self._path = path
        self._skip = skip
        self._read = 0

    def lines(self) -> Iterator[bytes]:
        """Those that are new. Of a file that is not there, none. Raises OSError."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                if self._skip:
                    self._skip -= 1
                else:
                    yield line
