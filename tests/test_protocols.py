"""Protocols where they meet the rest: the check before load, headers on the wire, decoders of one request, rows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from caller import Caller, answer, outcome
from locust_process import headless
from scripted_server import END, HEAD, Peer, chunk, scripted

from tokenswarm.options import Options
from tokenswarm.protocols import PROTOCOLS
from tokenswarm.protocols.anthropic import Anthropic
from tokenswarm.protocols.dashscope import DashScope
from tokenswarm.target import check
from tokenswarm.transport.base import Limits
from tokenswarm.transport.http import FastTransport
from tokenswarm.transport.origin import Origins, parse_origin
from tokenswarm.transport.portable import PortableTransport

JSON = b"Content-Type: application/json\r\n"
VECTORS = {"data": [{"embedding": [0.5] * 384}] * 2, "usage": {"prompt_tokens": 50, "total_tokens": 50}}
MODELS = {"data": [{"id": "m"}]}


def stream(*values: Any) -> bytes:
    events = b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)
    return HEAD + chunk(events) + END


REPLIES: Mapping[str, tuple[str, bytes, Any]] = {
    "openai-completions": ("/v1/models", stream({"choices": [{"text": "a", "finish_reason": "stop"}]}), MODELS),
    "openai-embeddings": ("/v1/models", answer(b"200 OK", JSON, json.dumps(VECTORS).encode()), MODELS),
    "openai-responses": ("/v1/models", stream({"type": "response.completed", "response": {"output": []}}), MODELS),
    "anthropic": ("/v1/models", stream({"type": "message_stop"}), MODELS),
    "tgi": ("/info", stream({"token": {"text": "a"}, "generated_text": "a"}), {"model_id": "m"}),
    "dashscope": (
        "/compatible-mode/v1/models",
        stream({"output": {"text": "a", "finish_reason": "stop"}}),
        MODELS,
    ),
}
"""By protocol: where its models are listed, what it answers to a prompt, and what it lists."""


class Asked:
    """A script that answers like one protocol's server, and what it was asked."""

    def __init__(self, name: str) -> None:
        self.listing, self.reply, self.models = REPLIES[name]
        self.requests: list[bytes] = []

    def __call__(self, peer: Peer) -> None:
        while request := peer.request():
            self.requests.append(request)
            if request.startswith(b"GET "):
                known = request.split()[1] == self.listing.encode()
                peer.send(answer(b"200 OK" if known else b"404 No", JSON, json.dumps(self.models).encode()))
            else:
                peer.send(self.reply)

    def posted(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(r.partition(b"\r\n\r\n")[2]) for r in self.requests if r.startswith(b"POST ")]


def connect(origins: Origins) -> FastTransport:
    return FastTransport(origins.each[0], Limits(), {})


@pytest.mark.parametrize("name", REPLIES)
def test_the_check_before_load_finds_the_model_and_gets_a_reply(name: str) -> None:
    asked = Asked(name)
    with scripted(asked) as server:
        found = check(connect, Origins((parse_origin(server.url),)), PROTOCOLS[name], Options(protocol=name))
    (body,) = asked.posted()
    assert (found.model, body.get("model", "m")) == ("m", "m")
    tokens = re.findall(r'"(?:max_tokens|max_output_tokens|max_new_tokens)":(\d+)', msgspec.json.encode(body).decode())
    assert tokens == {"openai-embeddings": [], "openai-responses": ["16"]}.get(name, ["1"])


@pytest.fixture(params=[FastTransport, PortableTransport])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def header_values(request: bytes, name: bytes) -> list[bytes]:
    return re.findall(rb"\r\n" + name + rb": ([^\r]*)", request.partition(b"\r\n\r\n")[0], re.IGNORECASE)


@pytest.mark.parametrize("given", [None, "2099-01-01"])
def test_a_header_of_the_protocol_is_sent_unless_the_user_gives_it(
    callers: Callable[..., Caller], kind: Any, given: str | None
) -> None:
    asked = Asked("anthropic")
    headers = {} if given is None else {"Anthropic-Version": given}
    with scripted(asked) as server:
        callers(server.url, kind=kind, protocol=Anthropic(), headers=headers).call()
    (request,) = asked.requests
    assert header_values(request, b"anthropic-version") == [(given or "2023-06-01").encode()]


@pytest.mark.parametrize(("incremental", "text"), [(True, "aab"), (False, "ab")])
def test_what_was_asked_of_the_stream_decides_how_it_is_read(
    callers: Callable[..., Caller], kind: Any, incremental: bool, text: str
) -> None:
    body = stream({"output": {"text": "a"}}, {"output": {"text": "ab", "finish_reason": "stop"}})

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(body)

    with scripted(script) as server:
        extra = {"parameters": {"incremental_output": incremental}}
        call = callers(server.url, kind=kind, protocol=DashScope(), extra_body=extra).call()
    assert outcome(call) == (text, None)


def test_rows_of_embeddings_tell_inputs_vector_size_and_input_tokens(tmp_path: Path) -> None:
    asked = Asked("openai-embeddings")
    with scripted(asked) as server:
        run = headless(tmp_path, server.url, "--protocol", "openai-embeddings", "-u", "2", "-r", "2", "-t", "2s")
    rows = run.rows()
    assert {(r["status"], r["inputs"], r["vector_size"], r["input_tokens"]) for r in rows} == {("ok", "2", "384", "50")}
    assert {(r["ttft_ms"], r["output_tokens"], r["token_source"]) for r in rows} == {("", "", "")}
    counted = sum(tokens for line in run.intervals() for _, tokens in line["input_tokens"])
    assert counted == 50 * len(rows)
    assert {"model", "input"} == set(asked.posted()[-1])
    rates = run.json("summary.json")["throughput"]
    assert rates["inputs_per_s"] == pytest.approx(2 * rates["requests_per_s"])
    assert "inputs embedded" in run.output
