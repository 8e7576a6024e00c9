"""What a call is given, whatever the transport."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tokenswarm.protocols.base import Decoder, WireProtocol, WireRequest
from tokenswarm.timing import Tally, Timeline


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a user's: what to send, how its reply is read, and who learns of it."""

    protocol: WireProtocol
    wire: WireRequest
    id: str
    """Goes out as X-Request-Id."""
    timeline: Timeline
    """Where its instants are noted."""
    tally: Tally
    """Where arrivals are counted."""
    on_first_token: Callable[[], None] | None = None
    expect_stream: bool = True
    """Whether a stream was asked for; a server may answer with a whole reply all the same."""

    def decoder(self) -> Decoder:
        """A fresh decoder for one reply."""
        return self.protocol.decoder() if self.wire.decoder is None else self.wire.decoder()
