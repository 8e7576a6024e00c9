"""OpenAI completions on what real servers send."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_reply import JSON, SSE, Served, check_any_events, cuts, json_of, sse

from tokenswarm.protocols.base import Generation, Usage
from tokenswarm.protocols.openai_completions import OpenAICompletions

PROTOCOL = OpenAICompletions()
DONE = b"data: [DONE]\n\n"


def chunk(text: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "text_completion",
        "choices": [{"index": 0, "text": text, "finish_reason": finish}],
    } | more


USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
REPLY = sse(chunk("你"), chunk(""), chunk("好", "length"), {"choices": [], "usage": USAGE}) + DONE


@given(cuts(REPLY))
def test_a_stream_cut_anywhere_is_the_same_reply(at: list[int]) -> None:
    served = Served(PROTOCOL, REPLY, cuts=at)
    assert served.said == ("你好", "", "", "length", None)
    assert served.reply.usage == Usage(5, 2)
    assert len(served.line.at) == 2, "an empty chunk is no token"


def test_an_index_that_counts_tokens_is_still_one_choice() -> None:
    body = sse(chunk("a"), {"choices": [{"index": 1, "text": "b", "finish_reason": "stop"}]})
    assert Served(PROTOCOL, body).said == ("ab", "", "", "stop", None)


@pytest.mark.parametrize(
    ("body", "error_class"),
    [
        (sse(chunk("a")), "truncated"),
        (DONE, "empty"),
        (b"", "empty"),
        (sse(chunk("a"), {"error": {"message": "died"}}) + DONE, "stream_error"),
        (b'event: error\ndata: {"message":"died"}\n\n', "stream_error"),
        (sse({"choices": [{"text": "a"}, {"text": "b"}]}), "malformed"),
        (b"data: {broken\n\n", "malformed"),
    ],
)
def test_what_is_no_reply(body: bytes, error_class: str) -> None:
    assert Served(PROTOCOL, body).error_class == error_class


def test_whole_reply() -> None:
    body = json.dumps(chunk("hi", "stop", usage=USAGE)).encode()
    served = Served(PROTOCOL, body, JSON)
    assert served.said == ("hi", "", "", "stop", None)
    assert served.reply.usage == Usage(5, 2)
    assert Served(PROTOCOL, b'{"error":"x"}', JSON).error_class == "stream_error"


def test_encode_makes_one_text_of_the_messages() -> None:
    request = PROTOCOL.encode([{"role": "user", "content": "你好"}], Generation(model="m", max_tokens=5))
    assert request.path == "/v1/completions"
    assert request.accept == SSE.decode()
    assert json.loads(request.body) == {
        "model": "m",
        "prompt": "你好",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
    }


WORDS = (
    "choices",
    "text",
    "finish_reason",
    "usage",
    "prompt_tokens",
    "completion_tokens",
    "error",
    "message",
    "detail",
)


@given(st.lists(json_of(*WORDS), max_size=3), st.binary(max_size=40))
def test_nothing_breaks_it(values: list[Any], junk: bytes) -> None:
    check_any_events(PROTOCOL, values, junk)
