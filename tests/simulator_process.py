"""Starts the simulator as a process of its own for tests, and talks to it over plain sockets."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

WAIT_SECONDS = 10.0
QUICK = ("--prefill-base", "4", "--decode-base", "2", "--decode-per-seq", "0", "--jitter", "0")


@dataclass
class Running:
    """A simulator that listens, and its send log."""

    process: subprocess.Popen[bytes]
    url: str
    port: int
    log_path: Path

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_SECONDS)

    def post(
        self, body: dict[str, Any] | bytes, headers: dict[str, str] | None = None, path: str = "/v1/chat/completions"
    ) -> http.client.HTTPResponse:
        """Send a request on a connection of its own, a chat if not told otherwise; back once the headers are there."""
        connection = self.connect()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, data, headers or {})
        return connection.getresponse()

    def get(self, path: str) -> http.client.HTTPResponse:
        connection = self.connect()
        connection.request("GET", path)
        return connection.getresponse()

    def metrics(self) -> dict[str, float]:
        lines = self.get("/metrics").read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    def logged(self, request_id: str) -> dict[str, Any]:
        """The request's line in the send log, once it is there."""
        give_up = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < give_up:
            for line in self.log_path.read_text().splitlines():
                record: dict[str, Any] = json.loads(line)
                if record["id"] == request_id:
                    return record
            time.sleep(0.01)
        raise AssertionError(f"no line for {request_id} in the send log")


def chat(**fields: Any) -> dict[str, Any]:
    """A streamed chat request of 8 tokens, changed by `fields`."""
    body: dict[str, Any] = {
        "model": "simulator",
        "messages": [{"role": "user", "content": "How are you?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 8,
        "ignore_eos": True,
    }
    return body | fields


def events(body: bytes) -> list[Any]:
    """The data of each SSE event: parsed JSON, or the text `[DONE]`. Raises ValueError on broken JSON."""
    parts = body.split(b"\n\n")
    assert parts.pop() == b""
    assert all(part.startswith(b"data: ") for part in parts)
    return ["[DONE]" if part == b"data: [DONE]" else json.loads(part[6:]) for part in parts]


def deltas(parsed: list[Any], field: str = "content") -> list[str]:
    """The texts of the events that carry output, in order."""
    choices = [event["choices"][0] for event in parsed if event != "[DONE]" and event.get("choices")]
    return [choice["delta"][field] for choice in choices if choice["delta"].get(field)]


@contextmanager
def simulator(
    folder: Path,
    *options: str,
    quick: bool = True,
    env: dict[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[Running]:
    """A simulator on a free port, ended with the block. `prefix`: words that come before its command line."""
    log = folder / f"sends-{time.monotonic_ns()}.jsonl"
    command = [*prefix, sys.executable, "-m", "tokenswarm.simulator", "--port", "0", "--announce", "--exit-with-stdin"]
    command += ["--log", str(log), *(QUICK if quick else ()), *options]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | (env or {}),
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1].decode()
        url = json.loads(line)["url"]
        yield Running(process, url, urlsplit(url).port or 0, log)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
