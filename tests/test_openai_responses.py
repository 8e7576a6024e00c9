"""OpenAI responses on what real servers send."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_reply import JSON, Served, check_any_events, cuts, json_of, sse

from tokenswarm.protocols.base import Generation, Usage
from tokenswarm.protocols.openai_responses import OpenAIResponses

PROTOCOL = OpenAIResponses()
USAGE = {
    "input_tokens": 5,
    "input_tokens_details": {"cached_tokens": 3},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 2},
}
MESSAGE = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "你好"}]}
THOUGHT = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}


def event(name: str, **more: Any) -> dict[str, Any]:
    return {"type": f"response.{name}", "sequence_number": 1, **more}


def delta(name: str, text: str) -> dict[str, Any]:
    return event(f"{name}.delta", item_id="i", output_index=0, content_index=0, delta=text)


def end(status: str = "completed", **more: Any) -> dict[str, Any]:
    response = {"id": "r", "object": "response", "status": status, "output": [THOUGHT, MESSAGE], "usage": USAGE}
    return event(status, response=response | more)


BEGIN = (
    event("created", response={"status": "queued", "output": [], "error": None}),
    event("in_progress", response={"status": "in_progress", "output": [], "error": None}),
    event("output_item.added", item={"type": "message", "status": "in_progress", "content": []}),
    event("content_part.added", part={"type": "output_text", "text": ""}),
)
REPLY = (
    *BEGIN,
    delta("reasoning_text", "hm"),
    delta("output_text", "你"),
    delta("output_text", ""),
    delta("output_text", "好"),
    event("output_text.done", text="你好"),
    event("content_part.done", part={"type": "output_text", "text": "你好"}),
    event("output_item.done", item=MESSAGE),
    end(),
)
NAMED = sse(*REPLY, names=True)


@given(cuts(NAMED))
def test_a_stream_cut_anywhere_is_the_same_reply(at: list[int]) -> None:
    served = Served(PROTOCOL, NAMED, cuts=at)
    assert served.said == ("你好", "hm", "", "stop", None)
    assert served.reply.usage == Usage(5, 7, 3, 2)
    assert len(served.line.at) == 3, "what repeats the text is no token"


def test_events_need_no_names() -> None:
    assert Served(PROTOCOL, sse(*REPLY)).said == ("你好", "hm", "", "stop", None)


def test_a_done_after_the_end_does_no_harm() -> None:
    assert Served(PROTOCOL, NAMED + b"data: [DONE]\n\n").error_class is None


def test_summaries_of_reasoning_are_reasoning() -> None:
    body = sse(*BEGIN, delta("reasoning_summary_text", "so"), delta("output_text", "a"), end())
    assert Served(PROTOCOL, body).said[:2] == ("a", "so")


def test_function_calls_are_output() -> None:
    item = {"type": "function_call", "name": "f", "arguments": "", "call_id": "c"}
    pieces = (event("output_item.added", item=item), delta("function_call_arguments", '{"a":1}'))
    served = Served(PROTOCOL, sse(*pieces, event("output_item.done", item=item), end(output=[item])))
    assert served.said == ("", "", 'f{"a":1}', "stop", None)
    assert len(served.line.at) == 2


def test_a_reply_that_comes_only_with_the_end_is_one_chunk() -> None:
    served = Served(PROTOCOL, sse(*BEGIN, end()))
    assert served.said == ("你好", "hm", "", "stop", None)
    assert len(served.line.at) == 1


def test_a_reply_that_is_not_repeated_at_the_end_is_whole() -> None:
    assert Served(PROTOCOL, sse(*BEGIN, delta("output_text", "a"), end(output=[]))).said == ("a", "", "", "stop", None)


@pytest.mark.parametrize(
    ("details", "finish"),
    [
        ({"reason": "max_output_tokens"}, "length"),
        ({"reason": "content_filter"}, "content_filter"),
        (None, "incomplete"),
    ],
)
def test_an_incomplete_response_says_why(details: Any, finish: str) -> None:
    body = sse(*BEGIN, delta("output_text", "a"), end("incomplete", incomplete_details=details))
    assert Served(PROTOCOL, body).said == ("a", "", "", finish, None)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (end("failed", error={"code": "server_error", "message": "died"}), "died (server_error)"),
        (end("failed", error=None), "the response was failed"),
        ({"type": "error", "code": "server_error", "message": "died", "param": None}, "died (server_error)"),
        ({"type": "error", "error": {"type": "server_error", "message": "died"}}, "died (server_error)"),
    ],
)
@pytest.mark.parametrize("names", [True, False])
def test_failures(last: dict[str, Any], message: str, names: bool) -> None:
    served = Served(PROTOCOL, sse(*BEGIN, delta("output_text", "a"), last, names=names))
    assert served.error_class == "stream_error"
    assert message in str(served.reply.error)


def test_a_refused_answer_is_told_apart() -> None:
    last = end("failed", error={"code": "content_policy_violation", "message": "no"})
    assert Served(PROTOCOL, sse(*BEGIN, last)).error_class == "content_policy"


@pytest.mark.parametrize(
    ("body", "error_class"),
    [
        (sse(*BEGIN, delta("output_text", "a")), "truncated"),
        (sse(*BEGIN), "empty"),
        (sse(*BEGIN, end(output=[])), "empty"),
        (b"data: [DONE]\n\n", "empty"),
        (b"data: [1]\n\n", "malformed"),
    ],
)
def test_what_is_no_reply(body: bytes, error_class: str) -> None:
    assert Served(PROTOCOL, body).error_class == error_class


def test_whole_reply() -> None:
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    whole = {"object": "response", "status": "completed", "error": None, "output": [THOUGHT, MESSAGE, call]}
    served = Served(PROTOCOL, json.dumps(whole | {"usage": USAGE}).encode(), JSON)
    assert served.said == ("你好", "hm", "f{}", "stop", None)
    assert served.reply.usage == Usage(5, 7, 3, 2)
    cut = whole | {"status": "incomplete", "output": [], "incomplete_details": {"reason": "max_output_tokens"}}
    assert Served(PROTOCOL, json.dumps(cut).encode(), JSON).said == ("", "", "", "length", None)
    failed = whole | {"status": "failed", "error": {"message": "died"}}
    assert Served(PROTOCOL, json.dumps(failed).encode(), JSON).error_class == "stream_error"


def test_encode() -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "你好"}]
    generation = Generation(model="m", max_tokens=16, top_p=0.5, extra_body={"reasoning": {"effort": "low"}})
    request = PROTOCOL.encode(messages, generation)  # type: ignore[arg-type]
    assert request.path == "/v1/responses"
    assert json.loads(request.body) == {
        "model": "m",
        "input": messages,
        "stream": True,
        "max_output_tokens": 16,
        "top_p": 0.5,
        "reasoning": {"effort": "low"},
    }


WORDS = (
    *("type", "delta", "response", "output", "content", "text", "item", "name", "status", "error", "usage", "summary"),
    *("response.output_text.delta", "response.completed", "response.failed", "response.incomplete", "reasoning"),
    *("response.output_item.added", "incomplete_details", "reason", "input_tokens", "message", "incomplete"),
)


@given(st.lists(json_of(*WORDS), max_size=3), st.binary(max_size=40))
def test_nothing_breaks_it(values: list[Any], junk: bytes) -> None:
    check_any_events(PROTOCOL, values, junk)
