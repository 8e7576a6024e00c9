"""One user's stamped connections, and the course of one request over one of them: pool and deadlines.

What HTTP and WebSocket have in common. A greenlet sleeps once a request, not once a chunk: the event loop pushes what
arrives into the exchange.
"""

from __future__ import annotations

import time
from typing import Generic, TypeVar

import gevent
import msgspec
from gevent.event import Event

from tokenswarm.errors import RequestError
from tokenswarm.transport.base import Call, Limits
from tokenswarm.transport.connection import Connection
from tokenswarm.transport.exchange import HttpExchange
from tokenswarm.transport.request import Request

ConnectionT = TypeVar("ConnectionT", bound=Connection)
ExchangeT = TypeVar("ExchangeT", bound=HttpExchange)


class StampedClient(Generic[ConnectionT]):
    """One user's connections: as many as it has requests in flight, kept between them if `keep_alive`."""

    def __init__(self, keep_alive: bool) -> None:
        self.busy: set[ConnectionT] = set()
        self._idle: list[ConnectionT] = []
        self._keeps = keep_alive

    def connection(self) -> ConnectionT:
        """A new one, not open yet."""
        raise NotImplementedError

    def take(self) -> ConnectionT | None:
        """The connection used last, if one is idle and still open."""
        while self._idle:
            connection = self._idle.pop()
            if connection.alive:
                return connection
        return None

    def release(self, connection: ConnectionT, reusable: bool) -> None:
        """Keep it for the next request, or close it."""
        self.busy.discard(connection)
        if reusable and connection.alive and self._keeps:
            connection.detach()
            self._idle.append(connection)
        else:
            connection.close()

    def retire(self) -> None:
        """Keep no connection any more; those in use go on to the end of their request."""
        self._keeps = False
        while self._idle:
            self._idle.pop().close()

    def close(self) -> None:
        """Close every connection; a request in flight ends now, as a failure."""
        self.retire()
        for connection in list(self.busy):
            connection.abort("the run is over")


class StampedCall(Call[ExchangeT], Generic[ConnectionT, ExchangeT]):
    """One request. A protocol's own gives `_hand_over`."""

    def __init__(self, client: StampedClient[ConnectionT], request: Request, limits: Limits) -> None:
        self._client = client
        self._wake = Event()
        """Set when the exchange has finished, and where a time limit comes nearer: at the end mark, and at the first
        output if stalls have a limit."""
        super().__init__(request if limits.stall is None else _waking(request, self._wake), limits)

    def _attempt(self, fresh: bool) -> None:
        line, exchange = self.timeline, self.exchange
        connection = None if fresh else self._client.take()
        self.connection_reused = connection is not None
        if connection is None:
            connection = self._client.connection()
        self._client.busy.add(connection)
        try:
            if not self.connection_reused:
                connection.open(min(self._limits.connect, self._remaining()))
                line.dns_ns, line.tcp_ns, line.tls_ns = connection.dns_ns, connection.tcp_ns, connection.tls_ns
            self.remote_addr = connection.remote_addr
            self._send(connection, exchange)
            self._wait(connection, exchange)
        except RequestError as error:
            self._fail(error)
        finally:
            self._client.release(connection, line.sent is not None and exchange.finished and exchange.reusable)

    def _hand_over(self, connection: ConnectionT, exchange: ExchangeT) -> None:
        """Send the request, and say when in `timeline`. Raises RequestError."""
        raise NotImplementedError

    def _send(self, connection: ConnectionT, exchange: ExchangeT) -> None:
        timer = gevent.Timeout(self._remaining())
        with timer:
            try:
                self._hand_over(connection, exchange)
            except gevent.Timeout as fired:
                if fired is not timer:
                    raise
                raise self._missed("total_timeout", self._limits.total) from None

    def _wait(self, connection: ConnectionT, exchange: ExchangeT) -> None:
        while not exchange.finished:
            due, _, _ = self._deadline()
            now = time.monotonic_ns()
            if now < due:
                self._wake.wait((due - now) / 1e9)
                self._wake.clear()
                continue
            connection.read_now()  # what came in time but was not read yet counts
            due, _, _ = self._deadline()
            if exchange.finished or now < due:
                continue
            if exchange.done_at is not None:
                exchange.conclude(now)
            else:
                self._expire(now)


def _waking(request: Request, wake: Event) -> Request:
    """The same, which wakes at its first token as well."""
    on_first_token = request.on_first_token

    def first_token() -> None:
        wake.set()
        if on_first_token is not None:
            on_first_token()

    return msgspec.structs.replace(request, on_first_token=first_token)
