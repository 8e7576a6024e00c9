"""What a dialect is: how one protocol asks, and how replies, errors and their ends look in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic

import msgspec

from tokenswarm.simulator.request import ApiError, R, decode

EVENT_STREAM = "text/event-stream; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Times:
    """When it happened, in nanoseconds of CLOCK_MONOTONIC."""

    received_ns: int
    """The request had been read completely."""
    submitted_ns: int
    """It was handed to the engine."""
    prefill_ns: int
    """Its prompt began to be computed."""
    ready_ns: int
    """Its prefill was over."""
    end_ns: int


@dataclass(slots=True)
class Reply:
    """What there is to say besides the text. `finish_reason` is `stop`, `length`, or None if nobody says."""

    id: str
    model: str
    created: int
    input_tokens: int
    length: int
    """Output tokens, of which the first `reasoning` are reasoning."""
    reasoning: int
    finish_reason: str | None
    usage: bool = True
    """Whether a stream tells it, where that has to be asked for."""
    told_share: float = 1.0
    """Of the output tokens, how much is owned up to."""
    ends_well: bool = True
    """False if a fault is to come before the end."""
    cached_tokens: Callable[[], int] | None = None
    """Of the input, out of the prefix cache; asked when the end is encoded. None where there is no such cache."""
    times: Callable[[], Times] | None = None
    """Asked when the end is encoded; None if the engine had nothing to do with it."""

    def told(self, tokens: int) -> int:
        """What usage says after so many output tokens."""
        return int(tokens * self.told_share)

    @property
    def output_tokens(self) -> int:
        """What usage says at the end."""
        return self.told(self.length)

    @property
    def reasoning_tokens(self) -> int:
        """How many of `output_tokens` are said to be reasoning."""
        return min(self.reasoning, self.output_tokens)


class Events(ABC):
    """The events of one streamed reply as the bytes that go to the socket, framed as HTTP chunks if `chunked`.

    A piece is the inside of a JSON string. What can be is encoded once a reply, since `text` runs for every chunk of
    every stream.
    """

    mark: ClassVar[bytes] = b"\n\n"
    """Ends each event, and is never inside one."""

    def __init__(self, reply: Reply, *, chunked: bool) -> None:
        self.reply = reply
        self.chunked = chunked
        self.end = b"0\r\n\r\n" if chunked else b""
        """The end of the body in HTTP's own framing."""

    def frame(self, events: bytes) -> bytes:
        """As one HTTP chunk; nothing stays nothing, since an empty chunk would end the body."""
        return b"%x\r\n%b\r\n" % (len(events), events) if self.chunked and events else events

    @abstractmethod
    def text(self, piece: bytes, reasoning: bool, said: int) -> bytes:
        """An output event; `said` is the output tokens so far, this event's among them."""

    def opening(self, reasoning: bool) -> bytes:
        """What goes before the first output, which is reasoning or not."""
        return b""

    def turn(self) -> bytes:
        """What goes between the reasoning and the answer."""
        return b""

    @abstractmethod
    def closing(self) -> bytes:
        """Finish reason and usage, without the end mark."""

    def done(self) -> bytes:
        """The protocol's own end mark."""
        return b""

    @abstractmethod
    def error(self, error: ApiError) -> bytes:
        """An error in mid-stream, and all that follows it."""

    @abstractmethod
    def malformed(self) -> bytes:
        """An event of broken JSON."""

    def empty(self) -> bytes:
        """A stream that succeeds and says nothing."""
        return self.done()


class Dialect(ABC, Generic[R]):
    """One protocol at one path; one object serves all requests."""

    path: ClassVar[str]
    request_type: type[R]
    stream_type: ClassVar[str] = EVENT_STREAM
    whole_type: ClassVar[str] = "application/json"

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(self.request_type)

    def parse(self, body: bytes) -> R:
        """Raises ApiError 400 that names the field."""
        return decode(self._decoder, body)

    def streams(self, request: R, headers: Mapping[str, str]) -> bool:
        """Whether the reply is to be streamed."""
        return False

    def events(self, reply: Reply, request: R, *, chunked: bool) -> Events:
        """The encoder of one streamed reply; none in a dialect that never streams."""
        raise NotImplementedError

    @abstractmethod
    def whole(self, reply: Reply, request: R, text: str, reasoning: str) -> bytes:
        """The body of a reply that is not streamed."""

    @abstractmethod
    def refusal(self, error: ApiError) -> bytes:
        """The envelope of an error."""

    def key(self, headers: Mapping[str, str]) -> str:
        """The API key that came with a request, in the usual header or in Anthropic's; empty if none did."""
        return headers.get("x-api-key") or headers.get("Authorization", "").removeprefix("Bearer ")


def sse(data: object, event: bytes = b"") -> bytes:
    """One server-sent event, with its type in a line of its own if given."""
    line = b"event: %b\n" % event if event else b""
    return b"%bdata: %b\n\n" % (line, msgspec.json.encode(data))
