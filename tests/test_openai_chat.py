"""The OpenAI chat decoder on what real servers send, traps included."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenswarm.errors import RequestError
from tokenswarm.framing import Event
from tokenswarm.protocols.base import Delta, Generation, Usage
from tokenswarm.protocols.openai_chat import OpenAIChat

PROTOCOL = OpenAIChat()


def decode(value: Any, kind: bytes = b"") -> Delta | None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return PROTOCOL.decoder().decode(Event(data, kind))


def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more}


def test_text_is_text() -> None:
    assert decode(chunk({"content": "你好"})) == Delta(text="你好")


@pytest.mark.parametrize("delta", [{"role": "assistant"}, {"role": "assistant", "content": ""}, {"content": None}, {}])
def test_chunks_without_output_say_nothing(delta: dict[str, Any]) -> None:
    assert decode(chunk(delta)) is None


def test_content_beside_the_role_counts() -> None:
    assert decode(chunk({"role": "assistant", "content": "a"})) == Delta(text="a")


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_in_either_field(field: str) -> None:
    assert decode(chunk({field: "hm"})) == Delta(reasoning="hm")


def test_tool_calls_are_output() -> None:
    call = {"index": 0, "id": "x", "function": {"name": "f", "arguments": '{"a"'}}
    assert decode(chunk({"tool_calls": [call]})) == Delta(tool='f{"a"')
    assert decode(chunk({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]})) == Delta(tool=":1}")


def test_content_as_a_list_of_parts() -> None:
    assert decode(chunk({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})) == Delta(
        text="ab"
    )


USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 3}}


@pytest.mark.parametrize(
    "value",
    [
        {"id": "c", "choices": [], "usage": USAGE},
        {"id": "c", "choices": [{"index": 0, "delta": {}}], "usage": USAGE},
        {"id": "c", "usage": USAGE},
    ],
)
def test_usage_wherever_it_comes(value: dict[str, Any]) -> None:
    delta = decode(value)
    assert delta is not None
    assert delta.usage == Usage(5, 7, 3, None)


def test_usage_with_nulls_and_nonsense_is_not_told() -> None:
    delta = decode(chunk({"content": "a"}, usage={"prompt_tokens": None, "completion_tokens": "x"}))
    assert delta is not None
    assert delta.usage is None


def test_done_in_every_spelling() -> None:
    for data in (b"[DONE]", b" [DONE] ", b"[DONE]\n"):
        delta = decode(data)
        assert delta is not None
        assert delta.done


def test_finish_reason() -> None:
    delta = decode({"choices": [{"delta": {}, "finish_reason": "length"}]})
    assert delta is not None
    assert delta.finish_reason == "length"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}}, "EngineCore died"),
        ({"error": "text"}, "text"),
        ({"text": "out of memory", "error_code": 50002}, "out of memory"),
        ({"object": "error", "message": "bad", "code": 40301}, "bad"),
        ({"detail": [{"msg": "field required"}]}, "field required"),
    ],
)
def test_errors_inside_a_200(value: dict[str, Any], message: str) -> None:
    delta = decode(value)
    assert delta is not None
    assert delta.error is not None
    assert delta.error.error_class == "stream_error"
    assert message in str(delta.error)


def test_error_event_type() -> None:
    delta = decode({"message": "overloaded"}, b"error")
    assert delta is not None
    assert delta.error is not None
    assert "overloaded" in str(delta.error)


@pytest.mark.parametrize(
    "data", [b"{not json", b"[1, 2", b'{"choices":[{"delta":{"content":"\xff"}}]}', b"null", b"[]", b"3"]
)
def test_malformed_events(data: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        decode(data)
    assert caught.value.error_class == "malformed"


def test_several_choices_are_refused() -> None:
    with pytest.raises(RequestError, match="n = 1"):
        decode({"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]})


@pytest.mark.parametrize(
    ("status", "body", "error_class", "message"),
    [
        (401, b'{"error":"Unauthorized"}', "http_4xx", "Unauthorized"),
        (404, b'{"error":{"message":"no model x","code":"model_not_found"}}', "http_4xx", "no model x"),
        (422, b'{"detail":"bad"}', "http_4xx", "bad"),
        (429, b"slow down", "rate_limited", "slow down"),
        (500, b"", "http_5xx", "HTTP 500"),
        (400, b'{"error":{"message":"m","code":"content_filter"}}', "content_policy", "m"),
        (400, b'{"code":"DataInspectionFailed","message":"no"}', "content_policy", "no"),
        (503, b"\xff\xfe", "http_5xx", "HTTP 503"),
    ],
)
def test_refusals(status: int, body: bytes, error_class: str, message: str) -> None:
    error = PROTOCOL.refusal(status, body)
    assert (error.error_class, error.http_status) == (error_class, status)
    assert message in str(error)


def test_whole_reply() -> None:
    body = {"choices": [{"message": {"content": "hi", "reasoning": "r"}, "finish_reason": "stop"}], "usage": USAGE}
    delta = PROTOCOL.decoder().decode_whole(json.dumps(body).encode())
    assert (delta.text, delta.reasoning, delta.finish_reason) == ("hi", "r", "stop")
    assert delta.usage is not None
    assert delta.usage.output_tokens == 7


@pytest.mark.parametrize(("body", "error_class"), [(b'{"error":"x"}', "stream_error"), (b'{"a":1}', "malformed")])
def test_whole_reply_that_is_none(body: bytes, error_class: str) -> None:
    delta = PROTOCOL.decoder().decode_whole(body)
    assert delta.error is not None
    assert delta.error.error_class == error_class


def test_encode() -> None:
    generation = Generation(model="m", max_tokens=5, top_p=0.5, extra_body={"ignore_eos": True, "stream_options": None})
    request = PROTOCOL.encode([{"role": "user", "content": "你好"}], generation)
    body = json.loads(request.body)
    assert request.path == "/v1/chat/completions"
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "你好"}],
        "stream": True,
        "stream_options": None,
        "max_tokens": 5,
        "top_p": 0.5,
        "ignore_eos": True,
    }


def test_models() -> None:
    assert PROTOCOL.models(b'{"object":"list","data":[{"id":"a"},{"id":"b"}]}') == ["a", "b"]
    with pytest.raises(RequestError):
        PROTOCOL.models(b"<html>")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "content", "usage", "error", "tool_calls", "function"]), inner
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_gives_a_delta_or_a_request_error(value: Any) -> None:
    try:
        delta = decode(value)
    except RequestError as error:
        assert error.error_class == "malformed"
    else:
        assert delta is None or isinstance(delta, Delta)
