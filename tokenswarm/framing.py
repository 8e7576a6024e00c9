"""Framers: bytes in, whole events out. No socket, no clock, no meaning: what an event says is a protocol's business.

`SseFramer` follows the WHATWG "server-sent events" grammar: lines end in LF, CR or CRLF, cut by the network anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from tokenswarm.errors import RequestError

MAX_EVENT_BYTES = 16 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event of a stream: its data (lines joined by LF) and its type (empty where none was given)."""

    data: bytes
    type: bytes = b""


def parse_event(block: bytes) -> Event | None:
    """The event in a block of lines that end in LF (the last one's left out); None where there is no data in it."""
    if block.startswith(b"data:") and b"\n" not in block:
        return Event(block[6:] if block[5:6] == b" " else block[5:])
    data: list[bytes] = []
    kind = b""
    begin, end = 0, 0
    while end >= 0:  # a line at a time: a list of millions of them would take many times their size
        end = block.find(b"\n", begin)
        name, _, value = block[begin : end if end >= 0 else None].partition(b":")
        begin = end + 1
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            data.append(value)
        elif name == b"event":
            kind = value
    return Event(b"\n".join(data), kind) if data else None


class Framer(Protocol):
    """Bytes of one body in, whole events out."""

    pending: bool
    """Whether anything came after the last event: part of another, or what is none."""

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete. Raises RequestError (`malformed`) on an endless event."""

    def finish(self) -> Event | None:
        """At the end of the stream: the event that this end completes, if any."""


class MessageFramer:
    """For a transport that has whole messages already: each is an event."""

    __slots__ = ("pending",)

    def __init__(self) -> None:
        self.pending = False

    def feed(self, data: bytes) -> list[Event]:
        """As `Framer` has it: one message."""
        return [Event(data)]

    def finish(self) -> Event | None:
        """As `Framer` has it: never any."""
        return None


class DelimitedFramer:
    """Events that end in one byte: newline-delimited JSON (`b"\\n"`), FastChat's frames (`b"\\0"`).

    Empty ones are passed over; the last one may lack its end.
    """

    __slots__ = ("_buffer", "_delimiter", "pending")

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter
        self._buffer = bytearray()
        self.pending = False

    def feed(self, data: bytes) -> list[Event]:
        """As `Framer` has it."""
        *whole, rest = data.split(self._delimiter)
        if whole and self._buffer:
            whole[0] = bytes(self._buffer) + whole[0]
            self._buffer.clear()
        self._buffer += rest
        if len(self._buffer) > MAX_EVENT_BYTES:
            raise _endless()
        self.pending = bool(self._buffer)
        return [Event(piece) for piece in whole if piece.strip()]

    def finish(self) -> Event | None:
        """As `Framer` has it."""
        left = bytes(self._buffer)
        self._buffer.clear()
        self.pending = False
        return Event(left) if left.strip() else None


class SseFramer:
    """Server-sent events out of a byte stream cut anywhere. `parse` reads one whole block of lines."""

    __slots__ = ("_between", "_buffer", "_parse", "_skip_lf", "_started", "pending")

    def __init__(self, parse: Callable[[bytes], Event | None] = parse_event) -> None:
        self._parse = parse
        self._buffer = bytearray()
        self._skip_lf = False
        self._started = False
        self.pending = False
        """Whether anything came after the last event: part of another, or a comment."""
        self._between = False
        """The last byte ended an event, and `parse` is ours."""

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete. Raises RequestError (`malformed`) on an endless event."""
        # Nearly always one line of data and its blank one. What follows says the same of it, at three times the cost.
        if (
            self._between
            and data.startswith(b"data: ")
            and data.endswith(b"\n\n")
            and data.find(b"\n") == len(data) - 2
            and b"\r" not in data
        ):
            return [Event(data[6:-2])]
        self._between = False
        if not self._started:
            data = self._after_bom(data)
        if self._skip_lf and data:
            if data[0] == 0x0A:  # the LF of a CRLF that was cut in two
                data = data[1:]
            self._skip_lf = False
        if b"\r" in data:
            self._skip_lf = data[-1] == 0x0D
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        buffer = self._buffer
        if buffer:
            # What was there is not copied or searched again with each piece, or many small ones would take for ever.
            searched = len(buffer) - 1
            buffer += data
            end = buffer.rfind(b"\n\n", searched)
            if end >= 0:
                data = bytes(buffer)
                buffer.clear()
        else:
            end = data.rfind(b"\n\n")
            if end < 0 and not (data == b"\n" and self._started):
                buffer += data
        if end < 0:
            if len(buffer) > MAX_EVENT_BYTES:
                raise _endless()
            self.pending = bool(buffer)
            return []
        rest = data[end + 2 :]
        if rest != b"\n":
            buffer += rest
        events = []
        for block in data[:end].split(b"\n\n"):
            event = self._parse(block) if block else None
            if event is not None:
                events.append(event)
        self.pending = bool(buffer) or (event is None and bool(block))
        self._between = not (self.pending or self._skip_lf) and self._parse is parse_event
        return events

    def finish(self) -> Event | None:
        """At the end of the stream: an end mark that lacks its blank line. Any other event that does is discarded."""
        block, self.pending, self._between = bytes(self._buffer), False, False
        self._buffer.clear()
        event = self._parse(block.strip(b"\n")) if block else None
        return event if event is not None and event.data.strip() == b"[DONE]" else None

    def _after_bom(self, data: bytes) -> bytes:
        data = bytes(self._buffer) + data
        self._buffer.clear()
        if len(data) < 3 and _BOM.startswith(data):
            self._buffer += data
            return b""
        self._started = True
        return data[3:] if data.startswith(_BOM) else data


def _endless() -> RequestError:
    return RequestError("malformed", f"an event of more than {MAX_EVENT_BYTES} bytes without an end")
