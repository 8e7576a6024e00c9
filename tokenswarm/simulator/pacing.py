"""Runs the engine in real time: one absolute schedule of steps, woken by the kernel with microsecond precision.

The timers of asyncio and uvloop count in milliseconds, which at 20 ms a step would be 5 % of error. On Linux a timerfd
on CLOCK_MONOTONIC is used instead; elsewhere the loop's own timer.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import sys
import time
from collections.abc import Callable
from typing import Protocol

from tokenswarm.simulator.engine import Engine, Sequence

LATE_NS = 1_000_000
"""A step that begins to send later than this after its due time counts as late."""

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_NS = 1_000_000_000


class Timer(Protocol):
    """Calls back once, at or after an absolute CLOCK_MONOTONIC instant."""

    def arm(self, due_ns: int) -> None: ...

    def close(self) -> None: ...


class KernelTimer:
    """A timerfd. Raises OSError where the system has none."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._settime = libc.timerfd_settime
            self._fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError as error:
            raise OSError("no timerfd in this C library") from error
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._loop = loop
        self._callback = callback
        loop.add_reader(self._fd, self._expired)

    def arm(self, due_ns: int) -> None:
        # An all-zero value would disarm it; an instant in the past fires at once.
        seconds, nanoseconds = divmod(max(due_ns, 1), _NS)
        if self._settime(self._fd, _TFD_TIMER_ABSTIME, struct.pack("@4l", 0, 0, seconds, nanoseconds), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def _expired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._callback()

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)


class LoopTimer:
    """The event loop's own timer: about a millisecond of precision."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.Handle | None = None

    def arm(self, due_ns: int) -> None:
        wait = (due_ns - time.monotonic_ns()) / _NS
        if wait <= 0:
            self._handle = self._loop.call_soon(self._callback)
        else:
            self._handle = self._loop.call_later(wait, self._callback)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


def system_timer(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> Timer:
    """The most precise timer there is here."""
    if sys.platform == "linux":
        try:
            return KernelTimer(loop, callback)
        except OSError:
            pass
    return LoopTimer(loop, callback)


class EngineLoop:
    """Keeps the engine stepping while it has work.

    A step starts when the one before was due, not when it was handled, so that small delays do not add up. What has
    fallen behind by more than a whole step is given up, as a real server never catches up by going faster.
    """

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self.engine = engine
        self.steps = 0
        self.late_steps = 0
        self._due_ns = 0
        self._duration_ns = 0
        self._stepping = False
        self._timer = system_timer(loop, self._step)

    def submit(self, sequence: Sequence, received_ns: int) -> None:
        """Hand a request over, with the time at which it was received. Raises QueueFull."""
        self.engine.submit(sequence, received_ns)
        if not self._stepping:
            self._begin(received_ns)

    def cancel(self, sequence: Sequence) -> None:
        self.engine.cancel(sequence)

    def close(self) -> None:
        self._timer.close()

    def _begin(self, start_ns: int) -> None:
        due_ns = self.engine.begin_step(start_ns)
        self._stepping = due_ns is not None
        if due_ns is not None:
            self._duration_ns = due_ns - start_ns
            self._due_ns = due_ns
            self._timer.arm(due_ns)

    def _step(self) -> None:
        due_ns = self._due_ns
        late_ns = time.monotonic_ns() - due_ns
        self.steps += 1
        if self._duration_ns and late_ns > LATE_NS:
            self.late_steps += 1
        self.engine.finish_step(due_ns)
        behind_ns = time.monotonic_ns() - due_ns
        self._begin(due_ns if behind_ns <= self._duration_ns else due_ns + behind_ns)
