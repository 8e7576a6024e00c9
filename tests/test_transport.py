"""The fast transport over real sockets: stamps, bounds, time limits, keep-alive, TLS, servers that misbehave.

All of it with both ways of reading: the receive thread and the event loop (fixture `reading`).
"""

from __future__ import annotations

import gc
import socket
import sys
import time
from typing import Any

import gevent
import pytest
from caller import alive, outcome
from scripted_server import DONE, END, HEAD, REPLY, Peer, event, scripted
from wire import REQUEST_ID

from tokenswarm.timing import Timeline
from tokenswarm.transport.exchange import HttpExchange
from tokenswarm.transport.http import HttpCall, Limits

linux = pytest.mark.skipif(sys.platform != "linux", reason="kernel receive stamps are Linux's")
SECOND = 1_000_000_000


def replies(peer: Peer) -> None:
    while peer.request():
        peer.send(REPLY)


def test_a_reply_and_what_was_sent_for_it(callers: Any) -> None:
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        seen.append(peer.request())
        peer.send(REPLY)

    with scripted(script) as server:
        call = callers(server.url + "/base").call()
    assert outcome(call) == ("hello", None)
    head = seen[0].partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert head[0] == "POST /base/v1/chat/completions HTTP/1.1"
    assert f"Host: 127.0.0.1:{server.port}" in head
    assert f"X-Request-Id: {REQUEST_ID}" in head
    assert "Accept-Encoding: identity" in head
    assert call.request_bytes == len(seen[0])
    assert call.exchange.response_bytes == len(REPLY)
    assert call.remote_addr == f"127.0.0.1:{server.port}"


@linux
def test_arrivals_are_the_kernels_even_when_the_client_sleeps(callers: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        time.sleep(0.05)
        peer.send(HEAD + event("a"))
        time.sleep(0.4)
        peer.send(event("", "stop") + DONE + END)

    with scripted(script) as server:
        caller = callers(server.url)
        # What makes a client late: the whole process busy elsewhere while the first token comes.
        gevent.spawn_later(0.01, time.sleep, 0.2)
        call = caller.call()
        sent = server.peers[0].sent[0]
    line = call.timeline
    assert call.exchange.kernel_clock
    assert line.client_lag_ns is not None
    assert line.client_lag_ns > 0.05 * SECOND, "the client was late, or this test shows nothing"
    # Handled 150 ms late and still stamped on time: within a fraction of the lateness, on however noisy a machine.
    assert 0 <= line.at[0] - sent < line.client_lag_ns / 2
    assert line.low[0] == line.at[0]


@linux
@pytest.mark.parametrize("reading", ["python"], indirect=True)  # the thread merges nothing: test_receiver.py
def test_chunks_merged_while_the_client_slept_arrived_inside_their_bounds(callers: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        for _ in range(10):
            peer.send((HEAD if not peer.sent else b"") + event("a"))
            time.sleep(0.02)
        time.sleep(0.3)
        peer.send(event("", "stop") + DONE + END)

    with scripted(script) as server:
        caller = callers(server.url)
        gevent.spawn_later(0.05, time.sleep, 0.25)
        call = caller.call()
        sent = server.peers[0].sent
    line = call.timeline
    assert len(line.at) == 10
    assert caller.tally.late_merged_reads >= 1, "nothing was merged, or this test shows nothing"
    # The kernel stamps on loopback inside the sender's own call, just after the moment noted; allow for a preemption.
    slack = 20_000_000
    for true, low, at in zip(sent, line.low, line.at, strict=False):
        assert low - slack <= true <= at
    merged = [i for i in range(10) if line.low[i] != line.at[i]]
    assert merged
    assert line.low[merged[-1] + 1] == line.at[merged[-1] + 1], (
        "the last chunk of the merged read has the read's own stamp"
    )


def test_without_kernel_stamps_the_row_says_so(callers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenswarm.transport.connection.enable_stamps", lambda sock: False)

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + event("a"))
        time.sleep(0.05)
        peer.send(event("b", "stop") + DONE + END)

    with scripted(script) as server:
        call = callers(server.url).call()
        sent = server.peers[0].sent
    assert outcome(call) == ("ab", None)
    assert not call.exchange.kernel_clock
    assert all(at > true for at, true in zip(call.timeline.at, sent, strict=True))


def test_keep_alive_reuses_the_connection(callers: Any) -> None:
    with scripted(replies) as server:
        caller = callers(server.url)
        calls = [caller.call() for _ in range(3)]
        assert [call.connection_reused for call in calls] == [False, True, True]
        assert len(server.peers) == 1


def test_keep_alive_off_opens_one_each(callers: Any) -> None:
    with scripted(replies) as server:
        caller = callers(server.url, keep_alive=False)
        assert [caller.call().connection_reused for _ in range(3)] == [False] * 3
        assert len(server.peers) == 3


def test_a_kept_connection_that_died_is_tried_again_once(callers: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(REPLY)
        if peer.number == 0:
            peer.request()  # the next request arrives just as we give the connection up
            return
        peer.stop.wait()

    with scripted(script) as server:
        caller = callers(server.url)
        caller.call()
        second = caller.call()
        assert outcome(second) == ("hello", None)
        assert (second.attempts, second.connection_reused) == (2, False)


def test_a_second_attempt_that_is_killed_has_no_end_from_the_first(callers: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        if peer.number == 0:
            peer.send(REPLY)
            peer.request()
            return
        peer.stop.wait(5)

    with scripted(script) as server:
        caller = callers(server.url)
        caller.call()
        call = caller.prepare()
        greenlet = gevent.spawn(call.run)
        gevent.sleep(0.2)
        greenlet.kill()
        assert (call.attempts, call.exchange.finished, call.timeline.end) == (2, False, None)


def test_a_fresh_connection_that_dies_is_not_tried_again(callers: Any) -> None:
    with scripted(lambda peer: peer.request()) as server:
        call = callers(server.url).call()
        assert (outcome(call)[1], call.attempts) == ("truncated", 1)
        assert len(server.peers) == 1


def test_an_idle_connection_that_the_server_closed_is_not_taken(callers: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(REPLY)

    with scripted(script) as server:
        caller = callers(server.url)
        caller.call()
        gevent.sleep(0.05)
        second = caller.call()
        assert (second.attempts, second.connection_reused, outcome(second)) == (1, False, ("hello", None))


LIMITS = Limits(total=0.4, first_token=0.2, stall=0.15)


@pytest.mark.parametrize(
    ("sent", "error_class"),
    [
        (b"", "first_token_timeout"),
        (HEAD, "first_token_timeout"),
        (HEAD + event("a"), "stall_timeout"),
    ],
)
def test_time_limits(callers: Any, sent: bytes, error_class: str) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(sent)
        peer.stop.wait(5)

    with scripted(script) as server:
        call = callers(server.url, LIMITS).call()
    assert outcome(call)[1] == error_class
    assert call.timeline.end is not None


@pytest.mark.parametrize(
    ("sent", "ended"),
    [(event("a"), "stall_timeout"), (event("a") + event("", "stop") + DONE, None)],
    ids=["a stall", "an end mark, and the body left open"],
)
def test_a_limit_that_comes_nearer_is_not_missed(callers: Any, sent: bytes, ended: str | None) -> None:
    """The total limit, which was the nearest before anything came, is far away."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD)
        time.sleep(0.1)
        peer.send(sent)
        peer.stop.wait(20)

    with scripted(script) as server:
        call = callers(server.url, Limits(total=20.0, stall=0.3)).call()
    assert outcome(call) == ("a", ended)
    assert (call.timeline.end or 0) - call.timeline.start < 10e9


def test_total_time_limit_over_a_stream_that_never_stalls(callers: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD)
        while not peer.stop.wait(0.03):
            peer.send(event("a"))

    with scripted(script) as server:
        call = callers(server.url, LIMITS).call()
    assert outcome(call)[1] == "total_timeout"
    assert len(call.timeline.at) > 2, "what came before the limit is kept"


def test_what_came_in_time_counts_though_it_was_read_late(callers: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        time.sleep(0.1)
        peer.send(REPLY)

    with scripted(script) as server:
        caller = callers(server.url, Limits(first_token=0.3))
        gevent.spawn_later(0.05, time.sleep, 0.5)
        assert outcome(caller.call()) == ("hello", None)


def test_connect_timeout(callers: Any) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        for _ in range(4):  # a full backlog drops what comes next
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        call = callers(f"http://127.0.0.1:{listener.getsockname()[1]}", Limits(connect=0.3)).call()
        for filler in fillers:
            filler.close()
    assert outcome(call)[1] == "connect_timeout"


def test_nobody_listens(callers: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        call = callers(f"http://127.0.0.1:{free.getsockname()[1]}").call()
    assert outcome(call)[1] == "connect"
    assert "Connection refused" in str(call.exchange.error)


def test_no_such_name(callers: Any) -> None:
    call = callers("http://no-such-host.invalid:80").call()
    assert outcome(call)[1] == "dns"


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + event("a")])
def test_a_reset_is_truncated(callers: Any, sent: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        if sent:
            peer.send(sent)
            time.sleep(0.05)
        peer.reset()

    with scripted(script) as server:
        call = callers(server.url).call()
    assert outcome(call) == ("a" if b"content" in sent else "", "truncated")


def test_a_body_left_open_after_its_end_mark_is_a_reply(callers: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + event("hello") + DONE)
        peer.stop.wait(5)

    with scripted(script) as server:
        caller = callers(server.url)
        call = caller.call()
        assert outcome(call) == ("hello", None)
        assert call.timeline.end == call.timeline.at[-1], "the wait for the body's end is not the reply's time"
        assert caller.client.take() is None


def test_a_killed_greenlet_leaves_a_true_timeline(callers: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + event("a"))
        peer.stop.wait(5)

    with scripted(script) as server:
        caller = callers(server.url)
        call = caller.prepare()
        greenlet = gevent.spawn(call.run)
        gevent.sleep(0.1)
        greenlet.kill()
        assert (call.exchange.finished, len(call.timeline.at), call.attempts) == (False, 1, 1)


def test_replies_larger_than_a_read_and_requests_larger_than_a_buffer(callers: Any) -> None:
    got = []

    def script(peer: Peer) -> None:
        got.append(len(peer.request()))
        peer.send(HEAD + b"".join(event("x" * 1000) for _ in range(2000)) + DONE + END)

    with scripted(script) as server:
        call = callers(server.url).call(prompt="y" * 8_000_000)
    assert outcome(call) == ("x" * 2_000_000, None)
    assert got[0] == call.request_bytes > 8_000_000
    assert all(low <= at for low, at in zip(call.timeline.low, call.timeline.at, strict=True))
    assert call.timeline.at == sorted(call.timeline.at)


def test_a_server_that_answers_and_closes_while_we_still_send(callers: Any) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        peer.sock.shutdown(socket.SHUT_WR)
        peer.stop.wait(1)

    with scripted(script) as server:
        call = callers(server.url, Limits(total=5.0)).call(prompt="y" * 32_000_000)
    assert outcome(call)[1] == "http_4xx"
    assert call.exchange.status == 413


def test_a_server_that_resets_while_we_still_send(callers: Any) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        time.sleep(0.1)
        peer.reset()

    with scripted(script) as server:
        call = callers(server.url, Limits(total=5.0)).call(prompt="y" * 32_000_000)
    assert outcome(call)[1] in ("truncated", "connect")


def test_a_request_leaves_nothing_to_the_garbage_collector(callers: Any) -> None:
    with scripted(replies) as server:
        caller = callers(server.url)
        caller.call()
        gc.collect()
        gc.disable()
        try:
            before = alive(HttpCall, HttpExchange, Timeline)  # other tests' own, which they keep
            for _ in range(5):
                caller.call()
            left = alive(HttpCall, HttpExchange, Timeline)
        finally:
            gc.enable()
    assert len(left) == len(before)


def test_aborting_a_client_ends_what_is_in_flight(callers: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + event("a"))
        peer.stop.wait(5)

    with scripted(script) as server:
        caller = callers(server.url)
        gevent.spawn_later(0.1, caller.client.close)
        began = time.monotonic()
        call = caller.call()
        assert time.monotonic() - began < 2
    assert outcome(call) == ("a", "client")
    assert caller.client.busy == set()


def test_no_such_address_family_or_descriptor_is_a_failure_to_connect(
    callers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("tokenswarm.transport.connection.gsocket.socket", refuse)
    call = callers("http://127.0.0.1:9").call()
    assert outcome(call)[1] == "connect"
    assert "Too many open files" in str(call.exchange.error)
