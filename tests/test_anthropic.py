"""Anthropic messages on what real servers send."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_reply import JSON, Served, check_any_events, cuts, json_of, sse

from tokenswarm.protocols.anthropic import Anthropic
from tokenswarm.protocols.base import Generation, Usage

PROTOCOL = Anthropic()
PING = {"type": "ping"}


def start(**usage: int) -> dict[str, Any]:
    message = {"id": "m", "type": "message", "role": "assistant", "content": [], "stop_reason": None, "usage": usage}
    return {"type": "message_start", "message": message}


def block(index: int = 0, **content: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": content}


def delta(kind: str, **value: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": kind, **value}}


def end(reason: str = "end_turn", **usage: int) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}


def text(piece: str) -> dict[str, Any]:
    return delta("text_delta", text=piece)


BLOCK_STOP = {"type": "content_block_stop", "index": 0}
STOP = {"type": "message_stop"}
REPLY = (
    start(input_tokens=5, cache_read_input_tokens=3, cache_creation_input_tokens=2, output_tokens=1),
    PING,
    block(type="thinking", thinking="", signature=""),
    delta("thinking_delta", thinking="hm"),
    delta("signature_delta", signature="c2ln"),
    BLOCK_STOP,
    block(1, type="text", text=""),
    text("你"),
    PING,
    delta("citations_delta", citation={"cited_text": "x"}),
    text("好"),
    BLOCK_STOP,
    end(output_tokens=9),
    STOP,
)
NAMED = sse(*REPLY, names=True)


@given(cuts(NAMED))
def test_a_stream_cut_anywhere_is_the_same_reply(at: list[int]) -> None:
    served = Served(PROTOCOL, NAMED, cuts=at)
    assert served.said == ("你好", "hm", "", "stop", None)
    assert served.reply.usage == Usage(10, 9, 3), "what came out of the cache, or went into it, is input as well"
    assert len(served.line.at) == 3, "pings, signatures and citations are no tokens"


def test_events_need_no_names() -> None:
    assert Served(PROTOCOL, sse(*REPLY)).said == ("你好", "hm", "", "stop", None)


def test_tool_use_is_output() -> None:
    pieces = (delta("input_json_delta", partial_json=piece) for piece in ("", '{"a"', ":1}"))
    body = sse(start(), block(type="tool_use", id="t", name="f", input={}), *pieces, end("tool_use"), STOP)
    served = Served(PROTOCOL, body)
    assert served.said == ("", "", 'f{"a":1}', "tool_calls", None)
    assert len(served.line.at) == 3


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
        ("x", "x"),
    ],
)
def test_stop_reasons(reason: str, finish: str) -> None:
    assert Served(PROTOCOL, sse(text("a"), end(reason), STOP)).said == ("a", "", "", finish, None)


def test_what_a_beginning_says_of_the_output_is_no_count() -> None:
    served = Served(PROTOCOL, sse(start(input_tokens=5, output_tokens=1), text("a"), text("b")))
    assert (served.error_class, served.reply.usage) == ("truncated", Usage(5))


@pytest.mark.parametrize("counts", [((5, 0), (0, 7)), ((0, 0), (5, 7)), ((5, 1), (5, 7))])
def test_counts_come_at_either_end(counts: tuple[tuple[int, int], tuple[int, int]]) -> None:
    (first, early), (last, late) = counts
    body = sse(start(input_tokens=first, output_tokens=early), text("a"), end(input_tokens=last, output_tokens=late))
    assert Served(PROTOCOL, body).reply.usage == Usage(5, 7)


@pytest.mark.parametrize("names", [True, False])
def test_an_error_event_ends_the_stream(names: bool) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    served = Served(PROTOCOL, sse(start(), text("a"), error, names=names))
    assert (served.error_class, str(served.reply.error)) == ("stream_error", "Overloaded (overloaded_error)")


@pytest.mark.parametrize(
    ("body", "error_class"),
    [
        (sse(start(), text("a"), BLOCK_STOP), "truncated"),
        (sse(start(), PING), "empty"),
        (sse(start(), STOP), "empty"),
        (sse(start(), end(), STOP), None),
        (b"event: ping\ndata: {\n\n", "malformed"),
    ],
)
def test_what_a_200_was_worth(body: bytes, error_class: str | None) -> None:
    assert Served(PROTOCOL, body).error_class == error_class


@pytest.mark.parametrize(
    ("status", "kind", "error_class"),
    [
        (b"529 Overloaded", "overloaded_error", "http_5xx"),
        (b"429 Too Many Requests", "rate_limit_error", "rate_limited"),
        (b"401 Unauthorized", "authentication_error", "http_4xx"),
    ],
)
def test_refusals(status: bytes, kind: str, error_class: str) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": "no"}}).encode()
    served = Served(PROTOCOL, body, JSON, status)
    assert served.error_class == error_class
    assert f"no ({kind})" in str(served.reply.error)


def test_a_blocked_answer_is_told_apart() -> None:
    error = {"type": "invalid_request_error", "message": "Output blocked by content filtering policy"}
    body = json.dumps({"type": "error", "error": error}).encode()
    assert Served(PROTOCOL, body, JSON, b"400 Bad Request").error_class == "content_policy"


def test_whole_reply() -> None:
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "x"},
        {"type": "text", "text": "你好"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
    ]
    usage = {"input_tokens": 5, "cache_read_input_tokens": 3, "output_tokens": 7}
    body = {"type": "message", "role": "assistant", "content": content, "stop_reason": "max_tokens", "usage": usage}
    served = Served(PROTOCOL, json.dumps(body).encode(), JSON)
    assert served.said == ("你好", "hm", 'f{"a":1}', "length", None)
    assert served.reply.usage == Usage(8, 7, 3)


def test_encode_gives_the_system_prompt_a_field_and_always_a_limit() -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "你好"}]
    request = PROTOCOL.encode(messages, Generation(model="m", temperature=0.5))  # type: ignore[arg-type]
    assert (request.path, dict(request.headers)) == ("/v1/messages", {"anthropic-version": "2023-06-01"})
    assert json.loads(request.body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "你好"}],
        "system": "s",
        "max_tokens": 1024,
        "stream": True,
        "temperature": 0.5,
    }
    limited = PROTOCOL.encode(messages, Generation(model="m", max_tokens=5))  # type: ignore[arg-type]
    assert json.loads(limited.body)["max_tokens"] == 5


def test_the_key_goes_into_its_own_header_and_the_version_is_always_told() -> None:
    assert PROTOCOL.credentials("k") == {"x-api-key": "k"}
    listing = PROTOCOL.listing()
    assert listing is not None
    assert (listing.path, dict(listing.headers)) == ("/v1/models", {"anthropic-version": "2023-06-01"})
    assert PROTOCOL.models(b'{"data":[{"type":"model","id":"a"}],"has_more":false}') == ["a"]


WORDS = (
    *("type", "delta", "message", "usage", "content", "content_block", "text", "thinking", "partial_json", "error"),
    *("message_start", "content_block_start", "content_block_delta", "message_delta", "message_stop", "name"),
    *("stop_reason", "end_turn", "input_tokens", "output_tokens", "cache_read_input_tokens", "input"),
)


@given(st.lists(json_of(*WORDS), max_size=3), st.binary(max_size=40))
def test_nothing_breaks_it(values: list[Any], junk: bytes) -> None:
    check_any_events(PROTOCOL, values, junk)
