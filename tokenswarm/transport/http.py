"""HTTP/1.1 requests over stamped connections: pool and deadlines.

A greenlet sleeps once a request, not once a chunk: the event loop pushes what arrives into the exchange.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import gevent
from gevent.event import Event

from tokenswarm.errors import RequestError
from tokenswarm.protocols.base import WireProtocol, WireRequest
from tokenswarm.timing import Tally, Timeline
from tokenswarm.transport.base import Call, Limits, own_headers
from tokenswarm.transport.clock import KERNEL_STAMPS, LoopClock, StampKeeper
from tokenswarm.transport.connection import Connection
from tokenswarm.transport.exchange import HttpExchange
from tokenswarm.transport.origin import Origin
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
        self.tls = tls_context(insecure, ca_bundle, client_cert) if origin.scheme == "https" else None
        self.clock = LoopClock(gevent.get_hub().loop)
        lines = {"Host": origin.netloc, **headers, "Accept-Encoding": "identity"}
        if not keep_alive:
            lines["Connection"] = "close"
        self._given = {name.lower() for name in headers}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._stamp_keeper = StampKeeper()

    def client(self) -> HttpClient:
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


class HttpClient:
    """One user's connections: as many as it has requests in flight, kept alive between them."""

    def __init__(self, transport: FastTransport) -> None:
        self.transport = transport
        self.busy: set[Connection] = set()
        self._idle: list[Connection] = []
        self._retired = False

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

    def take(self) -> Connection | None:
        """The connection used last, if one is idle and still open."""
        while self._idle:
            connection = self._idle.pop()
            if connection.alive:
                return connection
        return None

    def release(self, connection: Connection, reusable: bool) -> None:
        """Keep it for the next request, or close it."""
        self.busy.discard(connection)
        if reusable and connection.alive and self.transport.keep_alive and not self._retired:
            connection.detach()
            self._idle.append(connection)
        else:
            connection.close()

    def retire(self) -> None:
        """Keep no connection any more; those in use go on to the end of their request."""
        self._retired = True
        while self._idle:
            self._idle.pop().close()

    def close(self) -> None:
        """Close every connection; a request in flight ends now, as a failure."""
        self.retire()
        for connection in list(self.busy):
            connection.abort("the run is over")


class HttpCall(Call[HttpExchange]):
    """One request over stamped connections."""

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
        # Woken at the end, and where a time limit comes nearer: at the end mark, and at the first output if stalls have
        # a limit.
        wake = self._wake = Event()
        limits = client.transport.limits

        def first_token() -> None:
            wake.set()
            if on_first_token is not None:
                on_first_token()

        def new_exchange() -> HttpExchange:
            wake.clear()
            decoder = None if request.decoder is None else request.decoder()
            first = on_first_token if limits.stall is None else first_token
            exchange = HttpExchange(protocol, timeline, tally, wake.set, first, expect_stream, decoder)
            exchange.on_end_mark = wake.set
            return exchange

        super().__init__(limits, timeline, new_exchange)

    def _attempt(self, fresh: bool) -> None:
        line, exchange, transport = self.timeline, self.exchange, self._client.transport
        connection = None if fresh else self._client.take()
        self.connection_reused = connection is not None
        if connection is None:
            connection = Connection(transport.origin, transport.clock, transport.tls)
        self._client.busy.add(connection)
        try:
            if not self.connection_reused:
                connection.open(min(self._limits.connect, self._remaining()))
                line.dns_ns, line.tcp_ns, line.tls_ns = connection.dns_ns, connection.tcp_ns, connection.tls_ns
            self.remote_addr = connection.remote_addr
            self._send(connection, exchange)
            self._wait(connection, exchange)
        except RequestError as error:
            exchange.fail(error, time.monotonic_ns())
        finally:
            self._client.release(connection, line.sent is not None and exchange.finished and exchange.reusable)

    def _send(self, connection: Connection, exchange: HttpExchange) -> None:
        began = time.monotonic_ns()
        timer = gevent.Timeout(self._remaining())
        with timer:
            try:
                connection.attach(exchange)
                self.timeline.sent = connection.send(self._data)
            except gevent.Timeout as fired:
                if fired is not timer:
                    raise
                raise self._missed("total_timeout", self._limits.total) from None
        self.timeline.send_ns = self.timeline.sent - began
        self.request_bytes = len(self._data)

    def _wait(self, connection: Connection, exchange: HttpExchange) -> None:
        while not exchange.finished:
            due, _, _ = self._deadline()
            now = time.monotonic_ns()
            if now < due:
                self._wake.wait((due - now) / 1e9)
                self._wake.clear()
                continue
            connection.read_now()  # what came in time but was not read yet counts
            due, error_class, limit = self._deadline()
            if exchange.finished or now < due:
                continue
            if exchange.done_at is not None:
                exchange.conclude(now)
            else:
                exchange.fail(self._missed(error_class, limit), now)
