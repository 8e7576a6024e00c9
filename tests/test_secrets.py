"""A key that a server repeats, whole or cut off, in whatever it says: nowhere but in its own process does it stand."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from caller import JSON, answer
from locust_process import LocustProcess, until_rows
from scripted_server import Peer, scripted
from websocket_peer import Socket, close, message, so_far

from tokenswarm.options import redact
from tokenswarm.protocols import PROTOCOLS

KEY = "sk-verysecret-0123456789"
SAID = f"no such key: {KEY}"
ENV = {"LLM_API_KEY": KEY}
OVER_HTTP = [name for name, protocol in PROTOCOLS.items() if protocol.request_type == "POST"]
KINDS = 5
"""Of what a server may say."""
CUT = json.dumps({"y": "x" * 95 + KEY}).encode()
"""An excerpt of it ends in the middle of the key."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SAID, "no such key: ***"),
        (f"{KEY}, {KEY}", "***, ***"),
        ("not JSON: 'x sk-very'…", "not JSON: 'x ***'…"),
        ('not JSON: "x sk-very"… or so', 'not JSON: "x ***"… or so'),
        ("cut here: sk-verysecret-012345678", "cut here: ***"),
        ("cut here: sk-very…", "cut here: ***…"),
        ("sk-very… sk-very sk-veryx sk-very", "***… sk-very sk-veryx ***"),
        ("begins with sk-very, and goes on", "begins with sk-very, and goes on"),
        ("a risk-", "a risk-"),
        ("", ""),
    ],
)
def test_keys_and_their_beginnings_are_masked(text: str, expected: str) -> None:
    assert redact(text, [KEY]) == expected


def replies(name: str) -> list[bytes]:
    """What a server of this protocol may say, one after another."""
    error = json.dumps({"error": SAID}).encode()
    event = {"ollama-chat": error + b"\n", "ollama-generate": error + b"\n", "fastchat-worker": error + b"\0"}.get(name)
    stream = b"Content-Type: application/octet-stream\r\n"
    return [
        answer(b"401 Unauthorized", JSON, json.dumps({"error": {"message": SAID}}).encode()),
        answer(b"500 Oops", b"", SAID.encode()),
        answer(b"200 OK", JSON, error),
        answer(b"200 OK", stream, event or b"data: " + error + b"\n\n"),
        answer(b"200 OK", JSON, CUT),
    ]


def loaded(folder: Path, host: str, *options: str) -> LocustProcess:
    """A run that is stopped once it has a row of each kind."""
    return until_rows(folder, host, KINDS, "-u", "1", "--no-check", "--save-responses", *options, env=ENV)


def clean(run: LocustProcess) -> list[str]:
    """The errors in the rows, in which the key was; and it is nowhere."""
    for file in [*run.run_dir.iterdir(), run.output_path]:
        assert KEY[:8].encode() not in file.read_bytes(), file
    return [row["error"] for row in run.rows() if row["status"] != "incomplete"]


@pytest.mark.slow
@pytest.mark.parametrize("name", OVER_HTTP)
def test_whatever_a_server_says_of_the_key_is_masked(tmp_path: Path, name: str) -> None:
    numbers = itertools.count()

    def script(peer: Peer) -> None:
        while request := peer.request():
            path = request.split(b" ", 2)[1].decode()
            if path == "/get_worker_address":
                host = request.partition(b"\r\nHost: ")[2].partition(b"\r\n")[0].decode()
                peer.send(answer(b"200 OK", JSON, json.dumps({"address": f"http://{host}"}).encode()))
            else:
                peer.send(replies(name)[next(numbers) % KINDS])

    with scripted(script) as server:
        errors = clean(loaded(tmp_path, server.url, "--protocol", name, "--model", "m"))
    assert all("***" in error for error in errors), {error for error in errors if "***" not in error}


@pytest.mark.slow
def test_whatever_a_websocket_says_of_the_key_is_masked(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        socket = Socket(peer)
        if peer.number % KINDS == 0:
            socket.handshake()
            peer.send(answer(b"401 Unauthorized", JSON, json.dumps({"detail": SAID}).encode()))
            return
        socket.accept()
        socket.query()
        sent = [message({"error": SAID}), message({"status": 500, "message": SAID}), message(f"[{'x' * 100}{KEY}"), b""]
        socket.send(sent[peer.number % KINDS - 1] or close(1008, SAID))
        peer.stop.wait(1)

    with scripted(script) as server:
        errors = clean(loaded(tmp_path, server.url, "--protocol", "websocket-chat"))
    assert all("***" in error for error in errors), errors


def test_a_function_that_tells_the_key_is_masked_in_the_rows(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import os\ndef query_model(prompt, n):\n    yield ''\n"
        "    raise ValueError('no such key: ' + os.environ['LLM_API_KEY'])\n"
    )
    run = loaded(tmp_path, "http://unused", "--protocol", "custom", "--query-model", "mine.py")
    assert {row["error"] for row in run.rows()} == {"ValueError: no such key: ***"}
    assert all(KEY.encode() not in file.read_bytes() for file in run.run_dir.iterdir()), "what it printed is its own"


def test_a_reply_that_repeats_the_key_is_saved_without_it(tmp_path: Path) -> None:
    def script(socket: Socket) -> None:
        while True:
            socket.query()
            socket.send(so_far(f"your key is {KEY}.") + message({"status": 200}))

    def talk(peer: Peer) -> None:
        socket = Socket(peer)
        socket.accept()
        script(socket)

    with scripted(talk) as server:
        run = loaded(tmp_path, server.url, "--protocol", "websocket-chat")
    assert '"your key is ***."' in (run.run_dir / "responses.jsonl").read_text()
    clean(run)
