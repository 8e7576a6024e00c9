"""Chat over a WebSocket where it meets the rest: options, the check before load, a run's rows, the stop of a run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from locust_process import headless, locust
from scripted_server import Peer, scripted
from simulator_process import Running, simulator
from websocket_peer import Socket, message, so_far, speaking

from tokenswarm.errors import OptionError, TargetError
from tokenswarm.options import Options, parse, protocol_of
from tokenswarm.protocols.websocket_chat import Shape, WebSocketChat
from tokenswarm.run import make_transport
from tokenswarm.target import CHECK_ID, Target, check
from tokenswarm.transport.origin import parse_origins

WS = {"protocol": "websocket-chat"}


def test_the_shape_is_as_asked() -> None:
    assert parse(WS, {}).ws == Shape()
    options = parse(
        WS
        | {
            "ws_path": "/chat",
            "ws_query_field": "prompt",
            "ws_history_field": "none",
            "ws_id_field": "id",
            "ws_reply_field": "none",
            "ws_reply": "pieces",
            "ws_end": "[DONE]",
        },
        {},
    )
    shape = Shape("/chat", "prompt", "", "", False, "[DONE]", "id")
    assert options.ws == shape
    protocol = protocol_of(options)
    assert isinstance(protocol, WebSocketChat)
    assert protocol.shape == shape


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"ws_end": "close"}, "--protocol websocket-chat"),
        (WS | {"ws_path": "ws"}, "--ws-path"),
        (WS | {"ws_reply": "all"}, "--ws-reply"),
        (WS | {"ws_end": "response=x"}, "--ws-end"),
        (WS | {"ws_id_field": "query"}, "--ws-id-field"),
        (WS | {"ws_id_field": "max_tokens"}, "--ws-id-field"),
        (WS | {"transport": "portable"}, "--transport fast"),
        (WS | {"no_stream": True}, "--no-stream"),
        (WS | {"header": ["Sec-WebSocket-Extensions: permessage-deflate"]}, "Sec-WebSocket-Extensions"),
    ],
)
def test_options_that_do_not_go_together(given: dict[str, Any], part: str) -> None:
    with pytest.raises(OptionError, match=part):
        parse(given, {})


def checked(url: str, **given: Any) -> Target:
    options = parse(WS | given, {})
    return check(partial(make_transport, options), parse_origins(url), protocol_of(options), options)


def test_other_protocols_do_not_go_over_a_websocket() -> None:
    with pytest.raises(OptionError, match="--protocol openai-chat goes over http"):
        make_transport(Options(), parse_origins("ws://127.0.0.1:9"))


@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_the_check_asks_one_question(scheme: str) -> None:
    asked: list[Any] = []

    def script(socket: Socket) -> None:
        asked.append((socket.request_line, socket.query()))
        socket.send(so_far("hello") + message({"status": 200}))

    with scripted(speaking(script)) as server:
        target = checked(server.url.replace("http", scheme) + "/ws")
    assert asked == [("GET /ws HTTP/1.1", {"query": "Say hello.", "history": [], "max_tokens": 1})]
    assert target.model == "unnamed"


def refusing(status: bytes, body: bytes) -> Any:
    def script(peer: Peer) -> None:
        Socket(peer).handshake()
        peer.send(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    return script


@pytest.mark.parametrize(
    ("status", "body", "part"),
    [
        (b"403 Forbidden", b"", "--ws-path"),
        (b"404 Not Found", b"", "--ws-path"),
        (b"200 OK", b"<html>", "--ws-path"),
        (b"503 Busy", b"no room", "no room"),
    ],
)
def test_the_check_says_why_there_is_no_websocket(status: bytes, body: bytes, part: str) -> None:
    with scripted(refusing(status, body)) as server, pytest.raises(TargetError, match=part):
        checked(server.url)


def test_a_run_of_the_usual_scenario(tmp_path: Path, quick_simulator: Running) -> None:
    load = ("--protocol", "websocket-chat", "-u", "3", "-r", "10", "-t", "2s")
    run = headless(tmp_path, quick_simulator.url.replace("http", "ws"), *load)
    rows = [row for row in run.rows() if row["status"] == "ok"]
    assert {(row["protocol"], row["http_status"], row["headers_ms"]) for row in rows} == {("websocket-chat", "101", "")}
    assert sum(row["conn_reused"] == "false" for row in rows) == 3
    assert ("WS", "/ws") in run.locust_stats()
    assert run.json("run.json")["target"]["host"] == quick_simulator.url.replace("http", "ws")


def test_every_turn_is_found_in_the_servers_log_where_a_field_takes_its_id(tmp_path: Path) -> None:
    with simulator(tmp_path, "--output-tokens", "5") as server:
        load = ("--protocol", "websocket-chat", "-u", "2", "-t", "1s", "--ws-id-field", "id")
        rows = headless(tmp_path, server.url, *load).rows()
        logged = [json.loads(line)["id"] for line in server.log_path.read_text().splitlines()]
    assert len(rows) > 4, "most are not the first of their connection"
    assert sorted(logged) == sorted([CHECK_ID, *(row["id"] for row in rows)])


def test_turns_that_the_stop_cuts_are_rows(tmp_path: Path) -> None:
    with simulator(tmp_path, "--decode-base", "50", "--output-tokens", "1000") as server:
        load = ("--protocol", "websocket-chat", "-u", "4", "-r", "10", "-t", "2s", "-s", "0")
        run = headless(tmp_path, server.url, *load, exit_code=None)
    rows = run.rows()
    assert [row["status"] for row in rows] == ["incomplete"] * 4
    assert all(int(row["chunks"]) > 5 for row in rows)


def test_the_embedded_simulator_speaks_it_too(tmp_path: Path) -> None:
    load = ("--headless", "--protocol", "websocket-chat", "-u", "2", "-r", "5", "-t", "2s")
    with locust(tmp_path, *load) as run:
        assert run.wait() == 0, run.output
    assert {row["name"] for row in run.rows()} == {"/simulator/ws"}


def test_the_doctor_asks_over_a_websocket(quick_simulator: Running) -> None:
    url = quick_simulator.url.replace("http", "ws")
    command = [sys.executable, "-m", "tokenswarm", "doctor", "--host", url, "--protocol", "websocket-chat"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert re.search(r"TTFT .* \d+ chunks within", done.stdout), done.stdout + done.stderr
