"""Chat over a WebSocket: what is asked, and what the messages of every shape mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenswarm.errors import OptionError, RequestError
from tokenswarm.framing import Event
from tokenswarm.protocols.base import Generation, Message
from tokenswarm.protocols.websocket_chat import Shape, WebSocketChat

CHATGLM = Shape()
PIECES = Shape(cumulative=False, end="[DONE]")
PLAIN = Shape(reply_field="", cumulative=False, end="[DONE]")


def said(messages: list[Any], shape: Shape = CHATGLM) -> tuple[list[str], str]:
    """(the pieces of text that came out, how it ended: `done`, an error class, or nothing)."""
    decoder = WebSocketChat(shape).decoder()
    pieces = []
    for message in messages:
        data = message if isinstance(message, bytes) else json.dumps(message, ensure_ascii=False).encode()
        try:
            delta = decoder.decode(Event(data))
        except RequestError as error:
            return pieces, error.error_class
        if delta is None:
            continue
        if delta.text:
            pieces.append(delta.text)
        if delta.error is not None:
            return pieces, delta.error.error_class
        if delta.done:
            return pieces, "done"
    return pieces, ""


def so_far(text: str, status: int = 202) -> dict[str, Any]:
    return {"response": text, "history": [["q", text]], "status": status}


@pytest.mark.parametrize(
    ("end", "last"),
    [
        ({"status": 200}, []),
        (so_far("你好吗", 200), []),
        (so_far("你好吗?", 200), ["?"]),
        ({"status": 200, "response": None, "history": []}, []),
    ],
)
def test_chatglms_text_so_far_gives_what_is_new_in_it(end: dict[str, Any], last: list[str]) -> None:
    messages = [so_far("你"), so_far("你"), so_far("你好"), so_far("你好吗"), end]
    assert said(messages) == (["你", "好", "吗", *last], "done")


def test_the_end_of_a_text_may_be_written_anew() -> None:
    """As ChatGLM does to punctuation and to times, and detokenizers to half a character."""
    assert said([so_far("好,"), so_far("好，中")])[0] == ["好,", "中"]
    assert said([so_far("in [[训练时间"), so_far("in 2023年"), so_far("in 2023年, yes")])[0] == [
        "in [[训练时间",
        " yes",
    ]
    assert said([so_far("a\ufffd"), so_far("a你"), so_far("a你\ufffd\ufffd")])[0] == ["a", "你"]
    assert said([so_far("hello "), so_far("hello"), so_far("hello you")])[0] == ["hello ", "you"]


@pytest.mark.parametrize(
    "texts", [["Hel", "lo ", "wor"], ["The quick", " brown", " fox"], [" a", " brown", " fox"], ["x" * 100, "x" * 10]]
)
def test_pieces_taken_for_the_text_so_far_are_malformed_not_lost(texts: list[str]) -> None:
    assert said([so_far(text) for text in texts])[1] == "malformed"


def test_pieces_and_an_end_text() -> None:
    messages = [{"response": "a"}, {"response": "a"}, {"type": "ping"}, {"response": ""}, {"response": "[DONE]"}]
    assert said(messages, PIECES) == (["a", "a"], "done")
    assert said([*messages[:2], b"[DONE]"], PIECES) == (["a", "a"], "done")


@pytest.mark.parametrize(
    ("end", "closing"),
    [
        ("[DONE]", b"[DONE]"),
        ("[DONE]", b"[DONE]\n"),
        ("status=200", b'{"status": 200}'),
        ("type=end", b'{"type": "end"}'),
        ("done=true", b'{"done": true}'),
    ],
)
def test_plain_text_and_its_ends(end: str, closing: bytes) -> None:
    shape = Shape(reply_field="", cumulative=False, end=end)
    assert said([b"Hel", b"lo", b' {"status": 200}', b'{"a"', closing], shape) == (
        ["Hel", "lo", ' {"status": 200}', '{"a"'],
        "done",
    )


def test_plain_text_so_far() -> None:
    shape = Shape(reply_field="", end="status=200")
    assert said([b"Hel", b"Hello", b'{"status":200}'], shape) == (["Hel", "lo"], "done")


@pytest.mark.parametrize(
    "failure",
    [
        {"error": "CUDA out of memory"},
        {"error": {"message": "CUDA out of memory"}},
        {"detail": "CUDA out of memory"},
        {"status": 500, "message": "CUDA out of memory"},
        {"response": "ha", "status": 500},
        {"response": "ha", "error": "CUDA out of memory", "status": 202},
    ],
)
def test_errors_among_the_messages(failure: dict[str, Any]) -> None:
    assert said([so_far("h"), failure, {"status": 200}]) == (["h"], "stream_error")


@pytest.mark.parametrize("failure", [b'{"error": "dead"}', b'{"status": 500, "message": "dead"}'])
def test_an_error_in_place_of_a_plain_reply(failure: bytes) -> None:
    assert said([failure], PLAIN) == ([], "stream_error")
    assert said([b"as JSON: ", failure], PLAIN)[1] == "", "the model may write such a thing itself"


@pytest.mark.parametrize("data", [b"hello", b"[1]", b'"x"', b"\xff\xfe", b'{"response": "\xff"}', b""])
def test_what_is_no_object_is_malformed(data: bytes) -> None:
    assert said([data]) == ([], "malformed")


def test_plain_text_is_utf8() -> None:
    assert said([b"\xff"], PLAIN) == ([], "malformed")


def test_a_turn_without_a_text_is_empty_and_the_error_names_the_option() -> None:
    delta = WebSocketChat().decoder().decode(Event(b'{"status": 200, "answer": "hi"}'))
    assert delta is not None
    assert delta.error is not None
    assert delta.error.error_class == "empty"
    assert "--ws-reply-field" in str(delta.error)


MESSAGES: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": [{"type": "text", "text": "two"}]},
    {"role": "user", "content": "three"},
]


def body(messages: list[Message], shape: Shape = CHATGLM, **asked: Any) -> Any:
    request = WebSocketChat(shape).encode(messages, Generation(model="m", **asked))
    assert request.path == shape.path
    return json.loads(request.body)


def test_a_query_has_the_turns_before_it() -> None:
    assert body(MESSAGES[1:4]) == {"query": "two", "history": [["one", "1"]]}
    assert body(MESSAGES[1:2]) == {"query": "one", "history": []}


def test_a_system_message_goes_before_the_first_question() -> None:
    assert body(MESSAGES[:2]) == {"query": "Be brief.\n\none", "history": []}
    assert body(MESSAGES) == {"query": "two\n\nthree", "history": [["Be brief.\n\none", "1"]]}


def test_fields_are_named_as_asked_and_limits_go_along_only_if_asked_for() -> None:
    shape = Shape(path="/chat", query_field="prompt", history_field="")
    assert body(MESSAGES[1:4], shape) == {"prompt": "two"}
    assert body(MESSAGES[1:2], max_tokens=5, temperature=0.5, extra_body={"history": [], "user": {"id": 1}}) == {
        "query": "one",
        "history": [],
        "max_tokens": 5,
        "temperature": 0.5,
        "user": {"id": 1},
    }


@pytest.mark.parametrize(
    ("end", "field"),
    [
        ("status=200", ("status", 200)),
        ("done=true", ("done", True)),
        ("type=end", ("type", "end")),
        ("[DONE]", None),
        ("<|end=1|>", None),
        ("close", None),
    ],
)
def test_what_ends_a_turn(end: str, field: Any) -> None:
    assert Shape(end=end).end_field == field
    assert WebSocketChat(Shape(end=end)).ends_by_close == (end == "close")


@pytest.mark.parametrize(
    "shape",
    [
        Shape(path="ws"),
        Shape(query_field="a", history_field="a"),
        Shape(end="response=[DONE]"),
        Shape(reply_field="error"),
        Shape(query_field='"'),
    ],
)
def test_shapes_that_cannot_be(shape: Shape) -> None:
    with pytest.raises(OptionError, match="--ws-"):
        shape.check()


@pytest.mark.parametrize("name", ["status", "text", "end", "a b", "类"])
def test_a_reply_field_may_have_any_name(name: str) -> None:
    shape = Shape(reply_field=name, cumulative=False, end="[DONE]")
    assert said([{name: "a"}, {name: "b"}, b"[DONE]"], shape) == (["a", "b"], "done")


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["response", "history", "status", "error", "detail", "message"]), inner)
    ),
    max_leaves=8,
)
SHAPES = [CHATGLM, PIECES, PLAIN, Shape(reply_field=""), Shape(end="close")]


@given(st.lists(ANY.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20)), st.sampled_from(SHAPES))
def test_no_messages_raise_anything_but_a_request_error(messages: list[bytes], shape: Shape) -> None:
    assert said(messages, shape)[1] in ("", "done", "malformed", "stream_error", "content_policy", "empty")
