"""Users who leave before a reply has ended, without Locust: who, when, what they have seen, what the server sees."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from caller import PROTOCOL, Caller, outcome
from scripted_server import DONE, END, HEAD, Peer, event, scripted
from test_custom import User
from websocket_peer import Socket, so_far
from websocket_peer import message as ws_message
from wire import MS, request, response

from tokenswarm.errors import OptionError
from tokenswarm.load.leaving import After, Leavers
from tokenswarm.options import parse
from tokenswarm.options.cancelling import after
from tokenswarm.protocols import PROTOCOLS
from tokenswarm.protocols.websocket_chat import WebSocketChat
from tokenswarm.timing import Clock, Tally, Timeline
from tokenswarm.transport.base import Limits
from tokenswarm.transport.exchange import HttpExchange
from tokenswarm.transport.http import FastTransport
from tokenswarm.transport.portable import PortableTransport
from tokenswarm.transport.request import Leaving
from tokenswarm.transport.websocket import WebSocketTransport

NEVER = 30.0
MILLISECOND = 1_000_000


# Who leaves, and when


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2s", After(2, 2)),
        ("1m30s", After(90, 90)),
        ("0.5-2s", After(0.5, 2)),
        ("20t", After(20, 20, tokens=True)),
        ("20tokens", After(20, 20, tokens=True)),
        ("10-50 tok", After(10, 50, tokens=True)),
    ],
)
def test_a_time_or_tokens_or_a_range_of_either(given: str, expected: After) -> None:
    assert after(given) == expected


@pytest.mark.parametrize("given", ["0", "0t", "5t-3t", "8s-2s", "50-10t", "soon", "1s-2s-3s", "-2s", "2t-"])
def test_all_else_is_refused_with_the_option(given: str) -> None:
    with pytest.raises(OptionError, match="--cancel-after"):
        parse({"cancel_after": given, "cancel_rate": "0.5"}, {})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cancel_rate": "0.5"}, "needs --cancel-after"),
        ({"cancel_after": "2s"}, "needs --cancel-rate"),
        ({"cancel_rate": "1.5", "cancel_after": "2s"}, "between 0 and 1"),
        ({"cancel_rate": "1", "cancel_after": "5t", "no_stream": True}, "--cancel-after with tokens needs a stream"),
        ({"patience": "2s", "no_stream": True}, "--patience needs a stream"),
        ({"patience": "2s", "first_token_timeout": "2s"}, "can never be reached"),
        ({"cancel_rate": "1", "cancel_after": "9s-20s", "request_timeout": "9s"}, "can never be reached"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        parse(options, {})


def drawn(seed: int, worker: int, count: int = 2000, rate: float = 0.3) -> list[Leaving | None]:
    leavers = Leavers(rate, After(10, 20, tokens=True), None, seed=seed, worker=worker)
    return [leavers.draw() for _ in range(count)]


def test_who_leaves_is_drawn_by_the_seed_and_no_two_workers_draw_the_same() -> None:
    assert drawn(1, 0) == drawn(1, 0)
    assert drawn(1, 0) != drawn(1, 1)
    assert drawn(1, 0) != drawn(2, 0)
    left = [leaving for leaving in drawn(1, 0) if leaving is not None]
    assert abs(len(left) / 2000 - 0.3) < 0.05
    assert {leaving.chunks for leaving in left} == set(range(10, 21))


def test_all_or_nobody_and_patience_is_everybodys() -> None:
    assert all(drawn(1, 0, rate=1.0))
    assert not any(drawn(1, 0, rate=0.0))
    everybody = Leavers(0.0, None, 2.5, seed=0, worker=0)
    assert everybody.draw() == Leaving(patience_ns=2_500 * MS)
    assert everybody.draw(After(1, 1)) == Leaving(after_ns=1_000 * MS, patience_ns=2_500 * MS)


# What they have seen: bytes and their arrival, no socket


def seen(leaving: Leaving, *reads: tuple[int, bytes]) -> HttpExchange:
    """What becomes of a reply that arrives in these reads, at these milliseconds."""
    exchange = HttpExchange(request(PROTOCOL, Timeline(start=0), Tally(), leaving=leaving), lambda: None)
    for at, data in reads:
        exchange.feed(data, at * MS, at * MS, at * MS, Clock.KERNEL)
    return exchange


def test_of_tokens_that_are_read_together_exactly_so_many_are_seen() -> None:
    exchange = seen(Leaving(chunks=3), (1, HEAD + event("a")), (2, event("b") + event("c") + event("d") + event("e")))
    line = exchange.timeline
    assert "".join(exchange.text) == "abc"
    assert (line.at, line.end) == ([1 * MS, 2 * MS, 2 * MS], 2 * MS)
    assert (exchange.finished, exchange.error, exchange.reusable) == (True, None, False)
    assert exchange.left == "the user left with chunk 3"
    assert exchange.response_bytes == len(HEAD + event("a") + event("b") * 4), "they had arrived all the same"


def test_the_last_token_of_a_reply_is_enough_however_its_end_is_read() -> None:
    ending = event("", "stop") + DONE + END
    together = seen(Leaving(chunks=2), (1, HEAD + event("a") + event("b") + ending))
    apart = seen(Leaving(chunks=2), (1, HEAD + event("a") + event("b")), (2, ending))
    assert together.left == apart.left == "the user left with chunk 2"
    shorter = seen(Leaving(chunks=3), (1, HEAD + event("a") + event("b") + ending))
    assert (shorter.finished, shorter.left, shorter.error) == (True, "", None)


def test_the_last_chunk_of_a_body_is_enough_though_its_line_has_no_end() -> None:
    """It is read once the body has ended, and ends the reply by itself."""
    leaving, protocol = Leaving(chunks=2), PROTOCOLS["ollama-chat"]
    exchange = HttpExchange(request(protocol, Timeline(start=0), Tally(), leaving=leaving), lambda: None)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"
    lines = b'{"message":{"content":"a"}}\n{"message":{"content":"b"}}'
    exchange.feed(head + lines, MS, MS, MS, Clock.KERNEL)
    exchange.eof(2 * MS)
    assert (exchange.left, exchange.error, exchange.timeline.end) == ("the user left with chunk 2", None, MS)


def test_what_arrives_after_the_instant_is_not_seen_however_late_it_is_read() -> None:
    exchange = seen(Leaving(after_ns=10 * MS), (1, HEAD + event("a")), (10, event("b")), (11, event("c") + DONE + END))
    assert "".join(exchange.text) == "ab"
    assert exchange.timeline.end == 10 * MS
    assert exchange.left == "the user left after 0.01 s"


def test_patience_ends_with_the_first_output_and_not_with_the_headers() -> None:
    late = seen(Leaving(patience_ns=10 * MS), (1, HEAD), (11, event("a")))
    assert (late.left, late.timeline.end, late.timeline.at) == ("the user left: no output within 0.01 s", 10 * MS, [])
    whole = seen(Leaving(patience_ns=10 * MS), (9, HEAD + event("a")), (50, event("b", "stop") + DONE + END))
    assert (whole.left, whole.error, "".join(whole.text)) == ("", None, "ab")


def test_a_reply_that_has_its_end_mark_is_whole_though_its_body_stays_open() -> None:
    exchange = seen(Leaving(after_ns=10 * MS), (1, HEAD + event("a", "stop") + DONE), (20, END))
    assert (exchange.left, exchange.error, exchange.finished) == ("", None, True)


def test_an_error_that_arrives_after_the_instant_is_nobodys() -> None:
    exchange = seen(Leaving(after_ns=10 * MS), (20, response(b"{}", "application/json", "500 Internal Server Error")))
    assert (exchange.left, exchange.error) == ("the user left after 0.01 s", None)


# Over real sockets, on every transport


def gone(peer: Peer) -> bool:
    """Whether the client has closed the connection, or does within `NEVER`."""
    peer.sock.settimeout(NEVER)
    try:
        while peer.sock.recv(65536):
            pass  # a WebSocket says goodbye first
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def open_http(peer: Peer) -> Callable[[str], None]:
    peer.request()
    peer.send(HEAD)
    return lambda text: peer.send(event(text))


def open_websocket(peer: Peer) -> Callable[[str], None]:
    ws, said = Socket(peer), ""
    ws.accept()
    ws.query()

    def say(text: str) -> None:
        nonlocal said
        said += text
        ws.send(so_far(said))

    return say


KINDS: dict[str, tuple[Any, Callable[[Peer], Callable[[str], None]], dict[str, Any]]] = {
    "fast": (FastTransport, open_http, {}),
    "portable": (PortableTransport, open_http, {}),
    "websocket": (WebSocketTransport, open_websocket, {"protocol": WebSocketChat()}),
}


class Left:
    """A call whose user left, and whether the server noticed."""

    def __init__(self, callers: Any, kind: str, leaving: Leaving, chunks: int, limits: Limits | None = None) -> None:
        transport, opened, settings = KINDS[kind]
        noticed = []

        def script(peer: Peer) -> None:
            say = opened(peer)
            try:
                for _ in range(chunks):
                    say("x")
                    time.sleep(0.01)
                noticed.append(gone(peer))
            except OSError:
                noticed.append(True)

        with scripted(script) as server:
            caller: Caller = callers(server.url, limits, transport, **settings)
            caller.leaving = leaving
            self.call = caller.call()
            give_up = time.monotonic() + NEVER
            while not noticed and time.monotonic() < give_up:
                time.sleep(0.01)
        self.noticed = noticed == [True]
        self.line = self.call.timeline


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, reading: str) -> str:
    if request.param == "portable" and reading == "python":
        pytest.skip("it reads in its own way")
    return str(request.param)


def test_with_a_token(callers: Any, kind: str) -> None:
    left = Left(callers, kind, Leaving(chunks=3), chunks=5)
    assert outcome(left.call) == ("xxx", None)
    assert left.line.end == left.line.at[-1]
    assert left.noticed


def test_at_an_instant(callers: Any, kind: str) -> None:
    left = Left(callers, kind, Leaving(after_ns=300 * MILLISECOND), chunks=3)
    assert outcome(left.call) == ("xxx", None)
    assert left.line.end == left.line.start + 300 * MILLISECOND
    assert left.noticed


def test_for_want_of_a_first_token(callers: Any, kind: str) -> None:
    left = Left(callers, kind, Leaving(patience_ns=100 * MILLISECOND), chunks=0)
    assert (left.call.exchange.error, left.line.at) == (None, [])
    assert left.call.exchange.left == "the user left: no output within 0.1 s"
    assert left.line.end == left.line.start + 100 * MILLISECOND
    assert left.noticed


def test_while_the_connection_is_still_being_opened(callers: Any, kind: str) -> None:
    """Nobody accepts: the second connection waits behind the first in a queue of one."""
    transport, _, settings = KINDS[kind]
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        caller: Caller = callers(f"http://127.0.0.1:{deaf.getsockname()[1]}", None, transport, **settings)
        caller.leaving = Leaving(after_ns=150 * MILLISECOND)
        call = caller.call()
        for filler in fillers:
            filler.close()
    assert call.exchange.error is None
    assert call.exchange.left == "the user left after 0.15 s"
    assert call.timeline.end == call.timeline.start + 150 * MILLISECOND


def test_the_users_next_request_goes_over_a_connection_of_its_own(callers: Any, kind: str) -> None:
    transport, opened, settings = KINDS[kind]

    def script(peer: Peer) -> None:
        say = opened(peer)
        for _ in range(3):
            say("x")
        if kind == "websocket":
            peer.send(ws_message({"status": 200}))
        else:
            peer.send(event("", "stop") + DONE + END)
        gone(peer)

    with scripted(script) as server:
        caller: Caller = callers(server.url, None, transport, **settings)
        caller.leaving = Leaving(chunks=2)
        assert outcome(caller.call()) == ("xx", None)
        caller.leaving = None
        second = caller.call()
        assert outcome(second) == ("xxx", None)
        assert (second.connection_reused, len(server.peers)) == (False, 2)


def test_a_function_goes_on_to_its_next_piece_and_its_caller_does_not_wait(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(
        "import time\n"
        "def query_model(prompt, max_resp_tokens):\n"
        "    for _ in range(100):\n"
        "        yield 'x'\n"
        "        time.sleep(0.02)\n"
    )
    user = User(path)
    try:
        call = user.prepare(leaving=Leaving(chunks=4))
        call.run()
        assert outcome(call) == ("xxxx", None)
        assert call.exchange.left
        later = user.prepare(leaving=Leaving(after_ns=200 * MILLISECOND))
        later.run()
        assert later.timeline.end == later.timeline.start + 200 * MILLISECOND
        assert 0 < len(later.timeline.at) < 15
    finally:
        user.close()
