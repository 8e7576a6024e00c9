"""What arrived around the moment at which the wall clock was set, as JSON. Runs with settable_clock.c preloaded.

set_clock_child.py thread|python NANOSECONDS
"""

from __future__ import annotations

import ctypes
import json
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import gevent
from test_receiver import Collector, tcp_pair, wait_until

from tokenswarm.timing import Clock
from tokenswarm.transport.clock import LoopClock, StampKeeper
from tokenswarm.transport.reading import LoopReader
from tokenswarm.transport.receiver import Receiver


def set_wall_clock(nanoseconds: int) -> None:
    ctypes.CDLL(None).set_wall_clock(ctypes.c_int64(nanoseconds))


class Sent:
    """A peer that sends single bytes and notes when."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.times: list[tuple[int, int]] = []
        """Just before and just after."""

    def send(self) -> None:
        before = time.monotonic_ns()
        self.sock.sendall(b".")
        self.times.append((before, time.monotonic_ns()))

    def read_as(self, sink: Collector) -> list[dict[str, Any]]:
        """The last byte of each read: when it was sent, and when it is said to have arrived."""
        reads = []
        for at, low, clock in sink.arrivals:
            # One read for each byte, or one for all that were left.
            sent = self.times[len(reads)] if len(reads) + 1 < len(sink.arrivals) else self.times[-1]
            reads.append({"sent": sent, "low": low, "at": at, "clock": Clock(clock).name})
        return reads


def by_the_thread(listener: socket.socket, step: Callable[[], None]) -> list[dict[str, Any]]:
    """The ring is full while the clock is set, so what was stamped before is read after."""
    tiny, sink = Receiver(gevent.get_hub(), records=2, ring_bytes=4096), Collector()
    ours, theirs = tcp_pair(listener)
    peer = Sent(theirs)
    reader = tiny.start_reading(ours.fileno(), sink)
    for _ in range(4):
        peer.send()
        time.sleep(0.01)
    assert tiny.full()[0] == 1
    time.sleep(0.05)
    peer.send()
    step()
    wait_until(lambda: len(sink.data) == 5)
    found = peer.read_as(sink)[-1:]
    reader.close()
    tiny.close()
    return found


def by_the_loop(listener: socket.socket, step: Callable[[], None]) -> list[dict[str, Any]]:
    """Stamped before the clock is set, read after."""
    clock, sink = LoopClock(gevent.get_hub().loop), Collector()
    ours, theirs = tcp_pair(listener)
    peer = Sent(theirs)
    reader = LoopReader(ours, sink, clock, True)
    gevent.sleep(0.1)
    peer.send()
    step()
    wait_until(lambda: len(sink.data) == 1)
    reader.close()
    return peer.read_as(sink)


class Collectors:
    """Two sinks: while the first of them is told of its byte, the clock is set and another byte sent to the second."""

    def __init__(self, peers: list[Sent], step: Callable[[], None]) -> None:
        self.sinks = [self._Sink(self, number) for number in range(2)]
        self.second: int | None = None
        self._peers = peers
        self._step = step

    def told(self, number: int) -> None:
        if self.second is None:
            self.second = 1 - number
            self._step()
            self._peers[self.second].send()

    class _Sink(Collector):
        def __init__(self, both: Collectors, number: int) -> None:
            super().__init__()
            self._both, self._number = both, number

        def received(self, *args: Any) -> None:
            super().received(*args)
            self._both.told(self._number)


def between_poll_and_read(listener: socket.socket, step: Callable[[], None]) -> list[dict[str, Any]]:
    """Read by a loop that polled before the clock was set."""
    clock = LoopClock(gevent.get_hub().loop)
    pairs = [tcp_pair(listener) for _ in range(2)]
    peers = [Sent(theirs) for _, theirs in pairs]
    both = Collectors(peers, step)
    readers = [LoopReader(ours, sink, clock, True) for (ours, _), sink in zip(pairs, both.sinks, strict=True)]
    gevent.sleep(0.1)
    for peer in peers:
        peer.send()
    wait_until(lambda: sum(len(sink.data) for sink in both.sinks) == 3)
    for reader in readers:
        reader.close()
    assert both.second is not None
    return peers[both.second].read_as(both.sinks[both.second])


def afterwards(listener: socket.socket, reading: str) -> list[dict[str, Any]]:
    """Long after the clock was set."""
    clock, sink = LoopClock(gevent.get_hub().loop), Collector()
    ours, theirs = tcp_pair(listener)
    peer = Sent(theirs)
    receiver = Receiver(gevent.get_hub())
    LoopReader(ours, sink, clock, True) if reading == "python" else receiver.start_reading(ours.fileno(), sink)
    for count in range(1, 6):
        gevent.sleep(0.01)
        peer.send()
        wait_until(lambda count=count: len(sink.data) == count)  # type: ignore[misc]
    return peer.read_as(sink)


def main(reading: str, nanoseconds: int) -> None:
    keeper = StampKeeper()
    scenes = {"thread": [by_the_thread], "python": [by_the_loop, between_poll_and_read]}[reading]
    found: dict[str, list[dict[str, Any]]] = {}
    total = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for scene in scenes:
            total += nanoseconds
            found[scene.__name__] = scene(listener, lambda now=total: set_wall_clock(now))  # type: ignore[misc]
        found["afterwards"] = afterwards(listener, reading)
    keeper.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
