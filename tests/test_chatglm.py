"""ChatGLM's api.py: a question with the turns before it, one whole answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import exchanged, line, outcome, response

from tokenswarm.errors import RequestError
from tokenswarm.protocols.base import Delta, Generation, Message
from tokenswarm.protocols.chatglm import ChatGLM

PROTOCOL = ChatGLM()
REPLY = {"response": "你好", "history": [["hi", "你好"]], "status": 200, "time": "2026-11-20 10:00:00"}


def sent(messages: list[Message], **asked: Any) -> Any:
    return json.loads(PROTOCOL.encode(messages, Generation(model="chatglm", **asked)).body)


def test_a_reply_is_whole_and_ends_itself() -> None:
    exchange = exchanged(PROTOCOL, response(line(REPLY), "application/json"), stream=False)
    assert (outcome(exchange), exchange.timeline.at, exchange.usage) == (("你好", None), [], None)


@given(st.lists(st.integers(0, 300), max_size=6))
def test_cuts_anywhere_change_nothing(cuts: list[int]) -> None:
    data = response(line(REPLY), "application/json", chunk=5)
    assert outcome(exchanged(PROTOCOL, data, cuts, stream=False)) == ("你好", None)


@pytest.mark.parametrize(
    ("body", "error_class"),
    [
        (line({"response": "", "status": 200}), "empty"),
        (line({"response": "oops", "status": 500}), "stream_error"),
        (line({"error": "CUDA out of memory"}), "stream_error"),
        (line({"detail": "x"}), "stream_error"),
        (b"{}", "malformed"),
        (b"null", "malformed"),
        (b"<html>", "malformed"),
        (b"[" * 9999, "malformed"),
    ],
)
def test_what_a_200_was_worth(body: bytes, error_class: str) -> None:
    assert outcome(exchanged(PROTOCOL, response(body, "application/json"), stream=False)) == ("", error_class)


def test_statuses_are_refusals_with_the_servers_own_words() -> None:
    body = b'{"detail":[{"msg":"field required"}]}'
    exchange = exchanged(PROTOCOL, response(body, "application/json", "422 Unprocessable Entity"), stream=False)
    assert outcome(exchange) == ("", "http_4xx")
    assert "field required" in str(exchange.error)


def test_a_question_as_it_is_sent() -> None:
    assert PROTOCOL.encode([], Generation(model="m")).path == "/"
    assert sent([{"role": "user", "content": "hi"}]) == {"prompt": "hi", "history": []}
    body = sent([{"role": "user", "content": "hi"}], temperature=0.5, top_p=0.7, extra_body={"top_k": 1})
    assert body == {"prompt": "hi", "history": [], "temperature": 0.5, "top_p": 0.7, "top_k": 1}


def test_turns_are_pairs_and_a_system_message_belongs_to_the_first_question() -> None:
    messages: list[Message] = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": "a1"},
        {"role": "user", "content": "q2"},
        {"role": "assistant", "content": "a2"},
        {"role": "user", "content": "q3"},
    ]
    assert sent(messages) == {"prompt": "q3", "history": [["S\n\nq1", "a1"], ["q2", "a2"]]}


def test_the_length_leaves_room_for_the_prompt() -> None:
    question: list[Message] = [{"role": "user", "content": "x" * 400}]
    assert sent(question, max_tokens=64)["max_length"] == 64 + 100
    assert sent(question, max_tokens=64, extra_body={"max_length": 2048})["max_length"] == 2048


def test_there_is_nothing_to_stream_and_a_model_need_not_be_named() -> None:
    assert (PROTOCOL.streams, PROTOCOL.default_model, PROTOCOL.listing()) == (False, "chatglm", None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["response", "status", "error", "history"]), inner)
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_gives_a_delta_or_a_request_error(value: Any) -> None:
    try:
        delta = PROTOCOL.decoder().decode_whole(json.dumps(value).encode())
    except RequestError as error:
        assert error.error_class == "malformed"
    else:
        assert isinstance(delta, Delta)
