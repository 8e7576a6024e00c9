"""WebSockets over real sockets: one connection over the turns, kernel stamps, time limits, TLS, servers that misbehave.

All of it with both ways of reading: the receive thread and the event loop (fixture `reading`).
"""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from caller import Authority, Caller, alive, outcome
from scripted_server import Peer, scripted
from websocket_peer import CLOSE, END, PING, PONG, Socket, acceptance, chats, close, frame, message, so_far, speaking
from wire import REQUEST_ID

from tokenswarm.protocols.websocket_chat import Shape, WebSocketChat
from tokenswarm.timing import Timeline
from tokenswarm.transport.base import Limits
from tokenswarm.transport.messages import Turn
from tokenswarm.transport.websocket import WebSocketCall, WebSocketTransport

linux = pytest.mark.skipif(sys.platform != "linux", reason="kernel receive stamps are Linux's")
SECOND = 1_000_000_000


@pytest.fixture
def talkers(callers: Any) -> Any:
    """Makes callers that speak over a WebSocket."""

    def make(url: str, limits: Limits | None = None, shape: Shape | None = None, **settings: Any) -> Caller:
        protocol = WebSocketChat(shape)
        made: Caller = callers(url, limits, WebSocketTransport, protocol=protocol, **settings)
        return made

    return make


def test_a_turn_and_what_was_sent_for_it(talkers: Any) -> None:
    seen: list[Any] = []

    def script(peer: Peer) -> None:
        socket = Socket(peer)
        socket.accept()
        seen.append((socket.request_line, socket.head, socket.query()))
        socket.send(so_far("hello"))
        socket.send(message(END))
        peer.stop.wait(5)

    with scripted(script) as server:
        call = talkers(server.url + "/base", headers={"Authorization": "Bearer k"}).call(prompt="q" * 70_000)
        sent = server.peers[0].sent
    assert outcome(call) == ("hello", None)
    request_line, head, query = seen[0]
    assert request_line == "GET /base/ws HTTP/1.1"
    assert (head["host"], head["authorization"], head["x-request-id"]) == (
        f"127.0.0.1:{server.port}",
        "Bearer k",
        REQUEST_ID,
    )
    assert query == {"query": "q" * 70_000, "history": []}
    line, exchange = call.timeline, call.exchange
    assert (exchange.status, call.connection_reused, call.attempts) == (101, False, 1)
    assert call.remote_addr == f"127.0.0.1:{server.port}"
    assert line.headers is None, "a turn has no headers"
    assert line.tcp_ns is not None
    assert line.sent is not None
    assert line.start < sent[0] < line.sent < sent[1], "sent is when the query was, after the handshake"
    assert exchange.response_bytes == len(acceptance("") + so_far("hello") + message(END))
    assert call.request_bytes > 70_000


def test_one_connection_is_kept_over_the_turns(talkers: Any) -> None:
    with scripted(speaking(chats)) as server:
        caller = talkers(server.url)
        calls = [caller.call() for _ in range(3)]
        assert [outcome(call) for call in calls] == [("hello", None)] * 3
        assert [call.connection_reused for call in calls] == [False, True, True]
        assert [call.timeline.tcp_ns is None for call in calls] == [False, True, True]
        assert len(server.peers) == 1
        assert calls[1].exchange.response_bytes == len(so_far("hel") + so_far("hello") + message(END))


def test_keep_alive_off_opens_one_each(talkers: Any) -> None:
    with scripted(speaking(chats)) as server:
        caller = talkers(server.url, keep_alive=False)
        assert [outcome(caller.call()) for _ in range(2)] == [("hello", None)] * 2
        assert len(server.peers) == 2


def test_a_websocket_of_ones_own_for_each_request_in_flight(talkers: Any) -> None:
    def script(socket: Socket) -> None:
        socket.query()
        time.sleep(0.1)
        socket.send(so_far("hello") + message(END))
        socket.peer.stop.wait(5)

    with scripted(speaking(script)) as server:
        caller = talkers(server.url)
        calls = [caller.prepare() for _ in range(3)]
        gevent.joinall([gevent.spawn(call.run) for call in calls])
        assert [outcome(call) for call in calls] == [("hello", None)] * 3
        assert len(server.peers) == 3


@linux
def test_arrivals_are_the_kernels_even_when_the_client_sleeps(talkers: Any) -> None:
    def script(socket: Socket) -> None:
        socket.query()
        time.sleep(0.1)
        socket.send(so_far("a"))
        time.sleep(0.6)
        socket.send(message(END))
        socket.peer.stop.wait(5)

    with scripted(speaking(script)) as server:
        caller = talkers(server.url)
        call = caller.prepare()
        turn = gevent.spawn(call.run)
        while call.timeline.sent is None:
            gevent.sleep(0.001)
        time.sleep(0.5)
        turn.join()
        sent = server.peers[0].sent[1]
    line = call.timeline
    assert outcome(call) == ("a", None)
    assert call.exchange.kernel_clock
    assert line.client_lag_ns is not None
    assert line.client_lag_ns > 0.05 * SECOND, "the client was late, or this test shows nothing"
    assert 0 <= line.at[0] - sent < line.client_lag_ns / 2
    assert line.low[0] == line.at[0]


@linux
@pytest.mark.parametrize("scheme", ["https", "wss"])
def test_tls_has_the_kernels_clock_too(talkers: Any, authority: Authority, scheme: str) -> None:
    with scripted(speaking(chats), authority.server()) as server:
        caller = talkers(server.url.replace("https", scheme), ca_bundle=authority.bundle)
        calls = [caller.call() for _ in range(2)]
    assert [outcome(call) for call in calls] == [("hello", None)] * 2
    assert all(call.exchange.kernel_clock for call in calls)
    assert calls[0].timeline.tls_ns is not None
    assert calls[1].timeline.tls_ns is None


def test_ws_is_plain(talkers: Any) -> None:
    with scripted(speaking(chats)) as server:
        assert outcome(talkers(server.url.replace("http", "ws") + "/ws").call()) == ("hello", None)


def test_an_untrusted_certificate_is_a_tls_error(talkers: Any, authority: Authority) -> None:
    with scripted(speaking(chats), authority.server()) as server:
        call = talkers(server.url.replace("https", "wss")).call()
    assert outcome(call)[1] == "tls"
    assert "--ca-bundle" in str(call.exchange.error)


# Pings and closes


def test_pings_are_answered_in_a_turn_and_between_two(talkers: Any) -> None:
    pongs: list[tuple[int, bytes]] = []
    heard = threading.Event()

    def script(socket: Socket) -> None:
        socket.query()
        socket.send(so_far("hel") + frame(b"in", PING))
        pongs.append(socket.frame())
        socket.send(so_far("hello"), message(END))
        socket.send(frame(b"between", PING))
        pongs.append(socket.frame())
        heard.set()
        chats(socket)

    with scripted(speaking(script)) as server:
        caller = talkers(server.url)
        caller.call()
        assert gevent.get_hub().threadpool.apply(heard.wait, (5,))
        second = caller.call()
        assert (outcome(second), second.connection_reused) == (("hello", None), True)
    assert pongs == [(PONG, b"in"), (PONG, b"between")]


@pytest.mark.parametrize("secured", [False, True])
def test_a_ping_while_a_long_query_is_being_sent_waits_for_its_end(
    talkers: Any, authority: Authority, secured: bool
) -> None:
    """A pong in the middle of a frame would tear it."""
    got: list[Any] = []

    def script(socket: Socket) -> None:
        time.sleep(0.2)  # until the sender's buffer is full
        socket.send(frame(b"first", PING) + frame(b"last", PING))
        time.sleep(0.2)
        got.append(socket.query())
        got.append(socket.frame())
        socket.send(so_far("hello") + message(END))
        socket.peer.stop.wait(5)

    with scripted(speaking(script), authority.server() if secured else None) as server:
        call = talkers(server.url, ca_bundle=authority.bundle).call(prompt="y" * 16_000_000)
    assert outcome(call) == ("hello", None)
    assert got[0]["query"] == "y" * 16_000_000
    assert got[1] == (PONG, b"last")


def test_a_connection_that_is_given_up_is_closed_with_a_goodbye(talkers: Any) -> None:
    last: list[tuple[int, bytes]] = []
    over = threading.Event()

    def script(socket: Socket) -> None:
        socket.query()
        socket.send(so_far("hello") + message(END))
        last.append(socket.frame())
        over.set()

    with scripted(speaking(script)) as server:
        caller = talkers(server.url)
        caller.call()
        caller.client.close()
        assert gevent.get_hub().threadpool.apply(over.wait, (5,))
    assert last == [(CLOSE, b"\x03\xe8")]


def test_an_idle_connection_that_the_server_closed_is_not_taken(talkers: Any) -> None:
    def script(socket: Socket) -> None:
        socket.query()
        socket.send(so_far("hello") + message(END))
        time.sleep(0.05)
        socket.send(close(1001))

    with scripted(speaking(script)) as server:
        caller = talkers(server.url)
        caller.call()
        gevent.sleep(0.2)
        second = caller.call()
    assert (outcome(second), second.attempts, second.connection_reused) == (("hello", None), 1, False)


@pytest.mark.parametrize("farewell", [b"", close(1001)])
def test_a_kept_connection_that_died_is_tried_again_once(talkers: Any, farewell: bytes) -> None:
    def script(socket: Socket) -> None:
        socket.query()
        socket.send(so_far("hello") + message(END))
        if socket.peer.number == 0:
            socket.query()  # the next one comes just as we give the connection up
            socket.send(farewell)
            return
        socket.peer.stop.wait(5)

    with scripted(speaking(script)) as server:
        caller = talkers(server.url)
        caller.call()
        second = caller.call()
    assert (outcome(second), second.attempts, second.connection_reused) == (("hello", None), 2, False)


def test_a_message_that_nobody_asked_for_costs_the_connection_not_the_next_turn(talkers: Any) -> None:
    def script(socket: Socket) -> None:
        socket.query()
        socket.send(so_far("hello") + message(END))
        time.sleep(0.05)
        socket.send(so_far("and another thing"))
        socket.peer.stop.wait(5)

    with scripted(speaking(script)) as server:
        caller = talkers(server.url)
        caller.call()
        gevent.sleep(0.2)
        second = caller.call()
        assert (outcome(second), second.connection_reused) == (("hello", None), False)
        assert len(server.peers) == 2


# Ends


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("sent", [b"", so_far("a"), so_far("a")[:5]])
def test_a_socket_dropped_in_mid_turn_is_truncated(talkers: Any, sent: bytes, reset: bool) -> None:
    def script(socket: Socket) -> None:
        socket.query()
        socket.send(sent)
        time.sleep(0.05)
        if reset:
            socket.peer.reset()

    with scripted(speaking(script)) as server:
        call = talkers(server.url).call()
    assert outcome(call) == ("a" if sent == so_far("a") else "", "truncated")


def test_a_close_that_ends_the_turn(talkers: Any) -> None:
    def script(socket: Socket) -> None:
        socket.query()
        socket.send(message("Hel"))
        socket.send(message("lo"))
        socket.send(close(1000))

    with scripted(speaking(script)) as server:
        caller = talkers(server.url, shape=Shape(reply_field="", cumulative=False, end="close"))
        calls = [caller.call() for _ in range(2)]
        assert [outcome(call) for call in calls] == [("Hello", None)] * 2
        assert len(server.peers) == 2


@pytest.mark.parametrize(("status", "error_class"), [(403, "http_4xx"), (429, "rate_limited"), (503, "http_5xx")])
def test_a_refused_handshake(talkers: Any, status: int, error_class: str) -> None:
    def script(peer: Peer) -> None:
        Socket(peer).handshake()
        body = json.dumps({"detail": "not today"}).encode()
        peer.send(
            b"HTTP/1.1 %d No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (status, len(body), body)
        )
        peer.stop.wait(5)

    with scripted(script) as server:
        call = talkers(server.url).call()
    assert (outcome(call)[1], call.exchange.status) == (error_class, status)
    assert "not today" in str(call.exchange.error)
    assert call.timeline.sent is None


def test_a_refusal_that_only_the_end_of_the_connection_ends(talkers: Any) -> None:
    def script(peer: Peer) -> None:
        Socket(peer).handshake()
        peer.send(b"HTTP/1.1 502 Bad Gateway\r\n\r\nno backend")

    with scripted(script) as server:
        call = talkers(server.url).call()
    assert outcome(call)[1] == "http_5xx"
    assert "no backend" in str(call.exchange.error)


LIMITS = Limits(connect=0.3, total=0.6, first_token=0.25, stall=0.15)


@pytest.mark.parametrize(
    ("sent", "error_class"),
    [(b"", "first_token_timeout"), (frame(b"", PING), "first_token_timeout"), (so_far("a"), "stall_timeout")],
)
def test_time_limits(talkers: Any, sent: bytes, error_class: str) -> None:
    def script(socket: Socket) -> None:
        socket.query()
        socket.send(sent)
        socket.peer.stop.wait(5)

    with scripted(speaking(script)) as server:
        call = talkers(server.url, LIMITS).call()
    assert outcome(call)[1] == error_class


def test_total_time_limit_over_a_reply_that_never_stalls(talkers: Any) -> None:
    def script(socket: Socket) -> None:
        socket.query()
        text = ""
        while not socket.peer.stop.wait(0.03):
            text += "a"
            socket.send(so_far(text))

    with scripted(speaking(script)) as server:
        call = talkers(server.url, LIMITS).call()
    assert outcome(call)[1] == "total_timeout"
    assert len(call.timeline.at) > 2, "what came before the limit is kept"


def test_the_handshake_must_be_over_within_the_time_to_connect(talkers: Any) -> None:
    with scripted(lambda peer: peer.stop.wait(5)) as server:
        began = time.monotonic()
        call = talkers(server.url, Limits(connect=0.2, total=5)).call()
        assert time.monotonic() - began < 3
    assert outcome(call)[1] == "connect_timeout"
    assert "WebSocket" in str(call.exchange.error)


def test_an_acceptance_that_came_in_time_counts_though_it_was_read_late(talkers: Any) -> None:
    def script(peer: Peer) -> None:
        socket = Socket(peer)
        socket.handshake()
        time.sleep(0.15)
        peer.send(acceptance(socket.head["sec-websocket-key"]))
        chats(socket)

    with scripted(script) as server:
        caller = talkers(server.url, Limits(connect=0.4))
        gevent.spawn_later(0.1, time.sleep, 0.6)
        assert outcome(caller.call()) == ("hello", None)


def test_a_killed_greenlet_leaves_a_true_timeline_and_no_connection(talkers: Any) -> None:
    def script(socket: Socket) -> None:
        socket.query()
        socket.send(so_far("a"))
        socket.peer.stop.wait(5)

    with scripted(speaking(script)) as server:
        caller = talkers(server.url)
        call = caller.prepare()
        greenlet = gevent.spawn(call.run)
        gevent.sleep(0.2)
        greenlet.kill()
        assert (call.exchange.finished, len(call.timeline.at), call.attempts) == (False, 1, 1)
        assert (caller.client.busy, caller.client.take()) == (set(), None)


def test_aborting_a_client_ends_what_is_in_flight(talkers: Any) -> None:
    def script(socket: Socket) -> None:
        socket.query()
        socket.send(so_far("a"))
        socket.peer.stop.wait(5)

    with scripted(speaking(script)) as server:
        caller = talkers(server.url)
        gevent.spawn_later(0.1, caller.client.close)
        began = time.monotonic()
        call = caller.call()
        assert time.monotonic() - began < 2
    assert outcome(call) == ("a", "client")
    assert caller.client.busy == set()


def test_replies_larger_than_a_read(talkers: Any) -> None:
    def script(socket: Socket) -> None:
        socket.query()
        text = ""
        parts = []
        for _ in range(60):
            text += "x" * 2000
            parts.append(so_far(text))
        socket.send(*parts, message(END))
        socket.peer.stop.wait(5)

    with scripted(speaking(script)) as server:
        call = talkers(server.url).call()
    assert outcome(call) == ("x" * 120_000, None)
    assert len(call.timeline.at) == 60
    assert call.timeline.at == sorted(call.timeline.at)


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_turn_leaves_nothing_to_the_garbage_collector(talkers: Any, request: pytest.FixtureRequest) -> None:
    with scripted(speaking(chats)) as server:
        caller = talkers(server.url)
        caller.call()
        request.getfixturevalue("uncollected")
        before = alive(WebSocketCall, Turn, Timeline)  # other tests' own, which they keep
        for _ in range(5):
            caller.call()
        left = alive(WebSocketCall, Turn, Timeline)
    assert len(left) == len(before)
