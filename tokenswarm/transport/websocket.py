"""The fast transport's way to a WebSocket: one stamped connection for each user, kept over its turns.

A request is a message, its reply are messages; the first request opens the connection. What arrives and what it means
is `messages.py`'s.
"""

from __future__ import annotations

import os
import ssl
import time
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from tokenswarm.errors import RequestError
from tokenswarm.timing import Clock
from tokenswarm.transport.base import Client, Limits, own_headers
from tokenswarm.transport.clock import LoopClock
from tokenswarm.transport.connection import Connection
from tokenswarm.transport.http import FastTransport
from tokenswarm.transport.messages import Messages, Turn
from tokenswarm.transport.origin import Origin
from tokenswarm.transport.request import Request
from tokenswarm.transport.stamped import StampedCall, StampedClient


class WebSocketTransport(FastTransport):
    """The fast transport, to a WebSocket."""

    def __init__(self, origin: Origin, limits: Limits, headers: Mapping[str, str], **settings: Any) -> None:
        """`settings` are `FastTransport`'s."""
        super().__init__(origin, limits, headers, **settings)
        lines = {"Host": origin.netloc, **headers, "Upgrade": "websocket", "Connection": "Upgrade"}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())

    def client(self) -> Client:
        """As `FastTransport` has it."""
        return WebSocketClient(self)

    def head(self, request: Request) -> bytes:
        """The handshake, but for its key and its end. The id is that of the first request."""
        own = "".join(f"{name}: {value}\r\n" for name, value in own_headers(request.wire, self._given))
        return (
            f"GET {self.origin.path(request.wire.path)} HTTP/1.1\r\n{self._head}{own}"
            f"X-Request-Id: {request.id}\r\nSec-WebSocket-Version: 13\r\n"
        ).encode()


class WebSocket(Connection):
    """A connection that is HTTP until the server agrees to the handshake, and carries messages from then on."""

    def __init__(self, origin: Origin, clock: LoopClock, tls: ssl.SSLContext | None) -> None:
        super().__init__(origin, clock, tls)
        self.messages = Messages()
        self._sending = False
        self._unsent = b""
        self._due = b""

    @property
    def opening_ns(self) -> int:
        """What name lookup, connect and TLS took."""
        return self.dns_ns + self.tcp_ns + (self.tls_ns or 0)

    def attach(self, exchange: Any) -> None:
        """From now on messages belong to this turn."""
        self.messages.turn = exchange
        super().attach(self.messages)

    def detach(self) -> None:
        """Messages that come from now on belong to nobody, and end the connection; pings are answered all the same."""
        self.messages.turn = None

    def send(self, data: bytes) -> int:
        """As `Connection` has it, after what could not be sent before, and before what must wait for its end."""
        self._sending = True  # and stays so if this fails: then half a frame may be on its way
        if self._unsent:
            unsent, self._unsent = self._unsent, b""
            self._send_all(unsent)
        sent = super().send(data)
        self._sending = False
        if self._due:
            due, self._due = self._due, b""
            self._answer(due)
        return sent

    def received(self, data: bytes, at: int, low: int, handled: int, clock: Clock) -> None:
        """As `Sink` has it."""
        super().received(data, at, low, handled, clock)
        answer = self.messages.take_answer()
        if answer and self.alive:
            self._answer(answer)
        if self.messages.over and self.alive:
            self.close()

    def close(self) -> None:
        """As `Connection` has it; says goodbye if that takes no waiting."""
        if self.alive and self.messages.open and not self.messages.over:
            self.messages.over = True
            self._answer(self.messages.goodbye())
        super().close()

    def _answer(self, frame: bytes) -> None:
        """Send without waiting, in the event loop's own callback. Of what has to wait, the latest is enough."""
        if self._sending or self._unsent:
            self._due = frame
            return
        if self._session is not None:
            self._session.write(frame)
            frame = self._outgoing.read()
        try:
            sent = self._sock.send(frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # whoever reads will meet it, too
        self._unsent = frame[sent:]


class WebSocketClient(StampedClient[WebSocket]):
    """One user's WebSockets: as many as it has requests in flight, each kept for the next turn."""

    def __init__(self, transport: WebSocketTransport) -> None:
        super().__init__(transport.keep_alive)
        self.transport = transport

    def connection(self) -> WebSocket:
        """As `StampedClient` has it."""
        return WebSocket(self.transport.origin, self.transport.clock, self.transport.tls)

    def call(self, request: Request) -> WebSocketCall:
        """A request, ready to `run`. Its reply is streamed, whatever is expected."""
        return WebSocketCall(self, request)


class WebSocketCall(StampedCall[WebSocket, Turn]):
    """One turn; the first on a connection opens it, and the handshake is part of the wait before it is sent."""

    def __init__(self, client: WebSocketClient, request: Request) -> None:
        self._head = client.transport.head(request)
        self._text = request.wire.body.decode()
        super().__init__(client, request, client.transport.limits)

    def _new_exchange(self) -> Turn:
        self._wake.clear()
        return Turn(self._request, self._wake.set)

    def _hand_over(self, connection: WebSocket, exchange: Turn) -> None:
        self.request_bytes = 0
        connection.attach(exchange)
        if not connection.messages.open:
            self._shake_hands(connection, exchange)
        if exchange.finished:
            return
        began = time.monotonic_ns()
        frame = connection.messages.frame(self._text)
        exchange.begin()
        self.timeline.sent = connection.send(frame)
        self.timeline.send_ns = self.timeline.sent - began
        self.request_bytes += len(frame)

    def _shake_hands(self, connection: WebSocket, exchange: Turn) -> None:
        """Until the server has agreed, or refused, in what is left of the time to connect. Raises RequestError."""
        key = b64encode(os.urandom(16))
        exchange.expect_acceptance(key, self._wake.set)
        handshake = self._head + b"Sec-WebSocket-Key: " + key + b"\r\n\r\n"
        due = time.monotonic_ns() + int(self._limits.connect * 1e9) - connection.opening_ns
        connection.send(handshake)
        self.request_bytes += len(handshake)
        while not (exchange.accepted or exchange.finished):
            now = time.monotonic_ns()
            if now < due:
                self._wake.wait((due - now) / 1e9)
                self._wake.clear()
                continue
            connection.read_now()
            if not (exchange.accepted or exchange.finished):
                limit = f"{self._limits.connect:g} s"
                raise RequestError("connect_timeout", f"no WebSocket at {connection.origin.netloc} within {limit}")
