"""The simulator over a WebSocket: its shape by another's client, and every fault in the class it belongs to."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from caller import Caller, outcome
from simulator_process import Running, simulator

from tokenswarm.protocols.websocket_chat import Shape, WebSocketChat
from tokenswarm.transport.base import Limits
from tokenswarm.transport.websocket import WebSocketTransport


def talk(url: str, *turns: dict[str, Any], **headers: str) -> list[list[dict[str, Any]]]:
    """The messages of each turn, by aiohttp's client, on one connection."""

    async def conversation() -> list[list[dict[str, Any]]]:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws", headers=headers) as socket:
            replies = []
            for turn in turns:
                await socket.send_json(turn)
                replies.append([await socket.receive_json(timeout=10)])
                while "response" in replies[-1][-1]:
                    replies[-1].append(await socket.receive_json(timeout=10))
            return replies

    return asyncio.run(conversation())


def test_turns_in_chatglms_shape(quick_simulator: Running) -> None:
    first = {"query": "Hello", "max_tokens": 5, "ignore_eos": True}
    second = {"query": "And?", "history": [["Hello", "x"]], "max_tokens": 3, "ignore_eos": True, "id": "named"}
    replies = talk(quick_simulator.url, first, second, **{"X-Request-Id": "mine"})
    assert [len(reply) for reply in replies] == [6, 4]
    for reply, turn in zip(replies, (first, second), strict=True):
        *messages, end = reply
        assert end == {"status": 200}
        texts = [message["response"] for message in messages]
        assert all(later.startswith(text) and later != text for text, later in itertools.pairwise(texts))
        for message in messages:
            history = [*turn.get("history", []), [turn["query"], message["response"]]]
            assert message == {"response": message["response"], "history": history, "status": 202}
    logged = quick_simulator.logged("mine")
    assert (logged["outcome"], logged["output_tokens"], len(logged["sent_ns"])) == ("ok", 5, 5)
    assert sum(logged["chars"]) == len(replies[0][-2]["response"])
    assert quick_simulator.logged("named")["input_tokens"] == 3


def test_what_is_no_request_is_answered_in_a_message(quick_simulator: Running) -> None:
    ((error,), (end,)) = talk(quick_simulator.url, {"prompt": "x"}, {"query": "x", "simulator": {"fault": "empty"}})
    assert (error["status"], end) == (400, {"status": 200})
    assert "query" in error["error"]


@pytest.fixture
def talker(callers: Any) -> Any:
    def make(url: str, extra_body: Any = None, shape: Shape | None = None, **settings: Any) -> Caller:
        limits = Limits(total=1.0, stall=0.4)
        body = {"max_tokens": 6, "ignore_eos": True} | (extra_body or {})
        made: Caller = callers(
            url, limits, WebSocketTransport, protocol=WebSocketChat(shape), extra_body=body, **settings
        )
        return made

    return make


@pytest.mark.parametrize("reading", ["thread"], indirect=True)
@pytest.mark.parametrize(
    ("fault", "error_class"),
    [
        ("none", None),
        ("truncate", "truncated"),
        ("cut-event", "truncated"),
        ("reset", "truncated"),
        ("no-done", "truncated"),
        ("close-delimited", "truncated"),
        ("stream-error", "stream_error"),
        ("malformed", "malformed"),
        ("empty", "empty"),
        ("stall", "stall_timeout"),
        ("silent", "total_timeout"),
        ("status", "stream_error"),
        ("rate-limit", "stream_error"),
        ("reset-early", "truncated"),
        ("wrong-type", "malformed"),
        ("slow", None),
    ],
)
def test_faults_of_a_turn(talker: Any, quick_simulator: Running, fault: str, error_class: str | None) -> None:
    query = {"simulator": {"fault": fault}, "id": f"fault-{fault}"}
    call = talker(quick_simulator.url, query).call()
    assert outcome(call)[1] == error_class
    assert quick_simulator.logged(f"fault-{fault}")["outcome"] == {"none": "ok", "close-delimited": "ok"}.get(
        fault, fault
    )


@pytest.mark.parametrize("reading", ["thread"], indirect=True)
@pytest.mark.parametrize(
    ("fault", "error_class", "status"),
    [
        ("status", "http_5xx", 503),
        ("rate-limit", "rate_limited", 429),
        ("reset-early", "truncated", None),
        ("wrong-type", "malformed", 200),
    ],
)
def test_faults_of_the_handshake(talker: Any, tmp_path: Path, fault: str, error_class: str, status: int | None) -> None:
    with simulator(tmp_path, "--fault", f"{fault}:1") as server:
        call = talker(server.url).call()
    assert (outcome(call)[1], call.exchange.status) == (error_class, status)


@pytest.mark.parametrize("reading", ["thread"], indirect=True)
def test_a_key_is_asked_for_at_the_handshake(talker: Any, tmp_path: Path) -> None:
    with simulator(tmp_path, "--require-key", env={"SIMULATOR_API_KEY": "secret"}) as server:
        refused = talker(server.url).call()
        admitted = talker(server.url, headers={"Authorization": "Bearer secret"}).call()
    assert (outcome(refused)[1], refused.exchange.status) == ("http_4xx", 401)
    assert "API key" in str(refused.exchange.error)
    assert outcome(admitted)[1] is None


@pytest.mark.parametrize("reading", ["thread"], indirect=True)
def test_a_close_may_be_the_end_of_a_turn(talker: Any, quick_simulator: Running) -> None:
    query = {"simulator": {"fault": "close-delimited"}}
    caller = talker(quick_simulator.url, query, Shape(end="close"))
    assert [outcome(caller.call())[1] for _ in range(2)] == [None, None]


@pytest.mark.parametrize("reading", ["thread"], indirect=True)
def test_what_is_sent_late_or_never_is_cancelled_with_the_client(talker: Any, quick_simulator: Running) -> None:
    query = {"max_tokens": 100_000, "id": "left"}  # two milliseconds each
    assert outcome(talker(quick_simulator.url, query).call())[1] == "total_timeout"
    logged = quick_simulator.logged("left")
    assert logged["outcome"] == "cancelled"
    assert 0 < logged["output_tokens"] < 100_000
