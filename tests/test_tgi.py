"""text-generation-inference on what its server sends."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_reply import JSON, Served, check_any_events, cuts, json_of

from tokenswarm.errors import RequestError
from tokenswarm.protocols.base import Generation, Usage
from tokenswarm.protocols.tgi import Tgi

PROTOCOL = Tgi()
DETAILS = {"finish_reason": "length", "generated_tokens": 4, "seed": None, "input_length": 6}


def token(text: str, special: bool = False, **more: Any) -> dict[str, Any]:
    piece = {"id": 193, "text": text, "logprob": -0.007, "special": special}
    return {"index": 1, "token": piece, "generated_text": None, "details": None, **more}


def sse(*values: Any) -> bytes:
    """As TGI writes it: no space after the colon."""
    return b"".join(b"data:" + json.dumps(value, ensure_ascii=False).encode() + b"\n\n" for value in values)


REPLY = sse(token("你"), token(""), token("好"), token("!", generated_text="你好!", details=DETAILS))


@given(cuts(REPLY))
def test_a_stream_cut_anywhere_is_the_same_reply(at: list[int]) -> None:
    served = Served(PROTOCOL, REPLY, cuts=at)
    assert served.said == ("你好!", "", "", "length", None)
    assert served.reply.usage == Usage(6, 4)
    assert len(served.line.at) == 3, "a token that is part of a character is no text yet"


@pytest.mark.parametrize("reason", ["eos_token", "stop_sequence"])
def test_an_end_mark_that_is_a_token_is_not_text(reason: str) -> None:
    last = token("</s>", True, generated_text="a", details={"finish_reason": reason, "generated_tokens": 2})
    served = Served(PROTOCOL, sse(token("<s>", True), token("a"), last))
    assert served.said == ("a", "", "", "stop", None)
    assert served.reply.usage == Usage(None, 2)


def test_the_whole_text_ends_a_stream_without_details() -> None:
    assert Served(PROTOCOL, sse(token("a"), token("b", generated_text="ab"))).said == ("ab", "", "", None, None)


@pytest.mark.parametrize("kind", ["overloaded", "generation", "validation", "incomplete_generation"])
@pytest.mark.parametrize("before", [b"", sse(token("a"))])
def test_errors_in_a_stream_name_their_type(kind: str, before: bytes) -> None:
    served = Served(PROTOCOL, before + sse({"error": "Model is overloaded", "error_type": kind}))
    assert (served.error_class, str(served.reply.error)) == ("stream_error", f"Model is overloaded ({kind})")


@pytest.mark.parametrize(
    ("status", "kind", "error_class"),
    [
        (b"429 Too Many Requests", "overloaded", "rate_limited"),
        (b"422 Unprocessable Entity", "validation", "http_4xx"),
        (b"424 Failed Dependency", "generation", "http_4xx"),
        (b"500 Internal Server Error", "incomplete_generation", "http_5xx"),
    ],
)
def test_refusals(status: bytes, kind: str, error_class: str) -> None:
    served = Served(PROTOCOL, json.dumps({"error": "no", "error_type": kind}).encode(), JSON, status)
    assert served.error_class == error_class
    assert f"no ({kind})" in str(served.reply.error)


@pytest.mark.parametrize(
    ("body", "error_class"),
    [
        (sse(token("a")), "truncated"),
        (sse(token("</s>", True, generated_text="")), "empty"),
        (b"", "empty"),
        (b"data:oops\n\n", "malformed"),
    ],
)
def test_what_is_no_reply(body: bytes, error_class: str) -> None:
    assert Served(PROTOCOL, body).error_class == error_class


def test_whole_reply() -> None:
    body = {"generated_text": "你好", "details": DETAILS | {"input_length": None, "prefill": [{"id": 1}, {"id": 2}]}}
    served = Served(PROTOCOL, json.dumps(body).encode(), JSON)
    assert served.said == ("你好", "", "", "length", None)
    assert served.reply.usage == Usage(2, 4)
    assert Served(PROTOCOL, b'{"error":"no","error_type":"x"}', JSON).error_class == "stream_error"


@pytest.mark.parametrize(("stream", "path"), [(True, "/generate_stream"), (False, "/generate")])
def test_encode(stream: bool, path: str) -> None:
    generation = Generation(
        model="m", stream=stream, max_tokens=5, temperature=0.5, extra_body={"parameters": {"seed": 1}}
    )
    request = PROTOCOL.encode([{"role": "user", "content": "你好"}], generation)
    assert request.path == path
    parameters = {"max_new_tokens": 5, "temperature": 0.5, "details": True, "seed": 1}
    assert json.loads(request.body) == {"inputs": "你好", "parameters": parameters}


def test_greedy_decoding_is_asked_for_as_the_server_takes_it() -> None:
    request = PROTOCOL.encode([{"role": "user", "content": "x"}], Generation(model="m", temperature=0.0, top_p=1.0))
    assert json.loads(request.body)["parameters"] == {"details": True}


def test_models() -> None:
    assert PROTOCOL.models(b'{"model_id":"a","version":"3"}') == ["a"]
    assert PROTOCOL.models(b'{"data":[{"id":"b"}]}') == ["b"]
    for body in (b"{}", b"[]", b"<html>"):
        with pytest.raises(RequestError):
            PROTOCOL.models(body)


WORDS = (
    *("token", "text", "special", "generated_text", "details", "finish_reason", "generated_tokens", "input_length"),
    *("prefill", "error", "error_type", "eos_token"),
)


@given(st.lists(json_of(*WORDS), max_size=3), st.binary(max_size=40))
def test_nothing_breaks_it(values: list[Any], junk: bytes) -> None:
    check_any_events(PROTOCOL, values, junk)
