"""Reading one socket from Python, in the event loop's own callback: what is done where there is no receive thread.

It never blocks and switches no greenlet. A busy process reads late, though, and what was merged meanwhile has bounds.
"""

from __future__ import annotations

import time
from typing import Any, Final, Protocol

from gevent import get_hub

from tokenswarm.timing import Clock
from tokenswarm.transport.clock import ANCILLARY_BYTES, REORDER_NS, LoopClock, stamp_of, unread_of

READ_BYTES: Final = 65536
MOST_READS: Final = 16


class Sink(Protocol):
    """Whom a reader tells what came. All times are CLOCK_MONOTONIC nanoseconds."""

    @property
    def awaits_first_byte(self) -> bool:
        """Whether nothing of an answer has come yet."""

    def received(self, data: bytes, at: int, low: int, handled: int, clock: Clock) -> None:
        """Bytes that arrived in (low, at], by this clock."""

    def ended(self, at: int) -> None:
        """The peer will send nothing more. Nothing follows."""

    def broke(self, error_number: int, at: int) -> None:
        """The connection broke. Nothing follows."""


class Reader(Protocol):
    """Reads one socket from its making until `close`, which must come before the socket's."""

    def expect(self) -> None:
        """An answer is awaited from now on."""

    def read_now(self) -> None:
        """Tell the sink what is already there, without waiting for the loop."""

    def close(self) -> None:
        """The sink hears nothing more. Idempotent."""


class LoopReader:
    """A `Reader` on a watcher of the event loop."""

    def __init__(self, sock: Any, sink: Sink, clock: LoopClock, stamps: bool) -> None:
        self._sock = sock
        self._sink = sink
        self._clock = clock
        self._stamps = stamps
        self._last_at = time.monotonic_ns()
        self._undrained_low: int | None = None
        self._expecting = False
        self._watcher: Any = get_hub().loop.io(sock.fileno(), 1)
        self._watcher.start(self._readable)

    def expect(self) -> None:
        """Sockets that wait for their first byte are read before the others of one loop iteration."""
        self._expecting = True
        self._reprioritise(1)

    def read_now(self) -> None:
        """As `Reader` has it."""
        if self._watcher is not None:
            self._readable(reported=False)

    def close(self) -> None:
        """As `Reader` has it."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None

    def _reprioritise(self, priority: int) -> None:
        if self._watcher is not None and self._watcher.priority != priority:
            self._watcher.stop()
            self._watcher.priority = priority
            self._watcher.start(self._readable)

    def _readable(self, reported: bool = True) -> None:
        sink = self._sink
        try:
            data, ancillary, drained = self._read()
        except BlockingIOError:
            return
        except OSError as error:
            self.close()
            sink.broke(error.errno or 0, time.monotonic_ns())
            return
        now = time.monotonic_ns()
        if not data:
            self.close()
            sink.ended(now)
            return
        since = self._clock.reported_since if reported else self._clock.unready_at
        at, low, clock = self._arrival(stamp_of(ancillary), drained, now, since)
        sink.received(data, at, low, now, clock)
        if self._expecting and not sink.awaits_first_byte:
            self._expecting = False
            self._reprioritise(0)

    def _read(self) -> tuple[bytes, list[tuple[int, int, bytes]], bool]:
        """(what there is, ancillary data of its end, whether that was all). A short read has emptied the socket, and
        its stamp is that of the last segment in it; one that fills the buffer may end inside a segment."""
        if not self._stamps:
            return self._sock.recv(READ_BYTES), [], True
        data, ancillary, _, _ = self._sock.recvmsg(READ_BYTES, ANCILLARY_BYTES)
        if len(data) < READ_BYTES:
            return data, ancillary, True
        pieces = [data]
        while len(pieces) < MOST_READS:
            try:
                data, more, _, _ = self._sock.recvmsg(READ_BYTES, ANCILLARY_BYTES)
            except OSError:  # nothing more, or an error that the next read will meet again
                return b"".join(pieces), ancillary, True
            if not data:
                return b"".join(pieces), ancillary, True  # the end, which the next read will meet again
            ancillary = more
            pieces.append(data)
            if len(data) < READ_BYTES:
                return b"".join(pieces), ancillary, True
        return b"".join(pieces), ancillary, unread_of(ancillary) == 0

    def _arrival(self, stamp: int, drained: bool, now: int, since: int) -> tuple[int, int, Clock]:
        """(at, low, the clock that gave `at`) of the bytes just read, which were not there at `since`."""
        loop = self._clock
        late = loop.late(now)
        unready_at = max(since, self._last_at) if self._undrained_low is None else self._undrained_low
        at, clock = now, Clock.USER
        if stamp:
            loop.note_step(now)
        if stamp and unready_at - REORDER_NS < loop.stepped_at:
            clock = Clock.POLL  # made by the wall clock as it was, or as it is: nobody can say
        elif stamp and drained:
            at, clock = min(stamp - loop.offset, now), Clock.KERNEL
            if self._undrained_low is None and at < loop.surely_unready_at - REORDER_NS:
                # Older than a poll that found nothing: it waited for a segment before it, there by the next poll.
                at, clock = max(loop.polled_at, unready_at), Clock.POLL
        elif stamp:
            clock = Clock.POLL
        self._undrained_low = None if drained else unready_at
        at = self._last_at = max(at, self._last_at)  # never backwards, though two clocks may differ by a little
        certain = clock is Clock.KERNEL or (clock is Clock.USER and drained)
        return at, at if certain and not late else min(unready_at, at), clock
