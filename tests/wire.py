"""One HTTP response through the exchange that the fast transport uses: whole, cut anywhere, or broken off."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any

from tokenswarm.protocols.base import Decoder, WireProtocol, WireRequest
from tokenswarm.timing import Clock, Tally, Timeline
from tokenswarm.transport.exchange import HttpExchange
from tokenswarm.transport.request import Leaving, Request

MS = 1_000_000
REQUEST_ID = "5b1c0d3e-0000-4000-8000-000000000001"


def request(
    protocol: WireProtocol,
    timeline: Timeline,
    tally: Tally | None = None,
    expect_stream: bool = True,
    wire: WireRequest | None = None,
    on_first_token: Callable[[], None] | None = None,
    decoder: Decoder | None = None,
    leaving: Leaving | None = None,
) -> Request:
    """One request; what is sent matters only to those who send it."""
    return Request(
        protocol=protocol,
        wire=wire or WireRequest("/", b"", "", decoder=None if decoder is None else lambda: decoder),
        id=REQUEST_ID,
        timeline=timeline,
        tally=tally or Tally(),
        on_first_token=on_first_token,
        leaving=leaving,
        expect_stream=expect_stream,
    )


def line(value: Any, end: bytes = b"\n") -> bytes:
    """One frame of JSON."""
    return json.dumps(value, ensure_ascii=False).encode() + end


def response(
    body: bytes, content_type: str = "application/x-ndjson", status: str = "200 OK", chunk: int | None = None
) -> bytes:
    """The bytes of a response; the body in HTTP chunks of this size, or in one."""
    size = chunk or len(body) or 1
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(body[i : i + size]), body[i : i + size]) for i in range(0, len(body), size)
    )
    kind = f"Content-Type: {content_type}\r\n" if content_type else ""
    return f"HTTP/1.1 {status}\r\n{kind}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


def exchanged(protocol: WireProtocol, data: bytes, cuts: Iterable[int] = (), stream: bool = True) -> HttpExchange:
    """What becomes of these bytes, read in pieces a millisecond apart, and of the end of the connection after them."""
    exchange = HttpExchange(request(protocol, Timeline(start=0), expect_stream=stream), lambda: None)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for number, (a, b) in enumerate(itertools.pairwise(edges), 1):
        if a < b:
            exchange.feed(data[a:b], number * MS, number * MS, number * MS, Clock.KERNEL)
    exchange.eof(len(edges) * MS)
    assert exchange.finished
    return exchange


def outcome(exchange: HttpExchange) -> tuple[str, str | None]:
    """(the reply's text, error class)."""
    return "".join(exchange.text), None if exchange.error is None else exchange.error.error_class
