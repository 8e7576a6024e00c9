"""Writes a response's bytes to the socket at the moment they are due, past aiohttp's and uvloop's buffers.

Some versions of uvloop keep what is written until the end of the loop's turn, so with a thousand streams the time of
the call says nothing about the time of the send. Here the call is the send, unless the socket is full or TLS is used.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Mapping
from http.client import responses
from typing import Protocol

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

TLS_BUFFER_LIMIT = 65536
DRIB_BYTES = 16
DRIB_SECONDS = 0.02


class Sender(Protocol):
    """The sending side of a connection, fast or slow."""

    @property
    def gone(self) -> bool:
        """Whether a send has found that the peer is gone."""

    def send(self, data: bytes) -> bool:
        """Send now. True if all of it was handed to the kernel before this returned; False also if the peer is gone."""

    def blocked(self) -> bool:
        """Whether nothing more should be sent for now."""

    def close(self) -> None:
        """End the connection in order, after what has been sent."""

    def reset(self) -> None:
        """End the connection with a RST."""

    async def drained(self) -> int | None:
        """Wait until nothing is held back on purpose; when the last of it was sent, or None if nothing ever was."""


class Wire:
    """One connection's sending side."""

    __slots__ = ("_direct", "_fd", "_limit", "_transport", "gone")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._fd: int = transport.get_extra_info("socket").fileno()
        self._direct = transport.get_extra_info("sslcontext") is None
        self._limit = 0 if self._direct else TLS_BUFFER_LIMIT
        self.gone = False

    def send(self, data: bytes) -> bool:
        """Send now. True if all of it was handed to the kernel before this returned; False also if the peer is gone."""
        transport = self._transport
        if transport.is_closing():  # its descriptor may belong to another connection soon
            self.gone = True
            return False
        if self._direct and not transport.get_write_buffer_size():
            try:
                sent = os.write(self._fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.gone = True
                return False
            if sent == len(data):
                return True
            data = data[sent:]
        transport.write(data)
        return False

    def blocked(self) -> bool:
        """Whether the reader is behind, so that nothing more should be sent for now."""
        return not self._transport.is_closing() and self._transport.get_write_buffer_size() > self._limit

    def close(self) -> None:
        """End the connection in order, after what has been sent."""
        self._transport.close()

    def reset(self) -> None:
        """End the connection with a RST."""
        if not self._transport.is_closing():
            with socket.socket(fileno=os.dup(self._fd)) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    async def drained(self) -> int | None:
        """Nothing is held back here but what the socket cannot take."""
        return None


class DribblingWire:
    """Sends over another one, a few bytes at a time, without the caller's waiting."""

    def __init__(self, wire: Sender, loop: asyncio.AbstractEventLoop) -> None:
        self._wire = wire
        self._loop = loop
        self._left = bytearray()
        self._sent_ns: int | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def gone(self) -> bool:
        return self._wire.gone

    def send(self, data: bytes) -> bool:
        self._left += data
        if self._empty.is_set():
            self._empty.clear()
            self._drip()
        return False

    def blocked(self) -> bool:
        return bool(self._left)

    def close(self) -> None:
        self._left.clear()
        self._wire.close()

    def reset(self) -> None:
        self._left.clear()
        self._wire.reset()

    async def drained(self) -> int | None:
        await self._empty.wait()
        return self._sent_ns

    def _drip(self) -> None:
        if self._left and not self._wire.blocked():
            self._sent_ns = time.monotonic_ns()
            self._wire.send(bytes(self._left[:DRIB_BYTES]))
            del self._left[:DRIB_BYTES]
        if self._wire.gone:
            self._left.clear()
        if self._left:
            self._loop.call_later(DRIB_SECONDS, self._drip)
        else:
            self._empty.set()


def response_head(
    status: int,
    request_id: str,
    content_type: str,
    *,
    length: int | None,
    chunked: bool,
    keep_alive: bool,
    more: Mapping[str, str] | None = None,
) -> bytes:
    """Status line and headers, without a type if it is empty. With neither a length nor chunks the connection's end
    ends the body."""
    lines = [
        f"HTTP/1.1 {status} {responses.get(status, 'Error')}",
        *([f"Content-Type: {content_type}"] if content_type else ()),
        f"X-Request-Id: {request_id}",
        "Cache-Control: no-cache",
        "Server: tokenswarm-simulator",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
    ]
    lines += [f"{name}: {value}" for name, value in (more or {}).items()]
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    elif length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class SentResponse(web.StreamResponse):
    """Tells aiohttp that the response has been written to the socket already, and whether to keep the connection."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._reusable = keep_alive

    @property
    def keep_alive(self) -> bool:
        return self._reusable

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None
