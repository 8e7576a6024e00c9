"""When bytes arrived: the kernel's receive stamps, turned into CLOCK_MONOTONIC nanoseconds, with honest bounds.

A read's stamp (`SO_TIMESTAMPNS`) is the arrival of the last segment in it, and only if the read drained the socket
(it came back short, or `TCP_INQ` is 0). Earlier segments of the same read arrived after the last poll that found the
socket unreadable. Stamps are made by the wall clock: where that may have been set between stamp and read, they count
for nothing.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from typing import Any, Final

from gevent.monkey import get_original

from tokenswarm.timing import LATE_NS

SO_TIMESTAMPNS: Final = 35  # absent from Python's socket module; the number is Linux's (asm-generic)
TCP_INQ: Final = 36
KERNEL_STAMPS: Final = sys.platform == "linux"
ANCILLARY_BYTES: Final = socket.CMSG_SPACE(16) + socket.CMSG_SPACE(4) if KERNEL_STAMPS else 0

_CHECK_DELAY_NS: Final = 250_000  # more than passes between the kernel's answer to a poll and our note of the time
_TIGHT_NS: Final = 5_000  # a clock reading within which nothing else ran
_FULL_POLL: Final = 64  # libev takes that many events a poll, and more only later: others may have been ready as well
REORDER_NS: Final = 200_000  # a stamp is older than its socket's readability by the way through the TCP stack
STEP_NS: Final = 100_000  # the two clocks run at one rate: a difference that changes by more means that one was set
_PATIENCE_SECONDS: Final = 0.2
_timespec = struct.Struct("@qq")
_int = struct.Struct("@i")
_plain_socket: Final = get_original("socket", "socket")


def enable_stamps(sock: Any) -> bool:
    """Ask the kernel to stamp what arrives on a TCP socket. False where it cannot."""
    if not KERNEL_STAMPS:
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_INQ, 1)
    except OSError:
        return False
    return True


class StampKeeper:
    """Keeps the kernel stamping for as long as it is open.

    Stamping is switched on for a whole host by the first socket that asks, a moment later, and off with the last: what
    comes meanwhile has no stamp. Made, it blocks until stamps come, 0.2 s at most.
    """

    def __init__(self) -> None:
        self._socket = _plain_socket()
        if not enable_stamps(self._socket):
            return
        give_up = time.monotonic() + _PATIENCE_SECONDS
        try:
            with _plain_socket() as listener:
                listener.bind(("127.0.0.1", 0))
                listener.listen(1)
                self._socket.settimeout(_PATIENCE_SECONDS)
                self._socket.connect(listener.getsockname())
                sender, _ = listener.accept()
            with sender:
                while time.monotonic() < give_up:
                    sender.send(b".")
                    if stamp_of(self._socket.recvmsg(1, ANCILLARY_BYTES)[1]):
                        return
                    time.sleep(0.001)
        except OSError:  # no loopback: whether stamps come shows in the rows
            return

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()


def clock_offset() -> int:
    """CLOCK_REALTIME − CLOCK_MONOTONIC in nanoseconds: the tightest of up to four readings, as one may have been
    preempted."""
    offset, tightest = 0, sys.maxsize
    for _ in range(4):
        before = time.monotonic_ns()
        real = time.time_ns()
        took = time.monotonic_ns() - before
        if took < tightest:
            offset, tightest = real - (before + took // 2), took
            if took < _TIGHT_NS:
                break
    return offset


class RunDelay:
    """How long this thread was ready to run and had no processor, as the kernel tells; where it doesn't, 0."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._total = 0
        try:
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        self.take()

    def take(self) -> int:
        """Nanoseconds since the last call."""
        if self._file is None:
            return 0
        total = int(os.pread(self._file, 96, 0).split()[1])  # time on a processor comes first
        since, self._total = total - self._total, total
        return since

    def close(self) -> None:
        """Idempotent."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class LoopClock:
    """Notes when the event loop polls: what it needs to bound the arrival of merged chunks. One a process.

    All attributes are CLOCK_MONOTONIC nanoseconds: `polled_at` when the current poll returned, `unready_at` no earlier
    than which anything arrived that the current poll reported and the one before did not, or passed over; `stepped_at`
    since when the wall clock is as it is: the kernel's stamps from before were made by another one.
    """

    def __init__(self, loop: Any) -> None:
        now = time.monotonic_ns()
        self.offset = clock_offset()
        self.stepped_at = 0
        self.polled_at = now
        self.unready_at = now
        self.reported_since = now
        """As `unready_at`, for what is read because the current poll reported it: what ended its sleep was not there
        before that."""
        self.surely_unready_at = now
        self._longest_busy = 0
        self._reads = 0
        self._slept = False
        self._polling_since = now
        self._previous_polling_since = now
        self._answered_at = now
        self._waiting_since = now
        self._run_delay = RunDelay()
        # Lowest priority: gevent runs its own callbacks (every greenlet switch) in a prepare watcher before ours.
        self._prepare = loop.prepare(ref=False)
        self._prepare.priority = -2
        self._prepare.start(self._before_poll)
        self._check = loop.check(ref=False)
        self._check.priority = 2
        self._check.start(self._after_poll)

    def close(self) -> None:
        """Stop watching the loop."""
        for watcher in (self._prepare, self._check):
            watcher.stop()
            watcher.close()
        self._run_delay.close()

    def late(self, now: int) -> bool:
        """Whether data read at `now` could have waited for a client that was busy. Call it once a read."""
        self._reads += 1
        return now - self._waiting_since >= LATE_NS

    def note_step(self, now: int) -> None:
        """Look whether the wall clock has been set since the poll, at `now`, which was read just before."""
        if abs(time.time_ns() - now - self.offset) > STEP_NS:  # or we were held up since `now`: look closely
            self._read_offset()

    def take_longest_busy(self) -> int:
        """The longest stretch without a poll since the last call, in nanoseconds: how late the loop has been."""
        longest, self._longest_busy = self._longest_busy, 0
        return max(longest, time.monotonic_ns() - self.polled_at)

    def _before_poll(self) -> None:
        now = time.monotonic_ns()
        self._longest_busy = max(self._longest_busy, now - self.polled_at)
        self._previous_polling_since, self._polling_since = self._polling_since, now

    def _after_poll(self) -> None:
        now = time.monotonic_ns()
        if self._told_all():
            self.surely_unready_at = self._previous_polling_since
            self.unready_at = self._answered_at
        self._reads = 0
        self.polled_at = now
        # A poll that slept found nothing ready when it began: what it reports woke us, and has waited no longer than
        # we then had to wait for a processor. One that only lasted, for want of a processor, has not slept.
        lasted = now - self._polling_since
        delay = min(self._run_delay.take(), lasted) if lasted >= LATE_NS else 0
        self._slept = lasted - delay >= LATE_NS
        self._answered_at = now - delay - _CHECK_DELAY_NS if self._slept else self._polling_since
        self._waiting_since = now - delay if self._slept else self.unready_at
        self.reported_since = self._answered_at if self._slept else self.unready_at
        self._read_offset()

    def _told_all(self) -> bool:
        """Whether what the latest poll did not report was not ready."""
        if self._reads == 0:
            return not self._slept  # if it did, a signal may have ended it: this process was stopped, and continued
        return self._reads < _FULL_POLL

    def _read_offset(self) -> None:
        offset = clock_offset()
        if abs(offset - self.offset) > STEP_NS:
            self.stepped_at = time.monotonic_ns()
        self.offset = offset


def stamp_of(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The kernel's stamp of one `recvmsg`, in CLOCK_REALTIME nanoseconds; 0 if there is none."""
    for level, kind, data in ancillary:
        if kind == SO_TIMESTAMPNS and level == socket.SOL_SOCKET:
            seconds, nanoseconds = _timespec.unpack_from(data)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return 0


def unread_of(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Bytes that one `recvmsg` left in the socket; −1 where the kernel does not tell. After the peer's last byte it is
    1, a hint to read on."""
    for level, kind, data in ancillary:
        if kind == TCP_INQ and level == socket.IPPROTO_TCP:
            return int(_int.unpack_from(data)[0])
    return -1
