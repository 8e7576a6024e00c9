"""What every wire protocol is made of: a request to encode, a decoder for the reply. No socket, no clock, no Locust."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypedDict

import msgspec

from tokenswarm.errors import RequestError
from tokenswarm.framing import Event, Framer, MessageFramer, SseFramer, parse_event
from tokenswarm.protocols import refusals


class Message(TypedDict):
    """One message of a conversation, as OpenAI's API writes it."""

    role: str
    content: Any


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the model, whatever the protocol. None leaves a setting to the server."""

    model: str
    stream: bool = True
    max_tokens: int | None = None
    ignore_eos: bool = False
    """Have the reply go on to `max_tokens`, where the protocol `ignores_eos`."""
    temperature: float | None = None
    top_p: float | None = None
    extra_body: Mapping[str, Any] = {}
    """Merged into the request's body last, so that it wins."""
    request_id: str = ""
    """For a body that has a place for it; over HTTP it goes out as a header."""


class Decoder(Protocol):
    """Turns the events of one reply into deltas; may keep state. Raises RequestError (`malformed`)."""

    def decode(self, event: Event) -> Delta | None:
        """What one event says; None where it says nothing of interest."""

    def decode_whole(self, body: bytes) -> Delta:
        """What a reply that was not streamed says."""


class WireRequest(msgspec.Struct, frozen=True):
    """A request ready to send; `path` is relative to the target's base path."""

    path: str
    body: bytes
    accept: str
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    """Besides those that every request has."""
    decoder: Callable[[], Decoder] | None = None
    """Makes the decoder for the reply, where the protocol's own would have to know what was asked."""


class Usage(msgspec.Struct, frozen=True):
    """Token counts as the server tells them."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class ServerTimes(msgspec.Struct, frozen=True):
    """How long the server says that it took, milliseconds; None: not told."""

    total_ms: float | None = None
    load_ms: float | None = None
    prompt_ms: float | None = None
    decode_ms: float | None = None


class Vectors(msgspec.Struct, frozen=True):
    """What an embedding request brought: a vector for each of `inputs`, of `size` numbers."""

    inputs: int
    size: int


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
    times: ServerTimes | None = None
    vectors: Vectors | None = None
    """Only in a whole reply."""


class WireProtocol(Protocol):
    """One protocol: stateless, shared by all requests."""

    name: str
    request_type: str
    """Locust's request type: POST, or WS where it goes over a WebSocket, or CALL where a function answers."""
    streams: bool
    """Whether its replies can be streamed."""
    default_model: str | None
    """Asked for where none is named and the server lists none."""
    fewest_tokens: int
    """The smallest `max_tokens` that its servers take."""
    ignores_eos: bool
    """Whether it has a way to ask for a reply of exactly `max_tokens`."""
    ends_by_close: bool
    """Whether a server ends its reply by closing the WebSocket."""

    def listing(self) -> WireRequest | None:
        """The request for the server's list of models, or None where it has none."""

    def credentials(self, key: str) -> dict[str, str]:
        """The headers that carry the API key."""

    def framer(self, parse: Callable[[bytes], Event | None] = parse_event) -> Framer:
        """A fresh framer for one streamed body; `parse` reads one block of lines where that is server-sent events."""

    def preparation(self, model: str) -> WireRequest | None:
        """A request to make before any other, if there must be one: it tells where the model is served."""

    def prepared(self, body: bytes) -> str:
        """The URL in the reply to that. Raises RequestError."""

    def encode(self, messages: Sequence[Message], generation: Generation) -> WireRequest:
        """The request for these messages."""

    def decoder(self) -> Decoder:
        """A fresh decoder, for one reply."""

    def refusal(self, status: int, body: bytes) -> RequestError:
        """Why the server answered with this HTTP status (400 and above)."""

    def models(self, body: bytes) -> list[str]:
        """The names in the reply to `listing`. Raises RequestError (`malformed`)."""


class HttpProtocol:
    """What most protocols over HTTP have in common."""

    request_type = "POST"
    streams = True
    default_model: str | None = None
    fewest_tokens = 1
    ignores_eos = False
    ends_by_close = False

    def listing(self) -> WireRequest | None:
        """As `WireProtocol` has it: none."""
        return None

    def credentials(self, key: str) -> dict[str, str]:
        """As `WireProtocol` has it: a bearer token."""
        return {"Authorization": f"Bearer {key}"}

    def framer(self, parse: Callable[[bytes], Event | None] = parse_event) -> Framer:
        """As `WireProtocol` has it: server-sent events."""
        return SseFramer(parse)

    def preparation(self, model: str) -> WireRequest | None:
        """As `WireProtocol` has it: none."""
        return None

    def prepared(self, body: bytes) -> str:
        """As `WireProtocol` has it: never asked."""
        raise NotImplementedError(body)

    def refusal(self, status: int, body: bytes) -> RequestError:
        """As `WireProtocol` has it: from whichever error envelope the body is."""
        return refusals.from_status(status, body)

    def models(self, body: bytes) -> list[str]:
        """As `WireProtocol` has it: never asked."""
        raise NotImplementedError(body)


class WebSocketProtocol(HttpProtocol):
    """What protocols over a WebSocket have in common. Opening one is HTTP, with its headers and refusals; what follows
    is messages, and a request's body is one of them. Replies are always streamed."""

    request_type = "WS"

    def framer(self, parse: Callable[[bytes], Event | None] = parse_event) -> Framer:
        """As `WireProtocol` has it: the transport has whole messages already."""
        return MessageFramer()
