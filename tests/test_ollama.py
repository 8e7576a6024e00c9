"""Ollama's two APIs: lines as the server writes them, errors before and in a stream, its own durations."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import exchanged, line, outcome, response

from tokenswarm.errors import RequestError
from tokenswarm.framing import Event
from tokenswarm.protocols import PROTOCOLS
from tokenswarm.protocols.base import Delta, Generation, Message, ServerTimes, Usage
from tokenswarm.protocols.ollama import OllamaChat, OllamaGenerate

CHAT, GENERATE = OllamaChat(), OllamaGenerate()
USER: list[Message] = [{"role": "user", "content": "你好"}]
DURATIONS = {
    "total_duration": 5_000_000_000,
    "load_duration": 1_000_000_000,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 500_000_000,
    "eval_count": 3,
    "eval_duration": 1_250_000,
}


def message(content: str = "", done: bool = False, **more: Any) -> dict[str, Any]:
    """A line of /api/chat."""
    extra = {name: more.pop(name) for name in ("thinking", "tool_calls") if name in more}
    said = {"role": "assistant", "content": content, **extra}
    return {"model": "m", "created_at": "2026-11-20T10:00:00Z", "message": said, "done": done, **more}


def piece(text: str = "", done: bool = False, **more: Any) -> dict[str, Any]:
    """A line of /api/generate."""
    return {"model": "m", "created_at": "2026-11-20T10:00:00Z", "response": text, "done": done, **more}


def decode(value: Any) -> Delta | None:
    return CHAT.decoder().decode(Event(value if isinstance(value, bytes) else line(value).rstrip(b"\n")))


CHAT_BODY = (
    line(message(thinking="hm"))
    + line(message("你"))
    + line(message("好"))
    + line(message(done=True, done_reason="stop", **DURATIONS))
)
GENERATE_BODY = (
    line(piece(thinking="hm"))
    + line(piece("你"))
    + line(piece("好"))
    + line(piece(done=True, done_reason="stop", context=[1, 2, 3], **DURATIONS))
)


@pytest.mark.parametrize(("protocol", "body"), [(CHAT, CHAT_BODY), (GENERATE, GENERATE_BODY)])
def test_a_stream_and_what_the_server_says_of_it(protocol: OllamaChat, body: bytes) -> None:
    exchange = exchanged(protocol, response(body))
    assert (outcome(exchange), exchange.finish_reason) == (("你好", None), "stop")
    assert (exchange.reasoning, exchange.saw_reasoning) == (["hm"], True)
    assert exchange.usage == Usage(26, 3)
    assert exchange.times == ServerTimes(5000.0, 1000.0, 500.0, 1.25), "milliseconds, of nanoseconds"
    assert len(exchange.timeline.at) == 3, "thoughts are output, the last line is none"


@given(st.lists(st.integers(0, len(response(CHAT_BODY))), max_size=8), st.sampled_from([1, 7, None]))
def test_cuts_anywhere_change_nothing(cuts: list[int], chunk: int | None) -> None:
    exchange = exchanged(CHAT, response(CHAT_BODY, chunk=chunk), cuts)
    assert (outcome(exchange), len(exchange.timeline.at)) == (("你好", None), 3)


@given(st.integers(0, len(response(CHAT_BODY)) - 8))
def test_a_connection_that_breaks_before_the_last_line_is_truncated(end: int) -> None:
    data = response(CHAT_BODY)
    exchange = exchanged(CHAT, data[:end])
    whole = data[:end].count(b"\n{") == 3 and data[:end].rstrip().endswith(b"}")
    assert whole or outcome(exchange)[1] == "truncated"


def test_a_last_line_without_its_line_end_counts() -> None:
    assert outcome(exchanged(CHAT, response(CHAT_BODY.rstrip(b"\n")))) == ("你好", None)


def test_a_stream_without_a_last_line_is_truncated() -> None:
    assert outcome(exchanged(CHAT, response(line(message("a"))))) == ("a", "truncated")


def test_an_error_in_mid_stream_is_a_line_without_done() -> None:
    exchange = exchanged(CHAT, response(line(message("a")) + line({"error": "an error was encountered"})))
    assert outcome(exchange) == ("a", "stream_error")
    assert "an error was encountered" in str(exchange.error)


def test_an_error_beside_a_message_is_an_error() -> None:
    delta = decode(message("a", error="out of memory"))
    assert delta is not None
    assert str(delta.error) == "out of memory"


def test_thoughts_by_another_name() -> None:
    said = {"role": "assistant", "content": "", "reasoning_content": "hm"}
    assert decode({"model": "m", "message": said, "done": False}) == Delta(reasoning="hm")
    assert decode(piece(reasoning_content="hm")) == Delta(reasoning="hm")


@pytest.mark.parametrize(
    ("status", "error_class"),
    [("404 Not Found", "http_4xx"), ("429 Too Many", "rate_limited"), ("503 Busy", "http_5xx")],
)
def test_an_error_before_any_output_has_a_status(status: str, error_class: str) -> None:
    exchange = exchanged(CHAT, response(b'{"error":"model \\"x\\" not found"}', "application/json", status))
    assert outcome(exchange) == ("", error_class)
    assert 'model "x" not found' in str(exchange.error)


def test_what_is_missing_beside_a_total_is_zero() -> None:
    delta = decode(message(done=True, done_reason="length", total_duration=7_000_000, eval_count=1))
    assert delta is not None
    assert delta.times == ServerTimes(7.0, 0.0, 0.0, 0.0)
    assert delta.usage == Usage(None, 1), "older servers leave a cached prompt's count out: that is not 0"


@pytest.mark.parametrize("total", [None, "5s", True, -1, {}])
def test_durations_that_are_none_are_not_told(total: Any) -> None:
    delta = decode(message(done=True, total_duration=total, load_duration=1))
    assert delta == Delta(done=True)


def test_durations_of_zero_are_told() -> None:
    delta = decode(message(done=True, **dict.fromkeys(DURATIONS, 0)))
    assert delta is not None
    assert (delta.times, delta.usage) == (ServerTimes(0.0, 0.0, 0.0, 0.0), Usage(0, 0))


@pytest.mark.parametrize("value", [message(), piece(), {}, {"status": "loading"}])
def test_lines_without_output_say_nothing(value: dict[str, Any]) -> None:
    assert decode(value) is None


def test_tool_calls_are_output_as_they_were_written() -> None:
    calls = [{"function": {"name": "f", "arguments": {"a": 1}}}, {"function": {"name": "g"}}]
    assert decode(message(tool_calls=calls)) == Delta(tool='f{"a": 1}g')


@pytest.mark.parametrize("reason", ["stop", "length", "load"])
def test_the_reason_is_as_told(reason: str) -> None:
    exchange = exchanged(GENERATE, response(line(piece("a")) + line(piece(done=True, done_reason=reason))))
    assert (outcome(exchange), exchange.finish_reason) == (("a", None), reason)


def test_an_end_without_a_reason_or_output_is_empty() -> None:
    assert outcome(exchanged(CHAT, response(line(message(done=True))))) == ("", "empty")


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        (CHAT, message("你好", True, thinking="hm", done_reason="stop", **DURATIONS)),
        (GENERATE, piece("你好", True, thinking="hm", done_reason="stop", **DURATIONS)),
    ],
)
def test_whole_replies(protocol: OllamaChat, body: dict[str, Any]) -> None:
    exchange = exchanged(protocol, response(line(body), "application/json; charset=utf-8"), stream=False)
    assert (outcome(exchange), exchange.reasoning, exchange.finish_reason) == (("你好", None), ["hm"], "stop")
    assert exchange.usage == Usage(26, 3)
    assert exchange.times is not None


@pytest.mark.parametrize(("body", "error_class"), [(b'{"error":"x"}', "stream_error"), (b"{}", "malformed")])
def test_whole_replies_that_are_none(body: bytes, error_class: str) -> None:
    assert outcome(exchanged(CHAT, response(body, "application/json"), stream=False)) == ("", error_class)


@pytest.mark.parametrize("data", [b"{broken", b"[]", b"null", b'{"message":5}', b'{"response":"\xff"}', b"[" * 9999])
def test_lines_that_are_none_are_malformed(data: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        decode(data)
    assert caught.value.error_class == "malformed"


def test_a_chat_as_it_is_sent() -> None:
    generation = Generation(
        model="m", max_tokens=5, temperature=0.5, top_p=0.9, extra_body={"options": {"top_k": 3}, "think": True}
    )
    request = CHAT.encode(USER, generation)
    assert (request.path, request.accept) == ("/api/chat", "application/x-ndjson")
    assert json.loads(request.body) == {
        "model": "m",
        "messages": USER,
        "stream": True,
        "options": {"num_predict": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 3},
        "think": True,
    }


def test_a_generation_as_it_is_sent() -> None:
    messages: list[Message] = [{"role": "system", "content": "Be brief."}, *USER]
    request = GENERATE.encode(messages, Generation(model="m", stream=False))
    assert request.path == "/api/generate"
    expected = {"model": "m", "system": "Be brief.", "prompt": "你好", "stream": False}
    assert json.loads(request.body) == expected, "nothing was asked, and to stream must be refused in words"


def test_the_models_that_were_pulled() -> None:
    listing = CHAT.listing()
    assert listing is not None
    assert (listing.method, listing.path) == ("GET", "/api/tags")
    assert CHAT.models(b'{"models":[{"name":"a:latest","size":1},{"name":"b:7b"}]}') == ["a:latest", "b:7b"]
    for body in (b"<html>", b'{"data":[]}', b"[]"):
        with pytest.raises(RequestError):
            CHAT.models(body)


def test_both_are_registered() -> None:
    assert {"ollama-chat", "ollama-generate"} <= set(PROTOCOLS)


WORDS = ["message", "content", "response", "thinking", "tool_calls", "function", "arguments", "done", "error"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*WORDS, "total_duration", "eval_count"]), inner)
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_gives_a_delta_or_a_request_error(value: Any) -> None:
    for decoded in (lambda data: CHAT.decoder().decode(Event(data)), CHAT.decoder().decode_whole):
        try:
            delta = decoded(json.dumps(value).encode())
        except RequestError as error:
            assert error.error_class == "malformed"
        else:
            assert delta is None or isinstance(delta, Delta)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_garbage_ends_in_one_classified_error(pieces: list[bytes]) -> None:
    assert outcome(exchanged(CHAT, response(b"".join(pieces))))[1] in ("malformed", "empty", "truncated")
