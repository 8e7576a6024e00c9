"""One user of either transport, without Locust; a certificate authority, and replies that several tests send."""

from __future__ import annotations

import gc
import json
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import trustme
from scripted_server import REPLY, Peer, chunk
from wire import request

from tokenswarm.protocols.base import Generation, WireProtocol
from tokenswarm.protocols.openai_chat import OpenAIChat
from tokenswarm.timing import Tally, Timeline
from tokenswarm.transport.base import Call, Limits
from tokenswarm.transport.http import FastTransport
from tokenswarm.transport.origin import parse_origin
from tokenswarm.transport.reply import ReplyState
from tokenswarm.transport.request import Leaving

PROTOCOL = OpenAIChat()
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"  # delimited by the end of the connection
JSON = b"Content-Type: application/json\r\n"
SSE = b"Content-Type: text/event-stream\r\n"
WHOLE = json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}).encode()
USAGE = chunk(b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n')
TEXT = b'data: {"choices":[{"delta":{"content":"%s"}}]}'
NI = "你".encode()


class Caller:
    """One user's client on a transport, and what its calls tallied."""

    def __init__(
        self,
        url: str,
        limits: Limits | None = None,
        kind: Callable[..., Any] = FastTransport,
        protocol: WireProtocol = PROTOCOL,
        headers: Mapping[str, str] = {"User-Agent": "test"},
        extra_body: Mapping[str, Any] = {},
        model: str = "m",
        max_tokens: int | None = None,
        **settings: Any,
    ) -> None:
        self.transport = kind(parse_origin(url), limits or Limits(), headers, **settings)
        self.protocol = protocol
        self.asked = Generation(model=model, max_tokens=max_tokens, extra_body=extra_body)
        self.client = self.transport.client()
        self.tally = Tally()
        self.leaving: Leaving | None = None
        """Of the calls from now on."""

    def prepare(self, stream: bool = True, prompt: str = "hi") -> Call[ReplyState]:
        generation = msgspec.structs.replace(self.asked, stream=stream)
        wire = self.protocol.encode([{"role": "user", "content": prompt}], generation)
        line = Timeline(time.monotonic_ns())
        return self.client.call(request(self.protocol, line, self.tally, stream, wire, leaving=self.leaving))

    def call(self, stream: bool = True, prompt: str = "hi") -> Call[ReplyState]:
        call = self.prepare(stream, prompt)
        call.run()
        assert call.exchange.finished
        assert call.timeline.end is not None
        return call

    def close(self) -> None:
        self.client.close()
        self.transport.close()


def outcome(call: Call[ReplyState]) -> tuple[str, str | None]:
    """(the reply's text, error class)."""
    error = call.exchange.error
    return "".join(call.exchange.text), None if error is None else error.error_class


def replies(peer: Peer) -> None:
    while peer.request():
        peer.send(REPLY)


def answer(status: bytes, headers: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status, headers, len(body), body)


class Authority:
    """A certificate authority, the bundle a client trusts it by, and both sides' certificates."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.folder = folder
        self.bundle = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.bundle)

    def server(self, name: str = "127.0.0.1", clients: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(name).configure_cert(context)
        if clients:
            # In TLS 1.3 a client learns of a refusal only after it sent its request, if the reset does not outrun it.
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.verify_mode = ssl.CERT_REQUIRED
            self.ca.configure_trust(context)
        return context

    def client(self) -> tuple[str, str]:
        issued = self.ca.issue_cert("user@example.com")
        paths = self.folder / "client.pem", self.folder / "client.key"
        issued.cert_chain_pems[0].write_to_path(paths[0])
        issued.private_key_pem.write_to_path(paths[1])
        return str(paths[0]), str(paths[1])


def alive(*kinds: type) -> list[Any]:
    """What the garbage collector knows of these."""
    return [thing for thing in gc.get_objects() if isinstance(thing, kinds)]
