"""The portable transport: requests, for proxies, client certificates and systems without kernel receive stamps.

The same protocols, limits and rows as the fast one; arrivals are user-space times, noted right after a read returned.
It is also what the fast transport is tested against: another HTTP client, another TLS path, another event parser.

Events are read by sseclient-py, one whole event at a time. Where events end is our framer's: sseclient-py 1.9 keeps a
byte order mark, runs two events into one where the blank line between them ends otherwise than theirs, dispatches an
event that the stream cut off, and raises on bytes that are not UTF-8. Events without data it drops, ours are empty.
"""

from __future__ import annotations

import http.client
import logging
import ssl
import time
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import gevent
import requests
import sseclient
import urllib3
from gevent import socket as gsocket

from tokenswarm.errors import RequestError
from tokenswarm.framing import Event, parse_event
from tokenswarm.timing import Clock
from tokenswarm.transport.base import GRACE_NS, LEFT, Call, Limits, own_headers
from tokenswarm.transport.clock import LoopClock
from tokenswarm.transport.origin import Origin
from tokenswarm.transport.reply import ReplyState
from tokenswarm.transport.request import Request
from tokenswarm.transport.stamped_urllib3 import CURRENT, READ_BYTES, StampedAdapter, StampedConnection, readable
from tokenswarm.transport.tls import tls_broke, tls_context

_SEND_BYTES = 65536
_READ, _WRITE = 1, 2  # libev's
TURN_NS = 20_000_000
"""How long one request may go on without a pause for the others."""
_MOST_LINES = 64
"""Of an event that sseclient-py is given: it copies all lines so far with each."""
_LEFT = RequestError("client", "the user has left")
"""Ends an attempt whose reply has ended already, by that."""
_log = logging.getLogger("tokenswarm")


class PortableTransport:
    """What all users of a run share: the target, the limits, TLS, the headers, the proxy.

    `proxy` is a URL (http, https, socks4, socks4a, socks5, socks5h), credentials in it percent-encoded.
    """

    name = "portable"
    kernel_clock = False

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
        proxy: str | None = None,
    ) -> None:
        self.origin = origin
        self.limits = limits
        self.keep_alive = keep_alive
        self.insecure = insecure
        self.proxy = proxy
        self.tls = tls_context(insecure, ca_bundle, client_cert)
        self.clock = LoopClock(gevent.get_hub().loop)
        self.given = {name.lower() for name in headers}
        self.headers = {**headers, "Accept-Encoding": "identity"}
        if not keep_alive:
            self.headers["Connection"] = "close"
        if insecure:  # said once, by whoever gave --insecure
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def client(self) -> PortableClient:
        """A session for one user."""
        return PortableClient(self)

    def close(self) -> None:
        """Stop watching the loop."""
        self.clock.close()


class _Session(requests.Session):
    """A session that keeps to what it is told: no environment, no cookies, no redirects."""

    def __init__(self, transport: PortableTransport) -> None:
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.verify = not transport.insecure
        if transport.proxy:
            self.proxies = {"http": transport.proxy, "https": transport.proxy}
        adapter = StampedAdapter(transport.tls)
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def get_redirect_target(self, resp: Any) -> None:
        """None, or requests would read the body of a redirect by itself."""


class PortableClient:
    """One user's session: its connections are kept alive between requests."""

    def __init__(self, transport: PortableTransport) -> None:
        self.transport = transport
        self.session = _Session(transport)
        self.busy: set[_Attempt] = set()
        self.retired = False

    def call(self, request: Request) -> PortableCall:
        """A request, ready to `run`."""
        return PortableCall(self, request)

    def retire(self) -> None:
        """Keep no connection any more; those in use go on to the end of their request."""
        self.retired = True
        self.session.close()

    def close(self) -> None:
        """Close every connection; a request in flight ends now, as a failure."""
        self.retire()
        for attempt in list(self.busy):
            attempt.abort("the run is over")


class PortableCall(Call[ReplyState]):
    """One request over a session."""

    def __init__(self, client: PortableClient, request: Request) -> None:
        self._client = client
        self._prepared = self._prepare(request)
        super().__init__(request, client.transport.limits)

    def _new_exchange(self) -> ReplyState:
        return ReplyState(self._request, _nothing, parse_with_sseclient)

    def _prepare(self, request: Request) -> requests.PreparedRequest:
        transport, wire = self._client.transport, request.wire
        origin = transport.origin
        headers = {
            "Host": origin.netloc,
            **transport.headers,
            "X-Request-Id": request.id,
            "Accept": wire.accept,
            "Content-Type": "application/json",
            "Content-Length": str(len(wire.body)),
            **dict(own_headers(wire, transport.given)),
        }
        url = f"{origin.scheme}://{origin.netloc}{origin.path(wire.path)}"
        return requests.Request(wire.method, url, headers=headers, data=wire.body).prepare()

    def _attempt(self, fresh: bool) -> None:
        exchange = self.exchange
        attempt = _Attempt(self, fresh)
        token = CURRENT.set(attempt)
        self._client.busy.add(attempt)
        try:
            response = self._client.session.send(self._prepared, stream=True, allow_redirects=False)
            attempt.take(response.raw)
        except RequestError as error:
            attempt.ended()
            self._fail(error)
        except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
            attempt.ended()
            if attempt.eof_at is not None:
                exchange.eof(attempt.eof_at)
            else:
                exchange.fail(RequestError("malformed", f"not HTTP/1.1: {_innermost(error)}"), time.monotonic_ns())
        except Exception as error:  # as on the fast transport: a row that says so
            _log.exception("A reply could not be handled.")
            exchange.fail(RequestError("client", f"the reply could not be handled: {error!r}"), time.monotonic_ns())
        finally:
            CURRENT.reset(token)
            self._client.busy.discard(attempt)
            if not attempt.reusable:
                attempt.close()


class _Attempt:
    """One attempt of a call: every send and read of its connection, under the call's limits."""

    def __init__(self, call: PortableCall, fresh: bool) -> None:
        self.fresh = fresh
        self.opening = False
        self.reusable = False
        self.eof_at: int | None = None
        self._call = call
        self._state = call.exchange
        self._clock = call._client.transport.clock
        self._connection: StampedConnection | None = None
        self._send_began: int | None = None
        self._watcher: Any = None
        self._empty_at = 0
        self._last_at = 0
        self._waited_at = time.monotonic_ns()
        call.connection_reused = True  # unless `opened` says otherwise
        call.request_bytes = 0

    def take(self, raw: Any) -> None:
        """The reply, from its headers to the end of its body."""
        state, headers = self._state, raw.headers
        if self.eof_at is not None:  # http.client takes the end of the connection for the end of the headers
            state.eof(self.eof_at)
            return
        state.headers(
            raw.status,
            headers.get("Content-Type", ""),
            headers.get("Content-Encoding", ""),
            headers.get("Location", ""),
            "Content-Length" in headers or "Transfer-Encoding" in headers,
        )
        # read1 gives what is there: never does an event wait for a buffer, or for its HTTP chunk, to be full.
        while data := raw.read1(READ_BYTES, decode_content=False):
            state.body(data)
            if state.enough:
                self.ended()
                return
        state.body_ended()
        self.ended()
        if self.eof_at is not None:
            state.eof(self.eof_at)
        else:
            client = self._call._client
            # What was not all sent would be taken for the beginning of the next request.
            self.reusable = client.transport.keep_alive and not client.retired and state.timeline.sent is not None
            state.conclude(self._last_at)

    def ended(self) -> None:
        """Nothing more will be read."""
        self._state.read_ended(time.monotonic_ns())

    def abort(self, why: str) -> None:
        """End the request now; while its connection is being opened that is left to the time limit."""
        error = RequestError("client", why)
        self._state.read_ended(time.monotonic_ns())
        self._state.fail(error, time.monotonic_ns())
        if self._watcher is not None:
            gsocket.cancel_wait(self._watcher, error)  # thrown in the event loop, not here

    def close(self) -> None:
        """The connection shall carry no other request."""
        if self._connection is not None:
            self._connection.close()

    # What the connection asks

    def connect_seconds(self) -> float:
        call = self._call
        call.connection_reused = False
        return min(call._limits.connect, call._remaining())

    def opened(self, connection: StampedConnection) -> None:
        line = self._call.timeline
        line.dns_ns, line.tcp_ns, line.tls_ns = connection.dns_ns, connection.tcp_ns, connection.tls_ns

    def send(self, connection: StampedConnection, data: bytes) -> None:
        call, line = self._call, self._call.timeline
        self._connection = connection
        call.remote_addr = connection.remote_addr
        if self._send_began is None:
            self._send_began = time.monotonic_ns()
        sock: Any = connection.sock
        sock.settimeout(0.0)
        view = memoryview(data)
        sent = 0
        while view:
            # Before the call: on a busy machine another process may run, and the server answer, before it returns.
            sent = time.monotonic_ns()
            try:
                view = view[sock.send(view[:_SEND_BYTES]) :]
            except BlockingIOError:
                self._wait(sock, _READ | _WRITE, call._remaining())
                if readable(sock):  # an answer, or the end, before the request was all sent: urllib3 then reads it
                    raise BrokenPipeError from None
            except ssl.SSLWantWriteError:
                self._wait(sock, _WRITE, call._remaining())
            except ssl.SSLWantReadError:
                self._wait(sock, _READ, call._remaining())
            except OSError:
                raise BrokenPipeError from None  # as above
        line.sent = self._empty_at = sent
        line.send_ns = sent - self._send_began
        call.request_bytes += len(data)

    def receive(self, sock: Any, buffer: Any) -> int:
        state = self._state
        state.read_ended(time.monotonic_ns())
        self._let_others_run()
        sock.settimeout(0.0)
        reported = False
        while True:
            due, error_class, limit = self._call._deadline()
            asked = time.monotonic_ns()
            if asked - due > GRACE_NS:  # there is always something more to read
                raise self._late(due, error_class, limit)
            try:
                size: int = sock.recv_into(buffer)
                break
            except (BlockingIOError, ssl.SSLWantReadError):
                events = _READ
                self._empty_at = asked
            except ssl.SSLWantWriteError:
                events = _WRITE
            except ssl.SSLError as error:
                raise tls_broke(error) from None
            except OSError as error:
                raise _broken(error) from None
            if asked >= due:  # what came in time but was not read yet would have counted
                raise self._late(due, error_class, limit)
            reported = self._wait(sock, events, (due - asked) / 1e9) and events == _READ
        now = self._last_at = time.monotonic_ns()
        if size == 0:
            self.eof_at = now
        else:
            unready_at = max(self._empty_at, self._clock.reported_since) if reported else self._empty_at
            state.read_began(size, now, unready_at if self._clock.late(now) else now, Clock.USER)
            if state.finished:
                raise _LEFT
        return size

    def _let_others_run(self) -> None:
        """A server that sends without a pause would have this process for itself. Raises RequestError."""
        if time.monotonic_ns() - self._waited_at > TURN_NS:
            gevent.sleep(0)
            self._waited_at = time.monotonic_ns()
            if self._state.finished:
                raise RequestError("client", "the request was ended")

    def _wait(self, sock: Any, events: int, seconds: float) -> bool:
        """Wait for the socket, at most so long. Whether it was reported; who waits looks for himself what is true."""
        watcher = self._watcher = gevent.get_hub().loop.io(sock.fileno(), events)
        try:
            gsocket.wait(watcher, timeout=seconds, timeout_exc=TimeoutError())
            return True
        except TimeoutError:
            return False
        finally:
            self._watcher = None
            self._waited_at = time.monotonic_ns()
            watcher.close()

    def _late(self, due: int, error_class: str, limit: float) -> RequestError:
        if self._state.done_at is not None:  # the reply had its end mark; only its body stays open
            return RequestError("truncated", "the body stayed open")
        if error_class == LEFT:
            self._state.leave(due)
            return _LEFT
        return self._call._missed(error_class, limit)


def parse_with_sseclient(block: bytes) -> Event | None:
    """One whole event, its lines ending in LF (the last one's left out), read by sseclient-py where it can be."""
    if block.count(b"\n") > _MOST_LINES:
        return parse_event(block)
    try:
        for event in sseclient.SSEClient(iter([block])).events():
            return Event(event.data.encode(), b"" if event.event == "message" else event.event.encode())
    except UnicodeDecodeError:
        pass  # the decoder says what is wrong with it
    return parse_event(block)


def _broken(error: OSError) -> RequestError:
    reset = isinstance(error, ConnectionResetError)
    text = "the server reset the connection" if reset else f"the connection broke: {error.strerror}"
    return RequestError("truncated", text)


def _innermost(error: BaseException) -> BaseException:
    """What http.client said, before urllib3 and requests wrapped it."""
    while True:
        inner = error.__cause__ or error.__context__
        if inner is None:
            return error
        error = inner


def _nothing() -> None:
    return None
