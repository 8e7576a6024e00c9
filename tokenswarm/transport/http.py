"""The fast transport: HTTP/1.1 over stamped connections."""

from __future__ import annotations

import time
from collections.abc import Mapping

import gevent

from tokenswarm.transport.base import Client, Limits, own_headers
from tokenswarm.transport.clock import KERNEL_STAMPS, LoopClock, StampKeeper
from tokenswarm.transport.connection import Connection
from tokenswarm.transport.exchange import HttpExchange
from tokenswarm.transport.origin import Origin
from tokenswarm.transport.request import Request
from tokenswarm.transport.stamped import StampedCall, StampedClient
from tokenswarm.transport.tls import tls_context


class FastTransport:
    """What all users of a run share: the target, the limits, TLS, the headers, the loop's clock."""

    name = "fast"
    kernel_clock = KERNEL_STAMPS

    def __init__(
        self,
        origin: Origin,
        limits: Limits,
        headers: Mapping[str, str],
        *,
        keep_alive: bool = True,
        insecure: bool = False,
        ca_bundle: str | None = None,
        client_cert: tuple[str, ...] = (),
    ) -> None:
        self.origin = origin
        self.limits = limits
        self.keep_alive = keep_alive
        self.tls = tls_context(insecure, ca_bundle, client_cert) if origin.secure else None
        self.clock = LoopClock(gevent.get_hub().loop)
        lines = {"Host": origin.netloc, **headers, "Accept-Encoding": "identity"}
        if not keep_alive:
            lines["Connection"] = "close"
        self._given = {name.lower() for name in headers}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._stamp_keeper = StampKeeper()

    def client(self) -> Client:
        """Connections for one user."""
        return HttpClient(self)

    def head(self, request: Request) -> bytes:
        """Request line and headers."""
        wire = request.wire
        own = "".join(f"{name}: {value}\r\n" for name, value in own_headers(wire, self._given))
        return (
            f"{wire.method} {self.origin.path(wire.path)} HTTP/1.1\r\n{self._head}{own}"
            f"X-Request-Id: {request.id}\r\nAccept: {wire.accept}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(wire.body)}\r\n\r\n"
        ).encode()

    def close(self) -> None:
        """Stop watching the loop."""
        self.clock.close()
        self._stamp_keeper.close()


class HttpClient(StampedClient[Connection]):
    """One user's connections: as many as it has requests in flight, kept alive between them."""

    def __init__(self, transport: FastTransport) -> None:
        super().__init__(transport.keep_alive)
        self.transport = transport

    def connection(self) -> Connection:
        """As `StampedClient` has it."""
        return Connection(self.transport.origin, self.transport.clock, self.transport.tls)

    def call(self, request: Request) -> HttpCall:
        """A request, ready to `run`."""
        return HttpCall(self, request)


class HttpCall(StampedCall[Connection, HttpExchange]):
    """One HTTP request."""

    def __init__(self, client: HttpClient, request: Request) -> None:
        self._data = client.transport.head(request) + request.wire.body
        super().__init__(client, request, client.transport.limits)

    def _new_exchange(self) -> HttpExchange:
        self._wake.clear()
        exchange = HttpExchange(self._request, self._wake.set)
        exchange.on_end_mark = self._wake.set
        return exchange

    def _hand_over(self, connection: Connection, exchange: HttpExchange) -> None:
        began = time.monotonic_ns()
        connection.attach(exchange)
        self.timeline.sent = connection.send(self._data)
        self.timeline.send_ns = self.timeline.sent - began
        self.request_bytes = len(self._data)
