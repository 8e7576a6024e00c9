"""The native receive thread (receiver.c). Instants and times are CLOCK_MONOTONIC nanoseconds."""

from collections import deque

Record = tuple[int, int, int, bytes | int | None, bool]
"""(connection's id, at, low, what came, clock): bytes that arrived in (low, at]; None, the end of the stream; an int,
the number of the error that ended it. `clock`: a value of `timing.Clock`."""

class ReceiveThread:
    """Runs from its making until `stop`. Methods raise RuntimeError when it does not run, or runs in another process;
    `remove` and `stop` then do nothing."""

    def __new__(cls, records: int, buffer: int, late_ns: int) -> ReceiveThread:
        """A ring of so many records and bytes (rounded up to powers of two); `late_ns`: a thread that was kept busy
        for less before a read is not late. Raises OSError, ValueError."""

    def add(self, fd: int, /) -> int:
        """From now on the thread reads this non-blocking socket. Returns an id that was and will be no other
        connection's. Raises OSError."""

    def remove(self, id: int, /) -> None:
        """The thread no longer touches the socket, which may be closed now; records may still be in the ring."""

    def read(self, id: int, /) -> None:
        """Read a socket once, here and now, if there is room; what comes of it is in the ring."""

    def drain(self, most: int, into: deque[Record], /) -> None:
        """Moves the oldest records from the ring to the end of `into`. Raises MemoryError; nothing is lost by it."""

    def wake(self) -> None:
        """Make `fileno` readable, until `drain` next leaves the ring empty."""

    def fileno(self) -> int:
        """A descriptor that is readable while there is something to drain."""

    def full(self) -> tuple[int, int]:
        """How often the thread found the ring full, and for how many nanoseconds altogether it read nothing."""

    def stop(self) -> None:
        """Ends the thread and waits for it; what is in the ring is lost."""
