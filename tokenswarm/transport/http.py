"""The fast transport: HTTP/1.1 over stamped connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import gevent
from gevent.event import Event

from tokenswarm.protocols.base import WireProtocol, WireRequest
from tokenswarm.timing import Tally, Timeline
from tokenswarm.transport.base import Client, Limits, own_headers
from tokenswarm.transport.clock import KERNEL_STAMPS, LoopClock, StampKeeper
from tokenswarm.transport.connection import Connection
from tokenswarm.transport.exchange import HttpExchange
from tokenswarm.transport.origin import Origin
from tokenswarm.transport.stamped import StampedCall, StampedClient, waking
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

    def head(self, request: WireRequest, request_id: str) -> bytes:
        """Request line and headers."""
        own = "".join(f"{name}: {value}\r\n" for name, value in own_headers(request, self._given))
        return (
            f"{request.method} {self.origin.path(request.path)} HTTP/1.1\r\n{self._head}{own}"
            f"X-Request-Id: {request_id}\r\nAccept: {request.accept}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(request.body)}\r\n\r\n"
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

    def call(
        self,
        protocol: WireProtocol,
        request: WireRequest,
        request_id: str,
        timeline: Timeline,
        tally: Tally,
        on_first_token: Callable[[], None] | None = None,
        expect_stream: bool = True,
    ) -> HttpCall:
        """A request, ready to `run`."""
        return HttpCall(self, protocol, request, request_id, timeline, tally, on_first_token, expect_stream)


class HttpCall(StampedCall[Connection, HttpExchange]):
    """One HTTP request."""

    def __init__(
        self,
        client: HttpClient,
        protocol: WireProtocol,
        request: WireRequest,
        request_id: str,
        timeline: Timeline,
        tally: Tally,
        on_first_token: Callable[[], None] | None = None,
        expect_stream: bool = True,
    ) -> None:
        self._client = client
        self._data = client.transport.head(request, request_id) + request.body
        limits = client.transport.limits
        wake = self._wake = Event()
        first = waking(wake, limits, on_first_token)

        def new_exchange() -> HttpExchange:
            wake.clear()
            decoder = None if request.decoder is None else request.decoder()
            exchange = HttpExchange(protocol, timeline, tally, wake.set, first, expect_stream, decoder)
            exchange.on_end_mark = wake.set
            return exchange

        super().__init__(limits, timeline, new_exchange)

    def _hand_over(self, connection: Connection, exchange: HttpExchange) -> None:
        began = time.monotonic_ns()
        connection.attach(exchange)
        self.timeline.sent = connection.send(self._data)
        self.timeline.send_ns = self.timeline.sent - began
        self.request_bytes = len(self._data)
