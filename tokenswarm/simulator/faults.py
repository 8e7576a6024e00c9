"""What can be made to go wrong on purpose, and how a request or the command line asks for it."""

from __future__ import annotations

import random
from typing import Annotated, Final, Literal

import msgspec

FaultKind = Literal[
    "none",
    "status",
    "truncate",
    "reset",
    "no-done",
    "stream-error",
    "malformed",
    "empty",
    "stall",
    "silent",
    "close-delimited",
    "half-usage",
    "zero-usage",
    "reset-early",
    "cut-event",
    "slow",
    "rate-limit",
    "wrong-type",
]

MEANINGS: Final[dict[FaultKind, str]] = {
    "status": "an HTTP error (503, or what the request asks for) with the protocol's envelope",
    "truncate": "the connection is closed after some chunks, without the terminator",
    "reset": "the connection is reset (RST) after some chunks",
    "no-done": "the body ends cleanly, but without the protocol's end mark ([DONE] for OpenAI's)",
    "stream-error": "an error object in the stream after status 200",
    "malformed": "one event of broken JSON, then the rest as usual",
    "empty": "status 200 and the end mark, no content, no finish_reason",
    "stall": "nothing more is sent after some chunks; the connection stays open",
    "silent": "the request is read and never answered",
    "close-delimited": "no fault: the body's end is the connection's end, without chunked encoding",
    "half-usage": "the reply is whole, but usage tells half of its tokens",
    "zero-usage": "the reply is whole, but usage tells that it had no tokens",
    "reset-early": "the connection is reset (RST) before any header",
    "cut-event": "the connection is closed in the middle of an event, after some chunks",
    "slow": "after some chunks the bytes come in dribs of 16, 50 times a second",
    "rate-limit": "status 429 with Retry-After",
    "wrong-type": "status 200 and an HTML page",
}
KINDS: Final = tuple(MEANINGS)
TOLD_TOKENS: Final[dict[FaultKind, float]] = {"none": 1.0, "close-delimited": 1.0, "half-usage": 0.5, "zero-usage": 0.0}
"""The share of its output tokens that usage tells, of each kind with which a reply comes whole."""
DEFAULT_AFTER: Final = 3


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """The `simulator` field of a request: which fault, after how many output chunks, with which HTTP status.

    A fault whose time does not come before the reply is complete happens at its end.
    """

    fault: FaultKind = "none"
    after: Annotated[int, msgspec.Meta(ge=0)] | None = None
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] = 503

    @property
    def after_chunks(self) -> int | None:
        """Output chunks sent before it happens; None for only at the end."""
        if self.after is None:
            return None if self.fault == "no-done" else DEFAULT_AFTER
        return self.after


class FaultRate(msgspec.Struct, frozen=True):
    """A server-wide fault: its kind, and the share of requests (0 to 1) that meet it."""

    kind: FaultKind
    rate: float


def parse_rate(text: str) -> FaultRate:
    """`truncate:0.05`. Raises ValueError with what is wrong and what would be right."""
    kind, colon, number = text.partition(":")
    if kind not in MEANINGS:
        raise ValueError(f"{kind!r} is no fault; the faults are {', '.join(KINDS)}")
    try:
        rate = float(number)
    except ValueError:
        rate = -1.0
    if not colon or not 0.0 <= rate <= 1.0:
        raise ValueError(f"{text!r}: write KIND:RATE with a rate from 0 to 1, as in {kind}:0.05")
    return FaultRate(kind, rate)


def draw(rates: tuple[FaultRate, ...], random_source: random.Random) -> Fault:
    """The fault of one request; at most one, with the given probabilities in the order given."""
    point = random_source.random()
    for each in rates:
        if point < each.rate:
            return Fault(fault=each.kind)
        point -= each.rate
    return Fault()
