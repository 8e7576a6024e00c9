"""The receive thread: nothing lost, nothing given to another connection, exact stamps however late Python is.

tests/test_transport.py runs all its tests with it as well; here is what only it can get wrong.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import gevent
import gevent.os
import pytest
from caller import outcome
from scripted_server import DONE, END, HEAD, Peer, chunk, event, scripted

from tokenswarm.errors import OptionError
from tokenswarm.timing import Clock
from tokenswarm.transport import receiver
from tokenswarm.transport.clock import LoopClock, enable_stamps
from tokenswarm.transport.reading import LoopReader
from tokenswarm.transport.receiver import MODE_VARIABLE, Receiver, ThreadReader

needs_thread = pytest.mark.skipif(not receiver.available(), reason="the receive thread was not built")
SECOND = 1_000_000_000


class Collector:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.arrivals: list[tuple[int, int, bool]] = []
        self.end: int | None = None
        """0: the stream ended; else the error's number."""
        self.awaits_first_byte = False

    def received(self, data: bytes, at: int, low: int, handled: int, clock: Clock) -> None:
        assert self.end is None
        assert low <= at <= handled
        self.data += data
        self.arrivals.append((at, low, clock))

    def ended(self, at: int) -> None:
        assert self.end is None
        self.end = 0

    def broke(self, error_number: int, at: int) -> None:
        assert self.end is None
        self.end = error_number


def tcp_pair(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """(our end, stamped and non-blocking; the peer's)."""
    ours = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    enable_stamps(ours)
    ours.setblocking(False)
    theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def wait_until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    """Lets the loop run. Fails when it takes too long."""
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "what was waited for did not come"
        gevent.sleep(0.002)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as sock:
        yield sock


@pytest.fixture
def make_receiver() -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def make(**sizes: int) -> Receiver:
        made.append(Receiver(gevent.get_hub(), **sizes))
        return made[-1]

    yield make
    for each in made:
        each.close()


# Times


@needs_thread
@pytest.mark.parametrize("reading", ["thread"], indirect=True)
def test_a_late_python_has_exact_stamps_and_no_merged_reads(callers: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        for _ in range(10):
            peer.send((HEAD if not peer.sent else b"") + event("a"))
            time.sleep(0.02)
        peer.send(event("", "stop") + DONE + END)

    for _ in range(5):  # on a busy machine the server may not send while we are late
        with scripted(script) as server:
            caller = callers(server.url)
            gevent.spawn_later(0.03, time.sleep, 0.3)
            call = caller.call()
            sent = server.peers[0].sent
        line = call.timeline
        if (line.client_lag_ns or 0) > 0.1 * SECOND:
            break
    assert call.exchange.kernel_clock
    assert line.client_lag_ns is not None
    assert line.client_lag_ns > 0.1 * SECOND, "the client was late, or this test shows nothing"
    assert (caller.tally.chunks, caller.tally.merged_reads) == (10, 0)
    assert line.low == line.at
    # Loopback stamps in the sender's own call; a preemption in it is not our lateness.
    assert all(0 <= at - true < line.client_lag_ns / 2 for true, at in zip(sent, line.at, strict=False))


@needs_thread
def test_chunks_that_come_thick_and_fast_do_not_wake_the_thread_each(
    make_receiver: Callable[..., Receiver], listener: socket.socket
) -> None:
    others = set(os.listdir("/proc/self/task"))
    busy, sink = make_receiver(), Collector()
    (thread,) = set(os.listdir("/proc/self/task")) - others

    def wake_ups() -> int:
        status = Path(f"/proc/self/task/{thread}/status").read_text()
        return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])

    pairs = [tcp_pair(listener) for _ in range(32)]
    with ExitStack() as sockets:
        for ours, theirs in pairs:
            sockets.enter_context(ours)
            sockets.enter_context(theirs)
            sockets.callback(busy.start_reading(ours.fileno(), sink).close)
        began, before, sent = time.monotonic(), wake_ups(), 0
        while time.monotonic() < began + 0.2:
            for _, theirs in pairs:
                sent += theirs.send(b".")
                until = time.monotonic() + 20e-6
                while time.monotonic() < until:
                    pass
        after, seconds = wake_ups(), time.monotonic() - began
        wait_until(lambda: len(sink.data) == sent)
    # In a turn it may sleep for want of work as well, but it does rest, for 0.2 ms.
    assert after - before < 1.2 * 2 * seconds / 0.0002


@needs_thread
def test_what_is_merged_while_the_ring_is_full_has_bounds_that_hold(
    make_receiver: Callable[..., Receiver], listener: socket.socket
) -> None:
    tiny, sink = make_receiver(records=2, ring_bytes=4096), Collector()
    ours, theirs = tcp_pair(listener)
    with ours, theirs:
        reader = tiny.start_reading(ours.fileno(), sink)
        sent = []
        for i in range(10):
            sent.append(time.monotonic_ns())
            theirs.sendall(bytes([i]))
            time.sleep(0.01)
        wait_until(lambda: len(sink.data) == 10)
        reader.close()
    assert sink.data == bytes(range(10))
    assert len(sink.arrivals) < 10, "nothing was merged, or this test shows nothing"
    at, low, clock = sink.arrivals[-1]
    first_merged = len(sink.arrivals) - 1
    assert clock is Clock.KERNEL
    assert low <= sent[first_merged]
    assert sent[-1] <= at < sent[-1] + 0.005 * SECOND
    count, seconds = tiny.full()
    assert count >= 1
    assert 0.05 < seconds < 5


# Nothing lost, nothing misdirected


def replies_of(seed: int) -> tuple[bytes, str]:
    """A reply's bytes, and how it ends."""
    rng = random.Random(seed)
    events = [event(rng.choice(["a", "né", "漢字", "x" * 300, ""])) for _ in range(rng.randint(1, 30))]
    events.insert(rng.randrange(len(events) + 1), chunk(b": a comment\r\n\r\n"))
    whole = HEAD + b"".join(events) + event("", "stop") + DONE + END
    kind = rng.choice(["whole", "whole", "cut", "reset", "junk"])
    if kind in ("cut", "reset"):
        whole = whole[: rng.randrange(len(HEAD), len(whole) - len(DONE + END))]
    elif kind == "junk":
        place = rng.randrange(len(HEAD), len(whole) - 50)
        whole = whole[:place] + b"\r\nzz\r\n" + whole[place:]
    return whole, kind


def play(peer: Peer, seed: int) -> None:
    """Send the seed's reply cut anywhere."""
    whole, kind = replies_of(seed)
    rng = random.Random(seed + 1000)
    peer.request()
    while whole:
        size = rng.choice([1, 2, 7, 50, 500, 5000])
        peer.send(whole[:size])
        whole = whole[size:]
        if rng.random() < 0.3:
            time.sleep(0.001)
    if kind == "reset":
        time.sleep(0.3)  # so that what was sent is read before, also on a busy machine: a reset discards it
        peer.reset()


@needs_thread
def test_both_ways_of_reading_see_the_same(callers: Any, reading: str, seen_by: dict[int, Any]) -> None:
    with scripted(lambda peer: play(peer, peer.number)) as server:
        for seed in range(25):
            caller = callers(server.url, keep_alive=False)
            call = caller.call()
            exchange = call.exchange
            row = (
                outcome(call),
                str(exchange.error),
                exchange.status,
                exchange.finish_reason,
                len(call.timeline.at),
                call.timeline.characters,
                exchange.kernel_clock,
                caller.tally.chunks,
                # What follows nonsense in one read counts as bytes, too, and reads differ.
                (exchange.response_bytes, caller.tally.bytes) if replies_of(seed)[1] != "junk" else None,
            )
            assert seen_by.setdefault(seed, row) == row, f"seed {seed}, read by {reading}"


@pytest.fixture(scope="module")
def seen_by() -> dict[int, Any]:
    """What the first way of reading saw, for the second."""
    return {}


@needs_thread
def test_a_full_ring_loses_nothing(make_receiver: Callable[..., Receiver], listener: socket.socket) -> None:
    tiny = make_receiver(records=4, ring_bytes=1024)
    pairs = [tcp_pair(listener) for _ in range(3)]
    sinks = [Collector() for _ in pairs]
    texts = [random.Random(i).randbytes(200_000) for i in range(3)]
    readers = [tiny.start_reading(pair[0].fileno(), sink) for pair, sink in zip(pairs, sinks, strict=True)]

    def send(theirs: socket.socket, text: bytes) -> None:
        theirs.sendall(text)
        theirs.close()

    threads = [threading.Thread(target=send, args=(pair[1], text)) for pair, text in zip(pairs, texts, strict=True)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)  # Python is busy
    wait_until(lambda: all(sink.end is not None for sink in sinks))
    for reader, (ours, _), thread in zip(readers, pairs, threads, strict=True):
        reader.close()
        ours.close()
        thread.join()
    assert [sink.data == text for sink, text in zip(sinks, texts, strict=True)] == [True] * 3
    assert [sink.end for sink in sinks] == [0] * 3
    assert tiny.full()[0] > 10


@needs_thread
def test_what_a_closed_connection_left_in_the_ring_reaches_no_other(
    make_receiver: Callable[..., Receiver], listener: socket.socket
) -> None:
    ring, old, new = make_receiver(), Collector(), Collector()
    ours, theirs = tcp_pair(listener)
    descriptor = ours.fileno()
    reader = ring.start_reading(descriptor, old)
    theirs.sendall(b"for the old one")
    time.sleep(0.05)  # the thread reads it; Python does not drain
    reader.close()
    ours.close()
    theirs.close()
    ours, theirs = tcp_pair(listener)
    with ours, theirs:
        while ours.fileno() != descriptor:  # the peer's end may have got it
            ours = ours.dup() if ours.fileno() > descriptor else ours
        reader = ring.start_reading(ours.fileno(), new)
        theirs.sendall(b"for the new one")
        wait_until(lambda: len(new.data) > 0)
        reader.close()
    assert (old.data, new.data) == (b"", b"for the new one")


class Churn:
    """Connections that open, stream, end, break and are closed in mid-stream, with descriptors reused at once."""

    def __init__(self, ring: Receiver, listener: socket.socket, seed: int) -> None:
        self.ring = ring
        self.listener = listener
        self.rng = random.Random(seed)
        self.descriptors: list[int] = []
        self.received = 0

    def connection(self, number: int) -> None:
        """One connection from its opening to its close, in a greenlet of its own."""
        ours, theirs = tcp_pair(self.listener)
        self.descriptors.append(ours.fileno())
        sink = Collector()
        reader = self.ring.start_reading(ours.fileno(), sink)
        text = struct.pack("<I", number) * self.rng.randint(1, 4000)
        end = self.rng.choice(["end", "reset", "close", "close"])
        sender = threading.Thread(target=self._send, args=(theirs, text, end, self.rng.random()))
        sender.start()
        if end == "close":
            until = self.rng.randrange(len(text))
            wait_until(lambda: len(sink.data) >= until)
        else:
            wait_until(lambda: sink.end is not None)
        reader.close()
        ours.close()
        got = len(sink.data)
        gevent.sleep(0.005)
        sender.join()
        assert len(sink.data) == got, "bytes after the close"
        assert sink.data == text[:got], "bytes of another connection"
        if end == "end":
            assert (sink.data, sink.end) == (text, 0)
        elif end == "reset":
            assert sink.end in (0, errno.ECONNRESET)
        self.received += got

    def _send(self, theirs: socket.socket, text: bytes, end: str, pause: float) -> None:
        with suppress(OSError), theirs:  # our end may be closed already
            middle = len(text) // 2
            theirs.sendall(text[:middle])
            time.sleep(pause / 200)
            theirs.sendall(text[middle:])
            if end == "reset":
                reset(theirs)


@needs_thread
@pytest.mark.parametrize("sizes", [{}, {"records": 4, "ring_bytes": 1024}], ids=["ample ring", "tiny ring"])
def test_each_connection_receives_exactly_its_own_bytes(
    make_receiver: Callable[..., Receiver], listener: socket.socket, sizes: dict[str, int]
) -> None:
    churn = Churn(make_receiver(**sizes), listener, 1)

    def user(first: int) -> None:
        for number in range(first, first + 15):
            churn.connection(number)

    users = [gevent.spawn(user, 1000 * i) for i in range(20)]
    gevent.joinall(users, raise_error=True)
    assert len(churn.descriptors) == 300
    assert len(set(churn.descriptors)) < 150, "descriptors were reused, or this test shows nothing"
    assert churn.received > 500_000


@needs_thread
def test_a_sink_that_raises_costs_the_others_nothing(
    make_receiver: Callable[..., Receiver], listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Collector):
        def received(self, *_: Any) -> None:
            raise ValueError("a sink's own fault")

    raised: list[Any] = []
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *what: raised.append(what))
    ring = make_receiver()
    pairs = [tcp_pair(listener) for _ in range(20)]
    sinks = [Broken() if i % 2 else Collector() for i in range(20)]
    readers = []
    for (ours, theirs), sink in zip(pairs, sinks, strict=True):
        readers.append(ring.start_reading(ours.fileno(), sink))
        theirs.sendall(b"hello")
    wait_until(lambda: all(sink.data == b"hello" for sink in sinks[::2]) and len(raised) == 10)
    for reader, (ours, theirs) in zip(readers, pairs, strict=True):
        reader.close()
        ours.close()
        theirs.close()


@needs_thread
def test_a_turn_of_the_loop_is_short_however_dear_its_records(
    make_receiver: Callable[..., Receiver], listener: socket.socket
) -> None:
    class Slow(Collector):
        def received(self, data: bytes, *args: Any) -> None:
            time.sleep(0.02)
            super().received(data, *args)

    ring = make_receiver()
    pairs = [tcp_pair(listener) for _ in range(40)]
    sinks = [Slow() for _ in pairs]
    readers = [ring.start_reading(ours.fileno(), sink) for (ours, _), sink in zip(pairs, sinks, strict=True)]
    for _, theirs in pairs:
        theirs.sendall(b"x")
    time.sleep(0.1)  # the thread reads meanwhile, and the loop stands still
    handled_by_then: list[int] = []
    gevent.spawn_later(0, lambda: handled_by_then.append(sum(bool(sink.data) for sink in sinks)))
    wait_until(lambda: all(sink.data for sink in sinks))
    assert handled_by_then[0] < 10
    for reader, (ours, theirs) in zip(readers, pairs, strict=True):
        reader.close()
        ours.close()
        theirs.close()


@needs_thread
def test_reading_now_does_not_wait_for_the_loop(
    make_receiver: Callable[..., Receiver], listener: socket.socket
) -> None:
    ring, sink = make_receiver(records=2, ring_bytes=256), Collector()
    ours, theirs = tcp_pair(listener)
    with ours, theirs:
        reader = ring.start_reading(ours.fileno(), sink)
        for _ in range(20):
            theirs.sendall(b"x")
            reader.read_now()
        assert sink.data == b"x" * 20
        theirs.close()
        reader.read_now()
        assert sink.end == 0
        reader.close()


@needs_thread
def test_a_reset_is_a_record(make_receiver: Callable[..., Receiver], listener: socket.socket) -> None:
    ring, sink = make_receiver(), Collector()
    ours, theirs = tcp_pair(listener)
    with ours:
        reader = ring.start_reading(ours.fileno(), sink)
        reset(theirs)
        wait_until(lambda: sink.end is not None)
        reader.close()
    assert sink.end == errno.ECONNRESET


# Life and death


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@needs_thread
def test_stopping_in_mid_stream_leaves_nothing_behind(listener: socket.socket) -> None:
    hub = gevent.get_hub()
    ours, theirs = tcp_pair(listener)
    stop = threading.Event()

    def send() -> None:
        with suppress(OSError):  # until our end is closed
            while not stop.is_set():
                theirs.sendall(b"x" * 1000)

    sender = threading.Thread(target=send)
    sender.start()
    sink = Collector()
    try:
        Receiver(hub).close()
        before = threads(), descriptors()
        for tiny in [True, False] * 10:
            sizes = {"records": 2, "ring_bytes": 1024} if tiny else {}
            ring = Receiver(hub, **sizes)
            reader = ring.start_reading(ours.fileno(), sink)
            if tiny:
                time.sleep(0.002)  # it fills
            else:
                gevent.sleep(0.005)
            ring.close()
            got = len(sink.data)
            reader.close()
            gevent.sleep(0)
            assert len(sink.data) == got
        assert (threads(), descriptors()) == before
    finally:
        stop.set()
        ours.close()
        sender.join()
        theirs.close()


@needs_thread
def test_a_forked_process_starts_its_own_and_leaves_the_parents_alone(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    monkeypatch.setenv(MODE_VARIABLE, "thread")
    clock = LoopClock(gevent.get_hub().loop)
    ours, theirs = tcp_pair(listener)
    sink = Collector()
    reader = receiver.start_reading(ours, sink, clock, True)
    parents = receiver.of_this_process()
    child = gevent.os.fork()
    if child == 0:
        failed = 1
        try:
            mine = receiver.of_this_process()
            assert mine is not None
            assert mine is not parents
            reader.close()  # what belongs to the parent is let go of without touching it
            ours.close()
            pair = tcp_pair(listener)
            own = Collector()
            receiver.start_reading(pair[0], own, clock, True)
            pair[1].sendall(b"child")
            wait_until(lambda: own.data == b"child", 5)
            receiver.stop()
            failed = 0
        finally:
            os._exit(failed)
    _, status = gevent.os.waitpid(child, 0)
    assert status == 0
    assert receiver.of_this_process() is parents
    theirs.sendall(b"parent")
    wait_until(lambda: sink.data == b"parent")
    reader.close()
    for each in (ours, theirs):
        each.close()
    clock.close()


@needs_thread
def test_one_thread_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODE_VARIABLE, "auto")
    first = receiver.of_this_process()
    assert first is receiver.of_this_process()
    receiver.stop()
    second = receiver.of_this_process()
    assert second is not None
    assert second is not first


# Where there is none


def readers_of(sock: socket.socket) -> type:
    clock = LoopClock(gevent.get_hub().loop)
    reader = receiver.start_reading(sock, Collector(), clock, True)
    reader.close()
    clock.close()
    return type(reader)


def test_without_the_thread_sockets_are_read_from_python(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    ours, theirs = tcp_pair(listener)
    with ours, theirs:
        monkeypatch.setenv(MODE_VARIABLE, "auto")
        assert readers_of(ours) is (ThreadReader if receiver.available() else LoopReader)
        monkeypatch.setenv(MODE_VARIABLE, "python")
        assert readers_of(ours) is LoopReader
        monkeypatch.setattr(receiver, "_receiver", None)
        monkeypatch.setenv(MODE_VARIABLE, "auto")
        assert readers_of(ours) is LoopReader
        for mode in ("thread", "threads"):
            monkeypatch.setenv(MODE_VARIABLE, mode)
            with pytest.raises(OptionError, match=f"{MODE_VARIABLE}={mode}"):
                receiver.of_this_process()


@needs_thread
def test_a_descriptor_that_cannot_be_watched_is_read_from_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(MODE_VARIABLE, "thread")
    ring = receiver.of_this_process()
    assert ring is not None
    with (tmp_path / "file").open("w") as file, pytest.raises(PermissionError):
        ring.start_reading(file.fileno(), Collector())  # epoll refuses plain files


@pytest.mark.skipif(sys.platform != "linux", reason="no epoll")
def test_the_thread_is_there_where_it_can_be_built() -> None:
    if os.environ.get("CI"):
        assert receiver.available()
