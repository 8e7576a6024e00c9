"""The receive thread's Python side: one thread a process, made when its first connection needs it.

The thread (receiver.c) reads and stamps, however busy Python is; the event loop drains what it read in batches and
tells each connection's sink. Where it cannot be had, `start_reading` reads from Python (reading.py).
"""

from __future__ import annotations

import atexit
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from gevent import get_hub

from tokenswarm.errors import OptionError
from tokenswarm.timing import LATE_NS, Clock
from tokenswarm.transport.clock import LoopClock
from tokenswarm.transport.reading import LoopReader, Reader, Sink

if TYPE_CHECKING:
    from tokenswarm.transport._receiver import Record

try:
    from tokenswarm.transport import _receiver
except ImportError:  # no epoll, or no compiler when this was installed
    _receiver = None  # type: ignore[assignment]

MODE_VARIABLE: Final = "TOKENSWARM_RECEIVER"
"""For tests and diagnosis: auto (the default), thread or python."""
BATCH: Final = 64
"""Records handled in one turn of the loop: about a millisecond's work, so that nothing else waits for long."""
TURN_NS: Final = 10_000_000
"""So long a turn may take where records are large, or dear to read: time limits must be kept meanwhile."""
FLOOD_NS: Final = 1_000_000_000
"""So long a connection's past is read at its deadline. A server that has filled the ring is late anyway."""
RING_RECORDS: Final = 65536
RING_BYTES: Final = 16 * 1024 * 1024
"""A ring for a second and a half of a process that stands still at 40,000 chunks a second."""


_CLOCKS: Final = tuple(Clock)


def available() -> bool:
    """Whether the receive thread was built for this platform."""
    return _receiver is not None


class Receiver:
    """One receive thread, its ring, and whose bytes are whose. Used from one event loop."""

    def __init__(self, hub: Any, records: int = RING_RECORDS, ring_bytes: int = RING_BYTES) -> None:
        """Raises OSError where the system is short of something."""
        self._hub = hub
        self._thread = _receiver.ReceiveThread(records, ring_bytes, LATE_NS)
        self._most = records
        self._sinks: dict[int, Sink] = {}
        self._pending: deque[Record] = deque()
        self._watcher: Any = hub.loop.io(self._thread.fileno(), 1)
        self._watcher.priority = 1

    def start_reading(self, fd: int, sink: Sink) -> ThreadReader:
        """From now on the thread reads this descriptor. Raises OSError where the kernel refuses."""
        identity = self._thread.add(fd)
        if not self._sinks:
            self._watcher.start(self._drain)  # only now: a watcher keeps the loop from ending
        self._sinks[identity] = sink
        return ThreadReader(self, identity)

    def stop_reading(self, identity: int) -> None:
        """The sink hears nothing more, and the descriptor may be closed. Idempotent."""
        if self._sinks.pop(identity, None) is None:
            return
        self._thread.remove(identity)
        if not self._sinks:
            self._watcher.stop()

    def read_now(self, identity: int) -> None:
        """Hand on everything that has arrived so far at this connection, and what came before it at others; of a flood
        what can be in `FLOOD_NS`."""
        until = time.monotonic_ns() + FLOOD_NS
        for _ in range(2):  # the ring may have been too full for the first read
            if identity not in self._sinks:
                return
            self._thread.read(identity)
            self._thread.drain(self._most, self._pending)
            self._hand_on(until)

    def belongs_to(self, hub: Any) -> bool:
        """Whether it is drained by this thread's event loop."""
        return self._hub is hub

    def full(self) -> tuple[int, float]:
        """How often the ring was full, and for how many seconds altogether the kernel had to keep what came."""
        count, nanoseconds = self._thread.full()
        return count, nanoseconds / 1e9

    def close(self) -> None:
        """Ends the thread; sinks hear nothing more. In a process forked since, lets go of what is the parent's."""
        self._sinks.clear()
        self._pending.clear()
        self._watcher.stop()
        self._watcher.close()
        self._thread.stop()

    def _drain(self) -> None:
        try:
            room = BATCH - len(self._pending)
            if room > 0:
                self._thread.drain(room, self._pending)
            self._hand_on(time.monotonic_ns() + TURN_NS)
        except BaseException as error:
            # gevent stops a watcher whose callback raises, and Ctrl-C may raise anywhere: all would go deaf.
            self._hub.handle_error(self, type(error), error, error.__traceback__)

    def _hand_on(self, until: int) -> None:
        """What is pending; no further record is begun after that instant."""
        pending, sinks = self._pending, self._sinks
        now = 0
        try:
            while pending and now < until:
                identity, at, low, data, clock = pending.popleft()
                sink = sinks.get(identity)
                if sink is None:
                    continue  # came before its connection was closed, and is nobody's now
                now = time.monotonic_ns()
                try:
                    if isinstance(data, bytes):
                        sink.received(data, at, low, now, _CLOCKS[clock])
                    elif data is None:
                        sink.ended(at)
                    else:
                        sink.broke(data, at)
                except Exception as error:  # one connection's own trouble
                    self._hub.handle_error(sink, type(error), error, error.__traceback__)
        finally:
            if pending:  # cut short: the rest comes with the loop's next turn
                self._thread.wake()


class ThreadReader:
    """A `Reader` by the receive thread."""

    def __init__(self, receiver: Receiver, identity: int) -> None:
        self._receiver = receiver
        self._identity = identity

    def expect(self) -> None:
        """Nothing to do: the thread is late for none."""

    def read_now(self) -> None:
        """As `Reader` has it."""
        self._receiver.read_now(self._identity)

    def close(self) -> None:
        """As `Reader` has it."""
        self._receiver.stop_reading(self._identity)


def start_reading(sock: Any, sink: Sink, clock: LoopClock, stamps: bool) -> Reader:
    """Have a connected socket read: by the receive thread if there is one, else from Python."""
    receiver = of_this_process()
    if receiver is not None:
        try:
            return receiver.start_reading(sock.fileno(), sink)
        except OSError:  # the kernel's limit of watched descriptors: this one is read from Python
            pass
    return LoopReader(sock, sink, clock, stamps)


_current: Receiver | None = None


def of_this_process() -> Receiver | None:
    """This process's receiver, started if need be; None: read from Python. Raises OptionError."""
    global _current
    mode = os.environ.get(MODE_VARIABLE, "auto")
    if mode not in ("auto", "thread", "python"):
        raise OptionError(f"{MODE_VARIABLE}={mode}: it must be auto, thread or python")
    if mode == "thread" and not available():
        raise OptionError(f"{MODE_VARIABLE}=thread: the receive thread was not built; it needs Linux and a C compiler")
    if mode == "python" or not available():
        return None
    hub = get_hub()
    if _current is None:
        try:
            _current = Receiver(hub)
        except OSError:
            if mode == "thread":
                raise
            return None
    return _current if _current.belongs_to(hub) else None


def ring_full() -> tuple[int, float] | None:
    """As `Receiver.full`, of this process's; None where none runs. Starts none."""
    return None if _current is None else _current.full()


def stop() -> None:
    """End this process's receive thread, if one runs; the next connection starts another."""
    global _current
    if _current is not None:
        _current.close()
        _current = None


atexit.register(stop)
if hasattr(os, "register_at_fork"):
    # The thread stays with the parent: a child that goes on using its epoll and ring would take the parent's bytes.
    os.register_at_fork(after_in_child=stop)
