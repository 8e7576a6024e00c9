"""Servers that send too much, too long, or no end: each request ends in one row of the right class, memory is bounded
and the next request is unharmed. Over real sockets, by both transports and both ways of reading.
"""

from __future__ import annotations

import gzip
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from caller import JSON, Caller, answer, outcome
from locust_process import headless
from scripted_server import DONE, HEAD, REPLY, Peer, chunk, event, scripted
from websocket_peer import CONTINUATION, TEXT, Socket, acceptance, chats, frame

from tokenswarm import framing
from tokenswarm.errors import MOST_SAID, RequestError
from tokenswarm.protocols.ollama import OllamaChat
from tokenswarm.protocols.websocket_chat import WebSocketChat
from tokenswarm.transport import receiver, reply
from tokenswarm.transport.base import Limits
from tokenswarm.transport.http import FastTransport
from tokenswarm.transport.portable import PortableTransport
from tokenswarm.transport.websocket import WebSocketTransport

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux's means")

MIB = 1024 * 1024
BLOCK = b"x" * 65536
MOST_BLOCKS = 400 * MIB // len(BLOCK)
MOST_GROWTH_MIB = 200
"""The largest event that is taken is 16 MiB, and it stands in several buffers on its way; 400 MiB are sent, or more."""
LIMITS = Limits(total=20.0)
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

Script = Callable[[Peer], None]


def repeated(*start: bytes, piece: bytes = BLOCK, count: int = MOST_BLOCKS, pause: float = 0.0) -> Script:
    """Sends the start, then a piece again and again, until the client has gone."""

    def script(peer: Peer) -> None:
        peer.sock.sendall(b"".join(start))
        for _ in range(count):
            peer.sock.sendall(piece)
            time.sleep(pause)

    return script


def chunked(piece: bytes) -> bytes:
    return chunk(piece * (65536 // len(piece)))


SCRIPTS: dict[str, tuple[Script, str]] = {
    "a line of 400 MiB": (repeated(PLAIN, b"\r\ndata: "), "malformed"),
    "a line of 400 MiB in chunks": (repeated(HEAD, chunk(b"data: "), piece=chunk(BLOCK)), "malformed"),
    "a comment of 400 MiB": (repeated(HEAD, chunk(b": "), piece=chunk(BLOCK)), "malformed"),
    "a comment of many lines": (repeated(HEAD, piece=chunked(b": ping\n")), "malformed"),
    "an event of many lines": (repeated(HEAD, piece=chunked(b"data: a\n")), "malformed"),
    "a whole reply of 400 MiB": (repeated(b"HTTP/1.1 200 OK\r\n", JSON, b"\r\n{"), "malformed"),
    "an error page of 400 MiB": (
        repeated(b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n" % (400 * MIB), count=MOST_BLOCKS),
        "http_5xx",
    ),
    "10,000 headers": (repeated(PLAIN, *(b"X-%d: y\r\n" % n for n in range(10_000)), count=0), "malformed"),
    "a header of 10 MiB": (repeated(PLAIN, b"X: ", count=160), "malformed"),
    "headers without end": (repeated(PLAIN, piece=b"X: y\r\n" * 1000, count=100_000), "malformed"),
    "a name of a header without end": (repeated(PLAIN), "malformed"),
    "a status line without end": (repeated(b"HTTP/1.1 200 "), "malformed"),
    "a chunk of no length": (repeated(HEAD, b"zz\r\n"), "malformed"),
    "zeros before a chunk's length": (repeated(HEAD, piece=b"0" * 65536), "malformed"),
    "an extension of a chunk without end": (repeated(HEAD, b"5;"), "malformed"),
    "a compressed reply": (
        repeated(answer(b"200 OK", b"Content-Encoding: gzip\r\n", gzip.compress(b"data: [DONE]\n\n")), count=0),
        "malformed",
    ),
    "a compressed error": (
        repeated(answer(b"503 Busy", b"Content-Encoding: gzip\r\n", gzip.compress(BLOCK)), count=0),
        "http_5xx",
    ),
    "something that is no HTTP": (repeated(b"\0\1\2\3"), "malformed"),
    "deep JSON": (
        repeated(HEAD, chunk(b"data: "), *[chunk(b"[" * 65536)] * 100, chunk(b"\n\n"), count=0),
        "malformed",
    ),
}
SLOW: dict[str, Script] = {
    "a line without end": repeated(HEAD, piece=chunk(b"data: x"), count=10_000, pause=0.01),
    "headers one by one": repeated(PLAIN, piece=b"X: y\r\n", count=10_000, pause=0.1),
    "comments without end": repeated(HEAD, piece=chunk(b": ping\n\n"), count=10_000, pause=0.01),
    "early hints without end": repeated(piece=b"HTTP/1.1 103 Early Hints\r\n\r\n", count=10_000, pause=0.1),
    "a chunk that never comes": repeated(HEAD, b"7fffffff\r\ndata: ", piece=b"x", count=10_000, pause=0.1),
}


def then_well(script: Script) -> Script:
    """What the first connection gets; the next ones are answered as they should be."""

    def run(peer: Peer) -> None:
        peer.request()
        if peer.number == 0:
            script(peer)
            return
        peer.sock.sendall(REPLY)
        while peer.request():
            peer.sock.sendall(REPLY)

    return run


@contextmanager
def bounded_memory(most_mib: int = MOST_GROWTH_MIB) -> Iterator[None]:
    """Inside, this process never holds so much more than before."""

    def now(name: str) -> float:
        match = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert match
        return int(match[1]) / 1024

    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before = now("VmRSS")
    yield
    assert now("VmHWM") - before < most_mib


@pytest.fixture(params=["thread", "python", "portable"])
def users(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes users of the transport, by each way to read its sockets."""
    if request.param == "thread" and not receiver.available():
        pytest.skip("the receive thread was not built")
    kind: Any = PortableTransport
    if request.param != "portable":
        monkeypatch.setenv(receiver.MODE_VARIABLE, request.param)
        kind = FastTransport
    made: list[Caller] = []

    def make(url: str, limits: Limits = LIMITS, **settings: Any) -> Caller:
        made.append(Caller(url, limits, **{"kind": kind, **settings}))
        return made[-1]

    yield make
    for caller in made:
        caller.close()


def check(user: Caller, error_class: str) -> RequestError:
    """One request, which ends in this class, and another one, which goes well."""
    with bounded_memory():
        call = user.call()
    error = call.exchange.error
    assert error is not None
    assert (error.error_class, call.attempts) == (error_class, 1), error
    assert len(str(error)) <= MOST_SAID
    assert outcome(user.call()) == ("hello", None)
    return error


@pytest.mark.parametrize("what", SCRIPTS)
def test_too_much_of_anything_ends_in_its_class(users: Any, what: str) -> None:
    script, error_class = SCRIPTS[what]
    with scripted(then_well(script)) as server:
        check(users(server.url), error_class)


@pytest.mark.parametrize("what", SLOW)
def test_what_never_ends_is_ended_by_the_time_limit(users: Any, what: str) -> None:
    with scripted(then_well(SLOW[what])) as server:
        check(users(server.url, Limits(total=0.5)), "total_timeout")


def test_a_compressed_reply_says_what_to_do(users: Any) -> None:
    with scripted(then_well(SCRIPTS["a compressed reply"][0])) as server:
        error = check(users(server.url), "malformed")
    assert "gzip" in str(error)
    assert "turn compression off at the server" in str(error)


@pytest.mark.parametrize(
    ("piece", "error_class"), [(BLOCK, "malformed"), (b"{}" * 32768, "malformed"), (b"\n" * 65536, "total_timeout")]
)
def test_lines_of_json_without_end(users: Any, piece: bytes, error_class: str) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"

    def script(peer: Peer) -> None:
        peer.request()
        repeated(head, piece=piece, count=1_000_000)(peer)

    with scripted(script) as server, bounded_memory():
        _, ended = outcome(users(server.url, Limits(total=2.0), protocol=OllamaChat()).call())
    assert ended == error_class


def test_a_reply_that_goes_on_and_on_has_an_end(users: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply, "MAX_REPLY_BYTES", 2_000_000)
    with scripted(then_well(repeated(HEAD, piece=event("word " * 1000), count=100_000))) as server:
        error = check(users(server.url), "malformed")
    assert "a reply of more than 2000000 bytes" in str(error)


@pytest.mark.parametrize("trailers", [b"X: y\r\n" * 1000, b"x" * 65536])
def test_what_comes_after_the_end_mark_does_not_spoil_the_reply(users: Any, trailers: bytes) -> None:
    good = HEAD + event("hello", "stop") + DONE + b"0\r\n"
    with scripted(then_well(repeated(good, piece=trailers, count=100_000))) as server, bounded_memory():
        user = users(server.url)
        assert [outcome(user.call()) for _ in range(2)] == [("hello", None)] * 2


@pytest.mark.parametrize("content_type", [b"text/event-stream", b"application/json"])
def test_the_smallest_pieces_take_no_more_memory_than_large_ones(
    users: Any, content_type: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing, "MAX_EVENT_BYTES", MIB)
    monkeypatch.setattr(reply, "MAX_WHOLE_BYTES", MIB)
    head = HEAD.replace(b"text/event-stream", content_type)
    with scripted(then_well(repeated(head, piece=chunk(b"xy") * 1000, count=100_000))) as server, bounded_memory(40):
        assert outcome(users(server.url).call())[1] == "malformed"


def test_a_server_without_a_pause_leaves_time_for_others(clients: Any) -> None:
    """While one user of a process is sent comments as fast as they are read, another one has its reply. (What the event
    loop or the thread reads, they read by turns.)"""

    def script(peer: Peer) -> None:
        peer.request()
        if peer.number == 0:
            repeated(PLAIN, b"\r\n", piece=b": ping\n\n" * 20_000, count=1_000_000)(peer)
            return
        peer.sock.sendall(REPLY)

    with scripted(script) as server:
        flooded_user = clients(server.url, Limits(total=60.0))
        flooded = gevent.spawn(flooded_user.call)
        gevent.sleep(0.5)
        assert outcome(clients(server.url).call()) == ("hello", None)
        assert not flooded.ready()
        flooded_user.client.close()
        assert outcome(flooded.get(timeout=30)) == ("", "client")


# WebSockets


def fragments(piece: bytes, pause: float = 0.0) -> Script:
    def script(peer: Peer) -> None:
        peer.sock.sendall(frame(b'{"response": "', TEXT, last=False))
        repeated(piece=frame(piece, CONTINUATION, last=False), count=100_000, pause=pause)(peer)

    return script


WEBSOCKET: dict[str, tuple[Script, str]] = {
    "a message of 400 MiB": (repeated(bytes([0x80 | TEXT, 127]) + (400 * MIB).to_bytes(8, "big")), "malformed"),
    "a message longer than any": (repeated(bytes([0x80 | TEXT, 127]) + b"\x7f" + b"\xff" * 7), "malformed"),
    "fragments without end": (fragments(BLOCK), "malformed"),
    "small fragments without end": (fragments(b"x"), "total_timeout"),
    "empty fragments without end": (fragments(b""), "total_timeout"),
    "pings without end": (repeated(piece=frame(b"p" * 125, 9) * 500, count=100_000), "total_timeout"),
    "a ping that is too large": (repeated(frame(b"p" * 126, 9), count=0), "malformed"),
    "a compressed message": (repeated(bytes([0xC0 | TEXT, 5]) + b"hello", count=0), "malformed"),
    "deep JSON": (repeated(frame(b"[" * 1_000_000), count=0), "malformed"),
}


def over_websocket(script: Script) -> Script:
    """What the first connection gets once it is open; the next ones are answered as they should be."""

    def run(peer: Peer) -> None:
        socket = Socket(peer)
        socket.accept()
        if peer.number:
            chats(socket)
        socket.query()
        script(peer)
        peer.stop.wait(5)

    return run


@pytest.mark.parametrize("what", WEBSOCKET)
def test_too_much_over_a_websocket_ends_in_its_class(callers: Any, what: str) -> None:
    script, error_class = WEBSOCKET[what]
    with scripted(over_websocket(script)) as server:
        user = callers(server.url, Limits(total=2.0), WebSocketTransport, protocol=WebSocketChat())
        check(user, error_class)


@pytest.mark.parametrize(
    "lines", [[b"X-%d: y\r\n" % n for n in range(10_000)], [b"X: ", *[BLOCK] * 160], [b"X: y\r\n" * 1000] * 1000]
)
def test_too_many_headers_of_a_handshake_are_malformed(callers: Any, lines: list[bytes]) -> None:
    def script(peer: Peer) -> None:
        socket = Socket(peer)
        socket.handshake()
        accepted = acceptance(socket.head["sec-websocket-key"])
        if peer.number == 0:
            peer.sock.sendall(accepted[:-2] + b"".join(lines) + b"\r\n")
            return
        peer.sock.sendall(accepted)
        chats(socket)

    with scripted(script) as server:
        error = check(callers(server.url, LIMITS, WebSocketTransport, protocol=WebSocketChat()), "malformed")
    assert "bytes of headers" in str(error)


# With Locust


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["fast", "portable"])
def test_every_one_is_a_row_and_the_run_goes_on(tmp_path: Path, transport: str) -> None:
    scripts = list(SCRIPTS.values())
    waiting = list(scripts)

    def script(peer: Peer) -> None:
        if peer.request().startswith(b"POST") and waiting:
            waiting.pop(0)[0](peer)
            return
        peer.sock.sendall(REPLY)
        while peer.request():
            time.sleep(0.05)
            peer.sock.sendall(REPLY)

    with scripted(script) as server:
        options = ("-u", "1", "-t", "15s", "--no-check", "--model", "m", "--transport", transport)
        run = headless(tmp_path, server.url, *options, exit_code=1)
    classes = [row["error_class"] for row in run.rows()]
    assert classes[: len(scripts)] == [error_class for _, error_class in scripts]
    assert len(classes) > len(scripts)
    assert set(classes[len(scripts) :]) == {""}
    assert len(classes) == sum(line["started"] for line in run.intervals())
