"""Errors that a server sends with HTTP 200: `stream_error` in its words, whatever the envelope and the protocol."""

from __future__ import annotations

import json
from typing import Any

import pytest
from caller import Caller, answer, outcome
from scripted_server import Peer, scripted
from wire import exchanged, line, response

from tokenswarm.protocols import PROTOCOLS
from tokenswarm.protocols.base import WireProtocol
from tokenswarm.protocols.openai_chat import OpenAIChat
from tokenswarm.transport.portable import PortableTransport

WORDS = "the model is asleep"
ENVELOPES: dict[str, Any] = {
    "OpenAI": {"error": {"message": WORDS, "type": "server_error", "code": 503}},
    "a text under error": {"error": WORDS},
    "FastChat": {"object": "error", "message": WORDS, "code": 50001},
    "FastChat in a frame": {"text": WORDS, "error_code": 50001},
    "FastAPI": {"detail": WORDS},
    "FastAPI's validation": {"detail": [{"loc": ["body"], "msg": WORDS, "type": "value_error"}]},
    "DashScope": {"code": "InvalidParameter", "message": WORDS, "request_id": "r"},
    "DashScope with an output": {"code": "InvalidParameter", "message": WORDS, "output": None},
    "a number as code": {"code": 400, "message": WORDS},
    "Anthropic": {"type": "error", "error": {"type": "overloaded_error", "message": WORDS}},
    "OpenAI's responses": {"type": "error", "message": WORDS, "code": "server_error"},
    "TGI": {"error": WORDS, "error_type": "overloaded"},
    "a message alone": {"message": WORDS},
    "a bare text": WORDS,
}
OVER_HTTP = [protocol for protocol in PROTOCOLS.values() if protocol.request_type == "POST"]

PROTOCOL = pytest.mark.parametrize("protocol", OVER_HTTP, ids=lambda protocol: protocol.name)
ENVELOPE = pytest.mark.parametrize("envelope", ENVELOPES)


@PROTOCOL
@ENVELOPE
def test_a_whole_reply(protocol: WireProtocol, envelope: str) -> None:
    """Whether a stream was asked for or not."""
    body = json.dumps(ENVELOPES[envelope]).encode()
    for kind in ("application/json", "application/json; charset=utf-8", "application/problem+json"):
        for stream in (True, False):
            error = exchanged(protocol, response(body, kind), stream=stream).error
            assert error is not None
            assert error.error_class == "stream_error"
            assert WORDS in str(error)


@PROTOCOL
@pytest.mark.parametrize("envelope", [name for name in ENVELOPES if name not in ("a message alone", "a bare text")])
def test_an_event_of_a_stream(protocol: WireProtocol, envelope: str) -> None:
    if not protocol.streams:
        pytest.skip("it has no streams")
    event = line(ENVELOPES[envelope], b"")
    kind = "text/event-stream"
    if protocol.name.startswith("ollama"):
        body, kind = event + b"\n", "application/x-ndjson"
    else:
        body = event + b"\0" if protocol.name == "fastchat-worker" else b"data: " + event + b"\n\n"
    error = exchanged(protocol, response(body, kind)).error
    assert error is not None
    assert error.error_class == "stream_error"
    assert WORDS in str(error)


@PROTOCOL
@pytest.mark.parametrize("value", [{}, [], None, 7, "", {"code": 0, "data": 7}, {"message": ""}, {"message": 7}])
def test_what_tells_nothing_is_malformed(protocol: WireProtocol, value: Any) -> None:
    error = exchanged(protocol, response(json.dumps(value).encode(), "application/json"), stream=False).error
    assert error is not None
    assert error.error_class == "malformed"


def test_a_refusal_by_policy_stays_one() -> None:
    body = json.dumps({"code": "DataInspectionFailed", "message": WORDS}).encode()
    error = exchanged(PROTOCOLS["dashscope"], response(body, "application/json")).error
    assert error is not None
    assert error.error_class == "content_policy"


@pytest.mark.parametrize("value", [{"code": 200, "message": "ok"}, {"code": "Success", "message": "fine"}])
def test_an_event_that_says_that_all_is_well_is_no_error(value: dict[str, Any]) -> None:
    good = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
    body = b"data: " + json.dumps(value).encode() + b"\n\n" + good + b"data: [DONE]\n\n"
    assert exchanged(OpenAIChat(), response(body, "text/event-stream")).error is None


def test_over_real_sockets(clients: Any) -> None:
    def script(peer: Peer) -> None:
        while peer.request():
            body = json.dumps(ENVELOPES["DashScope"]).encode()
            peer.send(answer(b"200 OK", b"Content-Type: application/json\r\n", body))

    with scripted(script) as server:
        portable: Caller = clients(server.url, protocol=PROTOCOLS["dashscope"], kind=PortableTransport)
        call = portable.call()
    assert outcome(call) == ("", "stream_error")
    assert str(call.exchange.error) == f"{WORDS} (InvalidParameter)"
