"""DashScope on what it sends: incremental by default, the whole text so far where the user asks for that."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_reply import JSON, Served, check_any_events, cuts, json_of

from tokenswarm.protocols.base import Generation, Usage, WireRequest
from tokenswarm.protocols.dashscope import DashScope, DashScopeDecoder

PROTOCOL = DashScope()


def encode(**settings: Any) -> WireRequest:
    return PROTOCOL.encode([{"role": "user", "content": "你好"}], Generation(model="m", **settings))


CUMULATIVE = encode(extra_body={"parameters": {"incremental_output": False}}).decoder
INCREMENTAL = encode().decoder


def result(text: str, finish: str = "null", output_tokens: int = 1, **message: Any) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    usage = {"total_tokens": 26 + output_tokens, "output_tokens": output_tokens, "input_tokens": 26}
    return {"output": {"choices": [choice]}, "usage": usage, "request_id": "r"}


def sse(*values: Any, event: str = "result", status: int = 200) -> bytes:
    """As DashScope writes it: no space after a colon, the status in a comment."""
    texts = (json.dumps(value, ensure_ascii=False) for value in values)
    return "".join(f"id:1\nevent:{event}\n:HTTP_STATUS/{status}\ndata:{text}\n\n" for text in texts).encode()


def served(body: bytes, make: Any = INCREMENTAL, **settings: Any) -> Served:
    return Served(PROTOCOL, body, decoder=make(), **settings)


PIECES = sse(
    result("", reasoning_content="hm", output_tokens=1),
    result("你", output_tokens=2),
    result("", "stop", output_tokens=3),
)
SO_FAR = sse(
    result("", reasoning_content="h"),
    result("", reasoning_content="hm"),
    result("你", reasoning_content=""),
    result("你", reasoning_content=""),
    result("你好"),
    result("你好!", "length", output_tokens=5),
)


@given(cuts(PIECES))
def test_a_stream_cut_anywhere_is_the_same_reply(at: list[int]) -> None:
    found = served(PIECES, cuts=at)
    assert found.said == ("你", "hm", "", "stop", None)
    assert found.reply.usage == Usage(26, 3)
    assert (len(found.line.at), found.line.cumulative) == (2, [1, 2]), "each chunk tells how many tokens there were"


@given(cuts(SO_FAR))
def test_of_a_text_so_far_only_what_is_new_counts(at: list[int]) -> None:
    found = served(SO_FAR, CUMULATIVE, cuts=at)
    assert found.said == ("你好!", "hm", "", "length", None)
    assert found.line.characters == [1, 1, 1, 1, 1], "a text that did not grow is no token"


def test_pieces_that_look_like_a_text_so_far_are_taken_for_what_was_asked() -> None:
    assert served(sse(result("ha"), result("haha"), result("", "stop"))).text == "hahaha"


def test_a_text_so_far_that_forgets_its_beginning_is_malformed() -> None:
    found = served(sse(result("ab"), result("ac")), CUMULATIVE)
    assert found.error_class == "malformed"
    assert "does not begin" in str(found.reply.error)


def test_null_as_a_string_is_no_finish_reason() -> None:
    assert served(sse(result("a"))).said == ("a", "", "", None, "truncated")


def test_tool_calls_are_output() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert served(sse(result("", "tool_calls", tool_calls=[call]))).said == ("", "", "f{}", "tool_calls", None)


def test_the_older_shape_of_a_result() -> None:
    body = sse({"output": {"text": "a", "finish_reason": "null"}}, {"output": {"text": "b", "finish_reason": "stop"}})
    assert served(body).said == ("ab", "", "", "stop", None)


@pytest.mark.parametrize("event", ["error", "result"])
def test_errors_in_a_stream(event: str) -> None:
    error = {"request_id": "r", "code": "Throttling.RateLimit", "message": "slow down"}
    found = served(sse(result("a")) + sse(error, event=event, status=429))
    assert (found.error_class, str(found.reply.error)) == ("stream_error", "slow down (Throttling.RateLimit)")


def test_a_blocked_answer_is_told_apart() -> None:
    error = {"code": "DataInspectionFailed", "message": "Output data may contain inappropriate content."}
    assert served(sse(result("a")) + sse(error, event="error", status=400)).error_class == "content_policy"


@pytest.mark.parametrize(
    ("status", "code", "error_class"),
    [
        (b"401 Unauthorized", "InvalidApiKey", "http_4xx"),
        (b"429 Too Many Requests", "Throttling.RateLimit", "rate_limited"),
        (b"400 Bad Request", "DataInspectionFailed", "content_policy"),
        (b"500 Oops", "InternalError", "http_5xx"),
    ],
)
def test_refusals(status: bytes, code: str, error_class: str) -> None:
    body = json.dumps({"code": code, "message": "no", "request_id": "r"}).encode()
    found = served(body, status=status, content_type=JSON)
    assert found.error_class == error_class
    assert f"no ({code})" in str(found.reply.error)


@pytest.mark.parametrize(
    ("body", "error_class"),
    [
        (b"", "empty"),
        (sse(result("")), "empty"),
        (sse({"output": {"choices": [{}, {}]}}), "malformed"),
        (b"data:[]\n\n", "malformed"),
    ],
)
def test_what_is_no_reply(body: bytes, error_class: str) -> None:
    assert served(body).error_class == error_class


def test_whole_reply() -> None:
    found = served(json.dumps(result("你好", "stop", 7, reasoning_content="hm")).encode(), content_type=JSON)
    assert found.said == ("你好", "hm", "", "stop", None)
    assert found.reply.usage == Usage(26, 7)


def test_a_stream_is_asked_for_by_header_and_incremental() -> None:
    request = encode(max_tokens=5, top_p=0.5, extra_body={"parameters": {"seed": 1}})
    assert request.path == "/api/v1/services/aigc/text-generation/generation"
    assert dict(request.headers) == {"X-DashScope-SSE": "enable"}
    parameters = {"result_format": "message", "incremental_output": True, "max_tokens": 5, "top_p": 0.5, "seed": 1}
    assert json.loads(request.body) == {
        "model": "m",
        "input": {"messages": [{"role": "user", "content": "你好"}]},
        "parameters": parameters,
    }


def test_a_whole_reply_is_asked_for_without_either() -> None:
    request = encode(stream=False)
    assert request.headers == ()
    assert json.loads(request.body)["parameters"] == {"result_format": "message"}


WORDS = (
    *("output", "choices", "message", "content", "reasoning_content", "finish_reason", "usage", "text", "code"),
    *("input_tokens", "output_tokens", "prompt_tokens_details", "tool_calls", "function", "null", "error"),
)


@given(st.lists(json_of(*WORDS), max_size=3), st.binary(max_size=40), st.booleans())
def test_nothing_breaks_it(values: list[Any], junk: bytes, cumulative: bool) -> None:
    check_any_events(PROTOCOL, values, junk, DashScopeDecoder(cumulative))
