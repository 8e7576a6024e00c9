"""One TCP connection, plain or TLS, that stamps what it receives and pushes it into whatever exchange is attached.

Opening and sending happen in the caller's greenlet; who reads once it is open is not decided here (receiver.py).
"""

from __future__ import annotations

import errno
import logging
import os
import ssl
import time
from typing import Any, Final, Protocol

import gevent
from gevent import socket as gsocket
from gevent.event import Event
from gevent.monkey import get_original

from tokenswarm.errors import RequestError
from tokenswarm.timing import Clock
from tokenswarm.transport.clock import LoopClock, enable_stamps
from tokenswarm.transport.dial import dial
from tokenswarm.transport.origin import Origin
from tokenswarm.transport.reading import READ_BYTES, Reader
from tokenswarm.transport.receiver import start_reading
from tokenswarm.transport.tls import tls_broke, tls_error

_log = logging.getLogger("tokenswarm")
_plain_socket: Final = get_original("socket", "socket")
RECORD_BYTES: Final = 16384
"""The most that one record of TLS holds."""


class Exchange(Protocol):
    """What a connection pushes into."""

    @property
    def awaits_first_byte(self) -> bool:
        """Whether nothing of an answer has come."""

    @property
    def finished(self) -> bool:
        """Whether the answer has come, or never will."""

    def feed(self, data: bytes, at: int, low: int, handled: int, clock: Clock) -> None:
        """Bytes that arrived in (low, at], by this clock."""

    def eof(self, at: int) -> None:
        """The peer will send nothing more."""

    def fail(self, error: RequestError, at: int) -> None:
        """The connection broke."""


class Connection:
    """Open with `open`, then for each request `send` and `attach`; `close` at last."""

    def __init__(self, origin: Origin, clock: LoopClock, tls: ssl.SSLContext | None) -> None:
        self.origin = origin
        self.remote_addr: str | None = None
        self.alive = False
        self.dns_ns = 0
        self.tcp_ns = 0
        self.tls_ns: int | None = None
        self._clock = clock
        self._context = tls
        self._sock: Any = None
        self._exchange: Exchange | None = None
        self._reader: Reader | None = None
        self._write_watcher: Any = None
        self._writable = Event()
        self._stamps = False
        self._session: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()

    def open(self, timeout: float) -> None:
        """Resolve, connect and shake hands within `timeout` seconds. Raises RequestError."""
        timer = gevent.Timeout(timeout)
        with timer:
            try:
                self._connect()
                if self._context is not None:
                    began = time.monotonic_ns()
                    self._shake_hands(self._context)
                    self.tls_ns = time.monotonic_ns() - began
            except gevent.Timeout as fired:
                self.close()
                if fired is not timer:
                    raise
                raise RequestError(
                    "connect_timeout", f"no connection to {self.origin.netloc} within {timeout:g} s"
                ) from None
            except BaseException:
                self.close()
                raise
        self.alive = True
        self._reader = start_reading(self._sock, self, self._clock, self._stamps)

    def send(self, data: bytes) -> int:
        """Hand every byte to the kernel; returns the instant the last one was. Raises RequestError."""
        if self._session is not None:
            self._session.write(data)
            data = self._outgoing.read()
        return self._send_all(data)

    def attach(self, exchange: Exchange) -> None:
        """From now on what arrives belongs to this exchange."""
        self._exchange = exchange
        if self._reader is not None:
            self._reader.expect()

    def detach(self) -> None:
        """What arrives from now on belongs to nobody, and ends the connection."""
        self._exchange = None

    def read_now(self) -> None:
        """Read what is already there without waiting for the loop: before a deadline is called missed."""
        if self._reader is not None:
            self._reader.read_now()

    def abort(self, why: str) -> None:
        """Close, and end the exchange that is attached; one that is still being opened is left to its opener."""
        if self.alive:
            self._fail(RequestError("client", why), time.monotonic_ns())

    def close(self) -> None:
        """Idempotent."""
        self.alive = False
        self._exchange = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._stop_write_watcher()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    # Opening

    def _connect(self) -> None:
        origin = self.origin
        dialled = dial(origin.host, origin.port, self._prepare, origin.netloc)
        self.remote_addr, self.dns_ns, self.tcp_ns = dialled.remote_addr, dialled.dns_ns, dialled.tcp_ns
        # gevent's socket would wait for us; we want the bare non-blocking one.
        self._sock = _plain_socket(fileno=dialled.sock.detach())
        self._sock.setblocking(False)

    def _prepare(self, sock: Any) -> None:
        self._stamps = enable_stamps(sock)

    def _shake_hands(self, context: ssl.SSLContext) -> None:
        session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=self.origin.host)
        while True:
            try:
                session.do_handshake()
                self._send_all(self._outgoing.read())
                self._session = session
                return
            except ssl.SSLWantReadError:
                self._send_all(self._outgoing.read())
                self._receive_handshake()
            except ssl.SSLError as error:
                self._outgoing_alert()
                raise tls_error(self.origin.host, error) from None

    def _receive_handshake(self) -> None:
        while True:
            try:
                data = self._sock.recv(READ_BYTES)
            except BlockingIOError:
                gsocket.wait_read(self._sock.fileno())
                continue
            except OSError as error:
                raise RequestError("tls", f"the connection broke during the TLS handshake: {error.strerror}") from None
            if not data:
                raise RequestError("tls", "the server closed the connection during the TLS handshake")
            self._incoming.write(data)
            return

    def _outgoing_alert(self) -> None:
        alert = self._outgoing.read()
        if alert:
            try:
                self._sock.send(alert)
            except OSError:
                return  # the peer need not hear why

    # Sending

    def _send_all(self, data: bytes) -> int:
        view = memoryview(data)
        sent = 0
        while view:
            if self._sock is None or (self._exchange is not None and self._exchange.finished):
                raise RequestError("connect", "the server answered or closed before the request was all sent")
            # Before the call: on a busy machine another process may run, and the server answer, before it returns.
            sent = time.monotonic_ns()
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                self._wait_writable()
            except OSError as error:
                raise RequestError("connect", f"the connection broke while sending: {error.strerror}") from None
        return sent

    def _wait_writable(self) -> None:
        # A watcher of our own, since whoever closes the socket meanwhile must be able to end it first.
        watcher = self._write_watcher = gevent.get_hub().loop.io(self._sock.fileno(), 2)
        watcher.start(self._writable.set)
        try:
            self._writable.wait()
        finally:
            self._writable.clear()
            self._stop_write_watcher()

    def _stop_write_watcher(self) -> None:
        watcher, self._write_watcher = self._write_watcher, None
        if watcher is not None:
            watcher.stop()
            watcher.close()
            self._writable.set()

    # What the reader calls

    @property
    def awaits_first_byte(self) -> bool:
        """Whether a request was sent and nothing of its answer has come."""
        return self._exchange is not None and self._exchange.awaits_first_byte

    def received(self, data: bytes, at: int, low: int, handled: int, clock: Clock) -> None:
        """As `Sink` has it."""
        ended, broken = False, None
        if self._session is not None:
            data, ended, broken = self._decrypt(self._session, data)
        exchange = self._exchange
        if data and exchange is None:
            self.close()  # nobody asked: not a connection to send another request on
        elif data and exchange is not None:
            try:
                exchange.feed(data, at, low, handled, clock)
            except Exception as error:  # here is nobody else to catch it, and the request must end
                _log.exception("A reply could not be handled.")
                self._fail(RequestError("client", f"the reply could not be handled: {error!r}"), handled)
            if exchange.finished:
                self._writable.set()  # a sender that still waits need not
        if broken is not None:
            self._fail(tls_broke(broken), handled)
        elif ended and self.alive:
            self.ended(handled)

    def ended(self, at: int) -> None:
        """As `Sink` has it."""
        exchange = self._exchange
        self.close()
        if exchange is not None:
            exchange.eof(at)

    def broke(self, error_number: int, at: int) -> None:
        """As `Sink` has it."""
        reset = error_number == errno.ECONNRESET
        text = "the server reset the connection" if reset else f"the connection broke: {os.strerror(error_number)}"
        self._fail(RequestError("truncated", text), at)

    def _decrypt(self, session: ssl.SSLObject, data: bytes) -> tuple[bytes, bool, ssl.SSLError | None]:
        """(plain text, whether TLS has ended, what broke it)."""
        incoming = self._incoming
        incoming.write(data)
        pieces = []
        ended = False
        try:
            # Not until it wants more: raising that costs more than decrypting a chunk.
            while incoming.pending and not ended:
                piece = session.read(RECORD_BYTES)
                pieces.append(piece)
                ended = not piece
        except ssl.SSLWantReadError:
            pass  # what is left is the beginning of a record
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError as error:
            return b"".join(pieces), False, error
        if self._outgoing.pending:
            self._outgoing_alert()  # the answer to a key update, small enough for one send
        return b"".join(pieces), ended, None

    def _fail(self, error: RequestError, now: int) -> None:
        exchange = self._exchange
        self.close()
        if exchange is not None:
            exchange.fail(error, now)
