"""What a call is given, whatever the transport."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tokenswarm.protocols.base import Decoder, WireProtocol, WireRequest
from tokenswarm.timing import Tally, Timeline


class Leaving(msgspec.Struct, frozen=True):
    """When the user leaves though the reply goes on, whatever comes first; None: not for that. A reply that has ended
    before is whole."""

    after_ns: int | None = None
    """So long after the start. What arrived later is not seen any more, be it that it was read together with what came
    before."""
    chunks: int | None = None
    """At the arrival of this output chunk, counted from 1. It is the last that is seen: of what was read together with
    it, the rest is not."""
    patience_ns: int | None = None
    """So long after the start without any output."""

    def due(self, start: int, output: bool) -> int | None:
        """The instant at which it is time to go, if one is known. `output`: whether some has come."""
        instants = [self.after_ns, None if output else self.patience_ns]
        return min((start + instant for instant in instants if instant is not None), default=None)

    def why(self, enough: bool, at: int, start: int, output: bool) -> str:
        """For people, of somebody who left at that instant. `enough`: because the last chunk was there."""
        if enough:
            return f"the user left with chunk {self.chunks}"
        seconds = f"{(at - start) / 1e9:g} s"
        impatient = not output and self.patience_ns == at - start
        return f"the user left: no output within {seconds}" if impatient else f"the user left after {seconds}"


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
    leaving: Leaving | None = None
    """None: the user stays to the end."""
    expect_stream: bool = True
    """Whether a stream was asked for; a server may answer with a whole reply all the same."""

    def decoder(self) -> Decoder:
        """A fresh decoder for one reply."""
        return self.protocol.decoder() if self.wire.decoder is None else self.wire.decoder()
