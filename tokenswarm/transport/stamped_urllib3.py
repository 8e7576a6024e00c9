"""urllib3's connections, pools and requests' adapter, made to tell an attempt what they do on the wire, and when.

requests alone tells neither which read brought a chunk, nor when the request's last byte left, nor how many bytes went
over the wire, and its own limits are per read. So each socket call of these connections goes through the attempt that
is on in the calling greenlet. What is parsed, tunnelled and authenticated stays theirs.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Protocol

import gevent
from gevent.monkey import get_original
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.contrib.socks import SOCKSConnection, SOCKSHTTPSConnection
from urllib3.exceptions import HTTPError

from tokenswarm.errors import RequestError
from tokenswarm.transport.dial import address_text, dial
from tokenswarm.transport.tls import tls_error

READ_BYTES: Final = 65536
POOL_SIZE: Final = 64
"""Connections that one user may keep idle: as many as it ever has requests in flight."""

_unpatched_poll: Final[Callable[[], select.poll]] = get_original("select", "poll")


def readable(sock: Any) -> bool:
    """Whether a socket holds anything, its end included. Never waits."""
    poller = _unpatched_poll()
    poller.register(sock.fileno(), select.POLLIN)
    return bool(poller.poll(0))


class Attempt(Protocol):
    """One attempt at a request, as its connection sees it."""

    fresh: bool
    """Idle connections must not be taken."""
    opening: bool

    def connect_seconds(self) -> float:
        """How long opening a connection may take now. Raises RequestError."""

    def opened(self, connection: StampedConnection) -> None:
        """A connection was made for this attempt; its times are on it."""

    def send(self, connection: StampedConnection, data: bytes) -> None:
        """Hand every byte to the kernel. Raises RequestError."""

    def receive(self, sock: Any, buffer: Any) -> int:
        """Wait for bytes and put them into the buffer; 0 at the end of the stream. Raises RequestError."""


CURRENT: ContextVar[Attempt] = ContextVar("attempt")
"""The attempt that is on in this greenlet. urllib3 passes nothing of ours down to its connections."""


class _Reads(io.RawIOBase):
    """A response's bytes, read through the attempt. Holds the socket open until it is closed, as makefile does."""

    def __init__(self, sock: Any, holder: Any) -> None:
        self._sock = sock
        self._holder = holder
        self._attempt = CURRENT.get()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._attempt.receive(self._sock, buffer)

    def close(self) -> None:
        self._holder.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        if not CURRENT.get().opening:  # else a proxy's answer to CONNECT, which is no part of the reply
            self.fp = io.BufferedReader(_Reads(sock, self.fp), READ_BYTES)

    def _read_status(self) -> tuple[str, int, str]:
        # http.client skips 100 Continue only; 103 Early Hints and its kin announce the real answer too.
        version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, http.HTTPStatus.CONTINUE if 101 < status < 200 else status, reason


class StampedConnection(HTTPConnection):
    """What all of ours have in common; the classes below say how the TCP connection is made."""

    response_class = _Response
    remote_addr: str | None = None
    dns_ns: int | None = None
    tcp_ns: int | None = None
    tls_ns: int | None = None

    @property
    def is_connected(self) -> bool:
        """Whether it is open and nothing waits in it, so that it may carry a request."""
        if self.sock is None or CURRENT.get().fresh:
            return False
        return not readable(self.sock)

    def connect(self) -> None:
        """Connect, tunnel and shake hands within the attempt's time. Raises RequestError."""
        attempt = CURRENT.get()
        seconds = attempt.connect_seconds()
        self.timeout = seconds  # of each step; of all together where gevent switches
        timer = gevent.Timeout(seconds)
        began = time.monotonic_ns()
        attempt.opening = True
        try:
            with timer:
                self._open()
        except (gevent.Timeout, TimeoutError) as fired:
            self.close()
            if isinstance(fired, gevent.Timeout) and fired is not timer:
                raise
            raise RequestError("connect_timeout", f"no connection to {self._peer()} within {seconds:g} s") from None
        except BaseException:
            self.close()
            raise
        finally:
            attempt.opening = False
        if isinstance(self, HTTPSConnection):
            self.tls_ns = time.monotonic_ns() - began - (self.dns_ns or 0) - (self.tcp_ns or 0)
        attempt.opened(self)

    def send(self, data: Any) -> None:
        """All that goes out: the request through the attempt, a CONNECT to the proxy as it is."""
        if self.sock is None:
            self.connect()
        attempt = CURRENT.get()
        if attempt.opening:
            super().send(data)
        else:
            attempt.send(self, bytes(data))

    def _open(self) -> None:
        """urllib3's connect, its errors turned into ours."""
        try:
            super().connect()
        except ssl.SSLError as error:
            raise tls_error(self._tunnel_host or self.host, error) from None
        except TimeoutError:
            raise
        except OSError as error:
            why = error.strerror or error
            raise RequestError("tls", f"the connection broke during the TLS handshake: {why}") from None

    def _tunnel(self) -> None:
        began = time.monotonic_ns()
        try:
            super()._tunnel()
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise RequestError("connect", f"{self._peer()} made no connection: {error}") from None
        self.tcp_ns = (self.tcp_ns or 0) + time.monotonic_ns() - began

    def _connect_tls_proxy(self, hostname: str, sock: Any) -> Any:
        try:
            return super()._connect_tls_proxy(hostname, sock)  # type: ignore[misc]
        except ssl.SSLError as error:
            raise tls_error(self._peer(), error) from None

    def _peer(self) -> str:
        """Whom the TCP connection goes to, for messages."""
        address = address_text((self.host, self.port))
        return f"the proxy {address}" if self.proxy is not None else address


class _Direct(StampedConnection):
    """To the server, or to an HTTP proxy."""

    def _new_conn(self) -> socket.socket:
        dialled = dial(self.host, self.port or self.default_port, lambda sock: None, self._peer())
        self.remote_addr, self.dns_ns, self.tcp_ns = dialled.remote_addr, dialled.dns_ns, dialled.tcp_ns
        sock: socket.socket = dialled.sock
        sock.settimeout(self.timeout if isinstance(self.timeout, int | float) else None)
        return sock


class _ThroughSocks(StampedConnection):
    """Through a SOCKS proxy, by PySocks; name lookup, connect and the proxy's own answer are one time, `tcp_ns`."""

    def _new_conn(self) -> socket.socket:
        began = time.monotonic_ns()
        try:
            sock: socket.socket = super()._new_conn()
        except HTTPError as error:
            raise _socks_error(error, self._peer()) from None
        self.tcp_ns = time.monotonic_ns() - began
        # PySocks' own getpeername gives the server as it was asked for; the connection goes to the proxy.
        self.remote_addr = address_text(socket.socket.getpeername(sock))
        return sock

    def _peer(self) -> str:
        options: Any = getattr(self, "_socks_options", {})
        return f"the proxy {options.get('proxy_host')}:{options.get('proxy_port')}"


def _socks_error(error: BaseException, peer: str) -> RequestError:
    text = str(error).rpartition("Failed to establish a new connection: ")[2]
    cause: BaseException | None = error
    while cause is not None:
        found = getattr(cause, "socket_err", None) or cause
        if isinstance(found, TimeoutError):
            raise found
        if isinstance(found, socket.gaierror):
            return RequestError("dns", f"cannot resolve the server's name, or {peer}: {found.strerror}")
        cause = cause.__cause__ or cause.__context__
    return RequestError("connect", f"{peer} made no connection: {text}")


class _DirectHTTP(_Direct, HTTPConnection):
    pass


class _DirectHTTPS(_Direct, HTTPSConnection):
    pass


class _SocksHTTP(_ThroughSocks, SOCKSConnection):
    pass


class _SocksHTTPS(_ThroughSocks, SOCKSHTTPSConnection):
    pass


class _DirectPool(HTTPConnectionPool):
    ConnectionCls = _DirectHTTP


class _DirectTlsPool(HTTPSConnectionPool):
    ConnectionCls = _DirectHTTPS


class _SocksPool(HTTPConnectionPool):
    ConnectionCls = _SocksHTTP


class _SocksTlsPool(HTTPSConnectionPool):
    ConnectionCls = _SocksHTTPS


class StampedAdapter(HTTPAdapter):
    """requests' adapter over the connections above, with one TLS context for all of them.

    requests would trust the authorities that it brings along (certifi) beside those of the context: here the context
    alone says who is trusted, as on the fast transport.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(pool_connections=1, pool_maxsize=POOL_SIZE)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = {"http": _DirectPool, "https": _DirectTlsPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        kwargs["ssl_context"] = self._context
        socks = proxy.lower().startswith("socks")
        if not socks:
            kwargs["proxy_ssl_context"] = self._context
        manager = super().proxy_manager_for(proxy, **kwargs)
        pools = (_SocksPool, _SocksTlsPool) if socks else (_DirectPool, _DirectTlsPool)
        manager.pool_classes_by_scheme = dict(zip(("http", "https"), pools, strict=True))
        return manager

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: see above."""
