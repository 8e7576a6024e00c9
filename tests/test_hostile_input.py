"""Every protocol's framer and decoder against what no server should send: its own replies with damage, its own words in
the wrong places, and anything at all. Whatever comes, the request ends once, and never with an error of Python's.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulator_process import Running
from spoken import STREAMED, ask
from websocket_peer import END, acceptance, frame, message, so_far
from wire import request
from wire_reply import JSON, SSE, Served, json_of

from tokenswarm.framing import DelimitedFramer, Framer, SseFramer
from tokenswarm.protocols import PROTOCOLS
from tokenswarm.protocols.base import Decoder, WireProtocol
from tokenswarm.protocols.dashscope import DashScopeDecoder
from tokenswarm.protocols.websocket_chat import Shape, WebSocketChat
from tokenswarm.timing import Clock, Timeline
from tokenswarm.transport.messages import Messages, Turn

BLAMELESS = (None, "stream_error", "content_policy", "malformed", "empty", "truncated")
"""How a request may end: well, or in a class that blames the server, and never us."""
OVER_HTTP = [name for name, protocol in PROTOCOLS.items() if protocol.request_type == "POST"]
MORE_WORDS = ("error", "message", "code", "detail", "object", "type", "status", "null", "[DONE]", "stop")
WHOLE: dict[str, Any] = {
    "chatglm": {"response": "hello", "history": [["hi", "hello"]], "status": 200, "time": "now"},
    "openai-embeddings": {"object": "list", "data": [{"embedding": [0.1, 2]}], "usage": {"prompt_tokens": 1}},
}
SHAPES = (
    Shape(),
    Shape(cumulative=False, end="close"),
    Shape(reply_field="", cumulative=False, end="[DONE]"),
    Shape(reply_field="", end="done=true"),
)


@pytest.fixture(scope="session")
def replies(quick_simulator: Running) -> dict[str, bytes]:
    """A good reply of each protocol over HTTP."""
    streamed = {spoken.name: ask(quick_simulator, spoken).read() for spoken in STREAMED}
    return streamed | {name: json.dumps(value).encode() for name, value in WHOLE.items()}


def decoder_of(name: str) -> tuple[WireProtocol, Decoder]:
    if name == "dashscope-cumulative":
        return PROTOCOLS["dashscope"], DashScopeDecoder(cumulative=True)
    return PROTOCOLS[name], PROTOCOLS[name].decoder()


def check(name: str, body: bytes, content_type: bytes, cuts: Any = ()) -> None:
    protocol, decoder = decoder_of(name)
    served = Served(protocol, body, content_type, cuts=sorted(min(cut, len(body)) for cut in cuts), decoder=decoder)
    assert served.error_class in BLAMELESS, served.reply.error
    assert "Error(" not in str(served.reply.error), "a decoder raised something of Python's"


def words_of(value: Any) -> Iterator[str]:
    """Every key and text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from words_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from words_of(inner)


def vocabulary(name: str, body: bytes) -> list[str]:
    framer = PROTOCOLS.get(name, PROTOCOLS["dashscope"]).framer()
    if name in WHOLE:
        return sorted({*words_of(WHOLE[name]), *MORE_WORDS})
    events = [event.data for event in framer.feed(body) if event.data != b"[DONE]"]
    return sorted({*itertools.chain(*(words_of(json.loads(data)) for data in events)), *MORE_WORDS})


DAMAGE = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.integers(0, 40),
        st.binary(max_size=8) | st.sampled_from([b"\n", b"\r", b"\0", b"\n\n", b'"', b"}", b"null", b"\xef\xbb\xbf"]),
    ),
    max_size=4,
)


def damaged(body: bytes, damage: list[tuple[float, int, bytes]]) -> bytes:
    """At each place, so many bytes replaced by others."""
    for where, length, by in damage:
        start = int(where * len(body))
        body = body[:start] + by + body[start + length :]
    return body


FUZZ = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
NAMES = [spoken.name for spoken in STREAMED] + list(WHOLE)


def test_every_protocol_is_here() -> None:
    assert {*NAMES} - {"dashscope-cumulative"} == {*OVER_HTTP}
    assert {*PROTOCOLS} - {*OVER_HTTP} == {"websocket-chat", "custom"}


@pytest.mark.parametrize("name", NAMES)
def test_a_good_reply_is_one(replies: dict[str, bytes], name: str) -> None:
    protocol, decoder = decoder_of(name)
    kind = JSON if name in WHOLE else SSE
    assert Served(protocol, replies[name], kind, decoder=decoder).error_class is None


@pytest.mark.parametrize("name", NAMES)
@FUZZ
@given(damage=DAMAGE, cuts=st.lists(st.integers(0, 4000), max_size=6))
def test_a_damaged_reply(replies: dict[str, bytes], name: str, damage: Any, cuts: list[int]) -> None:
    body = damaged(replies[name], damage)
    check(name, body, SSE, cuts)
    check(name, body, JSON)


@pytest.fixture(scope="session")
def values_of(replies: dict[str, bytes]) -> dict[str, st.SearchStrategy[list[Any]]]:
    """For each protocol: JSON values made of its words."""
    return {name: st.lists(json_of(*vocabulary(name, replies[name])), min_size=1, max_size=4) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
@FUZZ
@given(data=st.data())
def test_its_own_words_in_the_wrong_places(values_of: dict[str, Any], name: str, data: st.DataObject) -> None:
    encoded = [json.dumps(value).encode() for value in data.draw(values_of[name])]
    framer = PROTOCOLS.get(name, PROTOCOLS["dashscope"]).framer()
    if isinstance(framer, SseFramer):
        body = b"".join(b"data: " + value + b"\n\n" for value in encoded)
    else:
        body = b"".join(value + (b"\0" if name == "fastchat-worker" else b"\n") for value in encoded)
    check(name, body, SSE)
    check(name, encoded[0], JSON)


@pytest.mark.parametrize("name", NAMES)
@FUZZ
@given(body=st.binary(max_size=200), kind=st.sampled_from([SSE, JSON, b"text/html", b"application/octet-stream", b""]))
def test_anything_at_all(name: str, body: bytes, kind: bytes) -> None:
    check(name, body, kind)


# WebSockets


def hear(shape: Shape, data: bytes, cuts: list[int]) -> None:
    """A turn that is sent these bytes, cut anywhere, and then nothing more."""
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    finished: list[bool] = []
    messages = Messages()
    turn = messages.turn = Turn(request(WebSocketChat(shape), Timeline(start=0)), lambda: finished.append(True))
    turn.expect_acceptance(key.encode(), lambda: None)
    messages.feed(acceptance(key), 1, 1, 1, Clock.KERNEL)
    turn.begin()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for a, b in itertools.pairwise(edges):
        if a < b and not messages.over:
            messages.feed(data[a:b], 2, 2, 2, Clock.KERNEL)
            messages.take_answer()
    messages.eof(3)
    assert finished == [True]
    error = turn.error
    assert (None if error is None else error.error_class) in BLAMELESS, error
    assert "Error(" not in str(error)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.reply_field}-{shape.end}")
@FUZZ
@given(damage=DAMAGE, cuts=st.lists(st.integers(0, 400), max_size=6))
def test_damaged_messages(shape: Shape, damage: Any, cuts: list[int]) -> None:
    good = so_far("hel") + frame(b"hello", 2) + so_far("hello") + message(END) + message("[DONE]")
    hear(shape, damaged(good, damage), cuts)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.reply_field}-{shape.end}")
@FUZZ
@given(values=st.lists(json_of("response", "history", "status", "done", *MORE_WORDS), min_size=1, max_size=4))
def test_messages_of_its_own_words(shape: Shape, values: list[Any]) -> None:
    hear(shape, b"".join(message(json.dumps(value)) for value in values), [])


# A function


@FUZZ
@given(pieces=st.lists(st.text(max_size=20), max_size=6))
def test_a_functions_pieces(pieces: list[str]) -> None:
    decoder, framer = PROTOCOLS["custom"].decoder(), PROTOCOLS["custom"].framer()
    deltas = [decoder.decode(event) for piece in pieces for event in framer.feed(piece.encode())]
    assert "".join(delta.text for delta in deltas if delta is not None) == "".join(pieces)


# Time


@pytest.mark.parametrize("framer", [SseFramer(), DelimitedFramer(b"\n"), DelimitedFramer(b"\0")], ids=type)
def test_many_small_pieces_of_one_event_take_no_more_time_than_their_size(framer: Framer) -> None:
    """Copying what was there with each piece would take minutes here; this takes a fraction of a second."""
    began = time.thread_time()
    for _ in range(500_000):
        assert framer.feed(b"data: x ") == []
    assert time.thread_time() - began < 20


@FUZZ
@given(
    pieces=st.lists(
        st.sampled_from([b"\n", b"\r", b"\r\n", b"data: a", b":", b"\0", b"event: x", b"\xef"]), max_size=40
    )
)
def test_an_event_cut_anywhere_is_the_same_event(pieces: list[bytes]) -> None:
    for make in (SseFramer, lambda: DelimitedFramer(b"\n"), lambda: DelimitedFramer(b"\0")):
        whole, cut = make(), make()
        expected = [*whole.feed(b"".join(pieces)), whole.finish()]
        got = [event for piece in pieces for event in cut.feed(piece)]
        assert [*got, cut.finish()] == expected
        assert whole.pending == cut.pending
