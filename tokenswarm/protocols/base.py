"""What every wire protocol is made of: a request to encode, a decoder for the reply. No socket, no clock, no Locust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypedDict

import msgspec

from tokenswarm.errors import RequestError
from tokenswarm.framing import Event


class Message(TypedDict):
    """One message of a conversation, as OpenAI's API writes it."""

    role: str
    content: Any


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the model, whatever the protocol. None leaves a setting to the server."""

    model: str
    stream: bool = True
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    extra_body: Mapping[str, Any] = {}
    """Merged into the request's body last, so that it wins."""


class WireRequest(msgspec.Struct, frozen=True):
    """A request ready to send; `path` is relative to the target's base path."""

    path: str
    body: bytes
    accept: str
    method: str = "POST"


class Usage(msgspec.Struct, frozen=True):
    """Token counts as the server tells them."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Delta(msgspec.Struct):
    """What one event of a stream, or one whole reply, carries. `tool` is the text of tool calls."""

    text: str = ""
    reasoning: str = ""
    tool: str = ""
    usage: Usage | None = None
    finish_reason: str | None = None
    done: bool = False
    """The protocol's own end mark."""
    error: RequestError | None = None


class Decoder(Protocol):
    """Turns the events of one reply into deltas; may keep state. Raises RequestError (`malformed`)."""

    def decode(self, event: Event) -> Delta | None:
        """What one event says; None where it says nothing of interest."""

    def decode_whole(self, body: bytes) -> Delta:
        """What a reply that was not streamed says."""


class WireProtocol(Protocol):
    """One protocol: stateless, shared by all requests."""

    name: str
    request_type: str
    """Locust's request type: POST or WS."""
    models_path: str | None
    """Where the server lists its models, or None."""

    def encode(self, messages: Sequence[Message], generation: Generation) -> WireRequest:
        """The request for these messages."""

    def decoder(self) -> Decoder:
        """A fresh decoder, for one reply."""

    def refusal(self, status: int, body: bytes) -> RequestError:
        """Why the server answered with this HTTP status (400 and above)."""

    def models(self, body: bytes) -> list[str]:
        """The names in a reply of `models_path`. Raises RequestError (`malformed`)."""
