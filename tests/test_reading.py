"""Bounds of what queued while a client was late hold, whatever kept it; mostly for the reading from Python."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import gevent
import pytest

from tokenswarm.timing import Clock
from tokenswarm.transport import receiver
from tokenswarm.transport.clock import LoopClock, StampKeeper, enable_stamps
from tokenswarm.transport.reading import LoopReader
from tokenswarm.transport.receiver import Receiver

linux = pytest.mark.skipif(sys.platform != "linux", reason="kernel receive stamps are Linux's")
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


@linux
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


BURNER = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
end = time.monotonic() + 10
while time.monotonic() < end:
    pass
"""
SENDER = """
import glob, os, signal, socket, sys, time
reader, stops, core, fd = map(int, sys.argv[1:])
os.sched_setaffinity(0, {core})
peer = socket.socket(fileno=fd)
def all_stopped():
    return all(") T " in open(stat).read() for stat in glob.glob(f"/proc/{reader}/task/*/stat"))
for _ in range(30):
    time.sleep(0.03)
    if stops:
        os.kill(reader, signal.SIGSTOP)
    give_up = time.monotonic() + 1
    while stops and not all_stopped() and time.monotonic() < give_up:
        pass
    try:
        peer.send(b"a")
        print(time.monotonic_ns())
        time.sleep(0.006)
        peer.send(b"b")
    finally:
        if stops:
            os.kill(reader, signal.SIGCONT)
"""


@pytest.fixture
def one_core() -> Iterator[tuple[int, int]]:
    """This process on one core for as long as the test lasts; (that one, another)."""
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("needs two cores")
    mine, other, *_ = sorted(cores)
    os.sched_setaffinity(0, {mine})
    yield mine, other
    os.sched_setaffinity(0, cores)


@linux
@pytest.mark.parametrize("trouble", ["stopped", "without a processor"])
@pytest.mark.parametrize("reading", ["python", "thread"])
def test_who_could_not_run_has_not_slept(one_core: tuple[int, int], reading: str, trouble: str) -> None:
    if reading == "thread" and not receiver.available():
        pytest.skip("the receive thread was not built")
    mine, other = one_core
    clock, keeper, sink = LoopClock(gevent.get_hub().loop), StampKeeper(), Reads()
    stops = trouble == "stopped"
    with ExitStack() as cleanup, socket.create_server(("127.0.0.1", 0)) as listener:
        cleanup.callback(clock.close)
        cleanup.callback(keeper.close)
        ours = cleanup.enter_context(socket.create_connection(listener.getsockname()))
        enable_stamps(ours)
        ours.setblocking(False)
        theirs = cleanup.enter_context(listener.accept()[0])
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(0 if stops else 3):
            burner = cleanup.enter_context(subprocess.Popen([sys.executable, "-c", BURNER, str(mine)]))
            cleanup.callback(burner.kill)
        command = [sys.executable, "-c", SENDER, *map(str, (os.getpid(), int(stops), other, theirs.fileno()))]
        sender = cleanup.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[theirs.fileno()]))
        if reading == "thread":
            thread = Receiver(gevent.get_hub())
            cleanup.callback(thread.close)
            thread.start_reading(ours.fileno(), sink)
        else:
            cleanup.callback(LoopReader(ours, sink, clock, True).close)
        while sum(len(data) for data, _, _ in sink.bounds) < 60:
            gevent.sleep(0.2)
        assert sender.stdout is not None
        sent = [int(line) for line in sender.stdout]
    starts = itertools.accumulate((len(data) for data, _, _ in sink.bounds[:-1]), initial=0)
    reads = zip(starts, sink.bounds, strict=True)
    merged = [(sent[start // 2], low) for start, (data, _, low) in reads if data == b"ab"]
    assert merged or not stops, "or this test shows nothing"
    assert all(low <= first_sent for first_sent, low in merged)


@linux
def test_what_ended_the_loops_sleep_was_not_there_before(one_core: tuple[int, int]) -> None:
    """Two arrivals wake the loop, and it is busy with the first while the other one waits."""
    clock, keeper = LoopClock(gevent.get_hub().loop), StampKeeper()

    class Busy(Reads):
        def received(self, data: bytes, at: int, low: int, handled: int, clock: Clock) -> None:
            super().received(data, at, low, handled, clock)
            time.sleep(0.02)

    sinks = [Busy(), Busy()]
    with ExitStack() as cleanup, socket.create_server(("127.0.0.1", 0)) as listener:
        cleanup.callback(clock.close)
        cleanup.callback(keeper.close)
        peers = []
        for sink in sinks:
            ours = cleanup.enter_context(socket.create_connection(listener.getsockname()))
            ours.setblocking(False)
            peers.append(cleanup.enter_context(listener.accept()[0]))
            cleanup.callback(LoopReader(ours, sink, clock, False).close)
        gevent.sleep(0.01)
        descriptors = [peer.fileno() for peer in peers]
        command = [sys.executable, "-c", PUSHER, *map(str, descriptors)]
        # Who pushes is on our core, and waking us does not interrupt it: we see both at once.
        cleanup.callback(os.sched_setscheduler, 0, os.sched_getscheduler(0), os.sched_param(0))
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        began = time.monotonic_ns()
        pusher = cleanup.enter_context(subprocess.Popen(command, pass_fds=descriptors))
        cleanup.callback(pusher.wait)
        while not all(sink.bounds for sink in sinks):
            gevent.sleep(1.5)
    (_, first_at, _), (_, at, low) = sorted((sink.bounds[0] for sink in sinks), key=lambda bound: bound[1])
    assert at - first_at >= 20_000_000
    assert began + 900_000_000 < low <= first_at


PUSHER = """
import os, socket, sys, time
os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
peers = [socket.socket(fileno=int(fd)) for fd in sys.argv[1:]]
time.sleep(1)
for peer in peers:
    peer.send(b"a")
"""
