"""Reading from Python, in the event loop: what queued while it was late has bounds, and they hold."""

from __future__ import annotations

import socket
import sys
import time
from contextlib import ExitStack

import gevent
import pytest

from tokenswarm.timing import Clock
from tokenswarm.transport.clock import LoopClock, StampKeeper, enable_stamps
from tokenswarm.transport.reading import LoopReader

MANY = 300
"""Sockets: more than one poll of the loop reports."""


class Reads:
    """A sink that keeps the bounds of what it is told, and when it was told."""

    def __init__(self) -> None:
        self.bounds: list[tuple[bytes, int, int]] = []
        self.awaits_first_byte = False

    def received(self, data: bytes, at: int, low: int, handled: int, clock: Clock) -> None:
        self.bounds.append((data, at, low))

    def ended(self, at: int) -> None:
        raise AssertionError

    def broke(self, error_number: int, at: int) -> None:
        raise AssertionError


@pytest.mark.skipif(sys.platform != "linux", reason="kernel receive stamps are Linux's")
def test_what_several_polls_passed_over_is_not_taken_for_sent_together() -> None:
    clock, keeper = LoopClock(gevent.get_hub().loop), StampKeeper()
    sinks = [Reads() for _ in range(MANY)]
    with ExitStack() as cleanup, socket.create_server(("127.0.0.1", 0), backlog=MANY) as listener:
        cleanup.callback(clock.close)
        cleanup.callback(keeper.close)
        peers = []
        for sink in sinks:
            ours = cleanup.enter_context(socket.create_connection(listener.getsockname()))
            enable_stamps(ours)
            ours.setblocking(False)
            peers.append(cleanup.enter_context(listener.accept()[0]))
            cleanup.callback(LoopReader(ours, sink, clock, True).close)
        gevent.sleep(0.01)
        for chunk in (b"a", b"b"):
            for peer in peers:
                peer.send(chunk)
            sent = time.monotonic_ns()
            time.sleep(0.02)  # the loop stands still
            if chunk == b"a":
                first_sent = sent
        while not all(sink.bounds for sink in sinks):
            gevent.sleep(0.001)
    assert [data for sink in sinks for data, _, _ in sink.bounds] == [b"ab"] * MANY
    assert all(low <= first_sent < at for sink in sinks for _, at, low in sink.bounds)
