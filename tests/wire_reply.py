"""Whole HTTP replies through a protocol's exchange, cut where a test wants; JSON and bytes to try decoders with."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st
from wire import request

from tokenswarm.protocols.base import Decoder, WireProtocol
from tokenswarm.timing import Clock, Timeline
from tokenswarm.transport.exchange import HttpExchange

SSE = b"text/event-stream"
JSON = b"application/json"


class Served:
    """How an exchange took a reply, a millisecond a piece. `at` are the milliseconds of its output chunks."""

    def __init__(
        self,
        protocol: WireProtocol,
        body: bytes,
        content_type: bytes = SSE,
        status: bytes = b"200 OK",
        cuts: Iterable[int] = (),
        decoder: Decoder | None = None,
        broken: bool = False,
    ) -> None:
        """`broken`: the connection closes before the body is whole."""
        self.finished = 0
        self.line = Timeline(start=0)
        asked = request(protocol, self.line, expect_stream=protocol.streams, decoder=decoder)
        self.reply = HttpExchange(asked, self._finish)
        length = len(body) + broken
        head = b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (status, content_type, length)
        edges = [0, *sorted(cuts), len(body)]
        for number, piece in enumerate([head, *(body[a:b] for a, b in itertools.pairwise(edges))]):
            if piece:
                at = number * 1_000_000
                self.reply.feed(piece, at, at, at, Clock.KERNEL)
        self.reply.eof(len(edges) * 1_000_000)
        assert self.finished == 1

    def _finish(self) -> None:
        self.finished += 1

    @property
    def text(self) -> str:
        return "".join(self.reply.text)

    @property
    def reasoning(self) -> str:
        return "".join(self.reply.reasoning)

    @property
    def tool(self) -> str:
        return "".join(self.reply.tool)

    @property
    def error_class(self) -> str | None:
        return None if self.reply.error is None else self.reply.error.error_class

    @property
    def said(self) -> tuple[str, str, str, str | None, str | None]:
        """Text, reasoning, tool calls, finish reason, error class."""
        return self.text, self.reasoning, self.tool, self.reply.finish_reason, self.error_class


def sse(*values: Any, names: bool = False) -> bytes:
    """Server-sent events with these JSON values; `names`: each with its `type` as the event's, too."""
    lines = []
    for value in values:
        name = f"event: {value['type']}\n" if names else ""
        lines.append(f"{name}data: {json.dumps(value, ensure_ascii=False)}\n\n")
    return "".join(lines).encode()


def json_of(*words: str) -> st.SearchStrategy[Any]:
    """JSON values that look like a protocol's: its own words as keys and values, everything in the wrong place."""
    word = st.sampled_from(words)
    return st.recursive(
        st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats(allow_nan=False) | word | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(word, inner, max_size=4),
        max_leaves=12,
    )


def cuts(body: bytes) -> st.SearchStrategy[list[int]]:
    """Where a network may cut a body."""
    return st.lists(st.integers(0, len(body)), max_size=12)


def check_any_events(protocol: WireProtocol, values: list[Any], junk: bytes, decoder: Decoder | None = None) -> None:
    """Whatever is sent, the request ends once, well or in a class that blames the server, and never us."""
    for body, content_type in (
        (sse(*values), SSE),
        (sse(*values) + junk, SSE),
        (json.dumps(values[0]).encode() if values else junk, JSON),
    ):
        served = Served(protocol, body, content_type, decoder=decoder)
        assert served.error_class in (None, "stream_error", "content_policy", "malformed", "empty", "truncated")
        assert "Error(" not in str(served.reply.error), "a decoder raised something of Python's"
