"""FastChat's worker: NUL frames, the whole text each time, errors in a 200, and the controller that names it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import Peer, scripted
from wire import exchanged, line, outcome, response

from tokenswarm.errors import RequestError, TargetError
from tokenswarm.framing import MAX_EVENT_BYTES, Event
from tokenswarm.options import Options
from tokenswarm.protocols.base import Delta, Generation, Usage
from tokenswarm.protocols.cumulative import MOST_REVISED, CumulativeText
from tokenswarm.protocols.fastchat_worker import FastChatWorker
from tokenswarm.run import make_transport
from tokenswarm.target import check
from tokenswarm.transport.origin import parse_origins

PROTOCOL = FastChatWorker()


def frame(text: str, tokens: int = 0, finish: str | None = None, **more: Any) -> bytes:
    usage = {"prompt_tokens": 4, "completion_tokens": tokens, "total_tokens": 4 + tokens}
    value = {"text": text, "error_code": 0, "usage": usage, "finish_reason": finish, "logprobs": None, **more}
    return line(value, b"\0")


BODY = frame("你", 0) + frame("你好", 2) + frame("你好吗", 4) + frame("你好吗", 4, "length")


def test_only_what_is_new_is_output() -> None:
    exchange = exchanged(PROTOCOL, response(BODY, ""))
    assert (exchange.text, outcome(exchange)[1], exchange.finish_reason) == (["你", "好", "吗"], None, "length")
    assert exchange.usage == Usage(4, 4)
    assert exchange.timeline.cumulative == [0, 2, 4]
    assert exchange.timeline.characters == [1, 1, 1]


@given(st.lists(st.integers(0, len(response(BODY))), max_size=8), st.sampled_from([1, 7, None]))
def test_cuts_anywhere_change_nothing(cuts: list[int], chunk: int | None) -> None:
    exchange = exchanged(PROTOCOL, response(BODY, "", chunk=chunk), cuts)
    assert (exchange.text, outcome(exchange)[1]) == (["你", "好", "吗"], None)


def test_a_stream_that_ends_without_a_reason_is_truncated() -> None:
    assert outcome(exchanged(PROTOCOL, response(frame("a") + frame("ab"), ""))) == ("ab", "truncated")


@pytest.mark.parametrize("before", [b"", frame("a")])
def test_an_error_code_in_a_200_is_an_error_and_its_text_no_output(before: bytes) -> None:
    body = before + line({"text": "**OUT OF MEMORY**", "error_code": 50002}, b"\0")
    exchange = exchanged(PROTOCOL, response(body, ""))
    assert outcome(exchange) == ("a" if before else "", "stream_error")
    assert "OUT OF MEMORY" in str(exchange.error)
    assert "50002" in str(exchange.error)


@pytest.mark.parametrize("data", [b"{broken", b"[]", b"{}", b'{"text":5}', b'{"text":"\xff"}', b"[" * 9999])
def test_frames_that_are_none_are_malformed(data: bytes) -> None:
    assert outcome(exchanged(PROTOCOL, response(frame("a") + data + b"\0", ""))) == ("a", "malformed")


def test_a_whole_reply() -> None:
    exchange = exchanged(PROTOCOL, response(frame("你好", 2, "stop")[:-1], "application/json"), stream=False)
    assert (outcome(exchange), exchange.finish_reason, exchange.usage) == (("你好", None), "stop", Usage(4, 2))
    refused = line({"text": "busy", "error_code": 50006})
    assert outcome(exchanged(PROTOCOL, response(refused, "application/json"), stream=False))[1] == "stream_error"


def test_a_request_as_it_is_sent() -> None:
    generation = Generation(model="m", max_tokens=5, temperature=0.0, top_p=0.9, extra_body={"stop": "###"})
    request = PROTOCOL.encode([{"role": "user", "content": "hi"}], generation)
    assert request.path == "/worker_generate_stream"
    assert json.loads(request.body) == {
        "model": "m",
        "prompt": "hi",
        "echo": False,
        "max_new_tokens": 5,
        "temperature": 0.0,
        "top_p": 0.9,
        "stop": "###",
    }
    whole = PROTOCOL.encode([{"role": "user", "content": "hi"}], Generation(model="m", stream=False))
    assert whole.path == "/worker_generate"


# The text so far


def new_parts(*texts: str) -> list[str]:
    so_far = CumulativeText()
    return [so_far.new_part(text) for text in texts]


def test_an_incomplete_character_waits_until_it_is_whole() -> None:
    assert new_parts("a", "a\ufffd", "a你", "a你\ufffd\ufffd", "a你好") == ["a", "", "你", "", "好"]


def test_a_text_may_lose_its_end_or_write_it_anew() -> None:
    assert new_parts("so it '", "so it's", "so it's me") == ["so it '", "", " me"]
    assert new_parts("the end ###", "the end") == ["the end ###", ""]


@pytest.mark.parametrize("other", ["y" * 200, "y" + "x" * 300, "y" * (MOST_REVISED + 1)])
def test_another_text_is_malformed(other: str) -> None:
    with pytest.raises(RequestError) as caught:
        new_parts("x" * 200, other)
    assert caught.value.error_class == "malformed"


@given(st.lists(st.text(st.characters(exclude_characters="\ufffd", exclude_categories=("Cs",)), max_size=9)))
def test_the_new_parts_are_the_text(pieces: list[str]) -> None:
    so_far = ["".join(pieces[: count + 1]) for count in range(len(pieces))]
    assert new_parts(*so_far) == pieces


# The controller


def served(peer: Peer) -> None:
    """The controller and the worker at one address, as they speak."""
    while request := peer.request():
        path = request.split(b" ")[1]
        body = json.loads(request.partition(b"\r\n\r\n")[2] or b"{}")
        if path == b"/list_models":
            answer = line({"models": ["b", "a"]})
        elif path == b"/get_worker_address":
            host = request.partition(b"Host: ")[2].partition(b"\r\n")[0].decode()
            answer = line({"address": f"http://{host}/worker" if body["model"] == "a" else ""})
        else:
            assert path == b"/worker/worker_generate_stream"
            answer = frame("hi", 0, "length")
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))


def test_the_worker_is_where_the_controller_says() -> None:
    options = Options(protocol="fastchat-worker", model="a")
    with scripted(served) as server:
        found = check(lambda origins: make_transport(options, origins), parse_origins(server.url), PROTOCOL, options)
        assert (found.model, found.origins.url, found.notes) == ("a", f"{server.url}/worker", ())


def test_a_model_without_a_worker_is_refused_in_words() -> None:
    options = Options(protocol="fastchat-worker", model="b")
    with scripted(served) as server, pytest.raises(TargetError, match="no worker for this model"):
        check(lambda origins: make_transport(options, origins), parse_origins(server.url), PROTOCOL, options)


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"address":5}', b"[]"])
def test_an_answer_without_an_address_is_malformed(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        PROTOCOL.prepared(body)
    assert caught.value.error_class == "malformed"


# Whatever comes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "error_code", "usage", "finish_reason", "completion_tokens"]), inner)
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_gives_a_delta_or_a_request_error(value: Any) -> None:
    try:
        delta = PROTOCOL.decoder().decode(Event(json.dumps(value).encode()))
    except RequestError as error:
        assert error.error_class == "malformed"
    else:
        assert delta is None or isinstance(delta, Delta)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_garbage_ends_in_one_classified_error(pieces: list[bytes]) -> None:
    assert outcome(exchanged(PROTOCOL, response(b"".join(pieces), "")))[1] in ("malformed", "empty", "truncated")


def test_a_frame_without_an_end_is_refused() -> None:
    framer = PROTOCOL.framer()
    with pytest.raises(RequestError) as caught:
        for _ in range(MAX_EVENT_BYTES // 1_000_000 + 2):
            framer.feed(b"x" * 1_000_000)
    assert caught.value.error_class == "malformed"
