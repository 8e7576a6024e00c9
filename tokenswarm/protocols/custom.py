"""`--protocol custom`: a function of the user's own in place of a server, `query_model(prompt, max_resp_tokens)`.

Not here: how it is called (transport/function.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from tokenswarm.framing import Event, Framer, parse_event
from tokenswarm.protocols.base import Delta, Generation, HttpProtocol, Message, WireRequest
from tokenswarm.protocols.values import as_prompt

FUNCTION: Final = "query_model"
DEFAULT_MAX_TOKENS: Final = 1024
"""Given as `max_resp_tokens` where --output-tokens asks for none: functions written for a number get one."""
END_MARK: Final = b""
"""Fed as a piece when the function has returned."""


class _PieceFramer:
    """Every piece is an event; none is ever cut."""

    pending = False

    def feed(self, data: bytes) -> list[Event]:
        return [Event(data)]

    def finish(self) -> Event | None:
        return None


class CustomDecoder:
    """Pieces of text are what they are."""

    __slots__ = ()

    def decode(self, event: Event) -> Delta | None:
        """A piece that was yielded, or the end."""
        return Delta(done=True) if event.data == END_MARK else Delta(event.data.decode())

    def decode_whole(self, body: bytes) -> Delta:
        """A text that was returned."""
        return Delta(body.decode())


class Custom(HttpProtocol):
    """The function in the file that --query-model names."""

    name = "custom"
    request_type = "CALL"
    default_model: str | None = FUNCTION

    def encode(self, messages: Sequence[Message], generation: Generation) -> WireRequest:
        """The function's arguments, by name, and whether its pieces are wanted as they come."""
        most = DEFAULT_MAX_TOKENS if generation.max_tokens is None else generation.max_tokens
        body = {"prompt": as_prompt(messages), "max_resp_tokens": most, "stream": generation.stream}
        return WireRequest(FUNCTION, msgspec.json.encode(body), "text/plain")

    def decoder(self) -> CustomDecoder:
        """A decoder for one reply."""
        return CustomDecoder()

    def framer(self, parse: Callable[[bytes], Event | None] = parse_event) -> Framer:
        """What is fed is a piece."""
        return _PieceFramer()
