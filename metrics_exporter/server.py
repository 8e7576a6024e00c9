"""HTTP/1.1 over sockets: a thread for each connection, and bounds so that no client can do harm.

Connections that take too long over a request, TLS handshakes included, are closed; beyond MOST_CONNECTIONS the one that
has been quiet for the longest makes room. Sampling runs in other threads and never waits for any of this.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from metrics_exporter import __version__
from metrics_exporter.access import Passwords
from metrics_exporter.answers import Answer, Answers

log = logging.getLogger("metrics_exporter")

MOST_CONNECTIONS: Final = 100
SECONDS_PER_REQUEST: Final = 30.0
"""From the end of one answer, or the connection's start, to the end of the next answer: longer than scrapers pause."""


class Server(ThreadingHTTPServer):
    """Listens from the start; `serve_forever` answers. Raises OSError if it cannot listen."""

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        answers: Answers,
        passwords: Passwords | None = None,
        tls: ssl.SSLContext | None = None,
        seconds_per_request: float = SECONDS_PER_REQUEST,
    ) -> None:
        self.answers = answers
        self.passwords = passwords
        self._tls = tls
        self._limit = seconds_per_request
        self._since: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        self.address_family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        super().__init__(address, _Connection)

    def server_bind(self) -> None:
        """Without the look-up of this host's name that HTTPServer makes: it can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._make_room()
        self.heard_from(connection)
        return connection, address

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread, so that a handshake keeps nobody waiting."""
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(self._limit)
        with self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as encrypted:
            self._follow(request, encrypted)
            try:
                encrypted.do_handshake()
                super().finish_request(encrypted, client_address)
            finally:
                self.forget(encrypted)

    def shutdown_request(self, request: Any) -> None:
        self.forget(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that break off, or speak something else, are their own affair."""
        log.debug("a connection from %s ended early", client_address, exc_info=True)

    def service_actions(self) -> None:
        """Called twice a second by serve_forever."""
        overdue = time.monotonic() - self._limit
        with self._lock:
            for connection in [held for held, since in self._since.items() if since < overdue]:
                self._cut(connection)

    def heard_from(self, connection: socket.socket) -> None:
        """A connection begins, or has its answer: its time for the next request starts."""
        with self._lock:
            self._since[connection] = time.monotonic()

    def forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._since.pop(connection, None)

    def _follow(self, old: socket.socket, new: socket.socket) -> None:
        """TLS takes a socket over: the old object has no descriptor any more."""
        with self._lock:
            self._since[new] = self._since.pop(old, time.monotonic())

    def _make_room(self) -> None:
        with self._lock:
            while len(self._since) >= MOST_CONNECTIONS:
                self._cut(min(self._since, key=lambda held: self._since[held]))

    def _cut(self, connection: socket.socket) -> None:
        """Wakes the thread that waits for it, which then ends. Call with the lock held."""
        self._since.pop(connection, None)
        with contextlib.suppress(OSError):  # it may have ended by itself
            # The plain socket's: a TLS object would want to say goodbye first.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"metrics_exporter/{__version__}"
    sys_version = ""
    timeout = SECONDS_PER_REQUEST
    disable_nagle_algorithm = True
    wbufsize = 65536  # head and body in one write, so that the clock is read just before it
    server: Server

    def do_GET(self) -> None:
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body that nobody reads would be taken for the next request
        self._send(self._answer())
        self.server.heard_from(self.connection)

    do_HEAD = do_GET

    def _answer(self) -> Answer:
        passwords = self.server.passwords
        if passwords is not None and not passwords.allow(self.headers.get("Authorization")):
            ask = {"WWW-Authenticate": 'Basic realm="metrics exporter", charset="UTF-8"'}
            return Answer(401, "text/plain; charset=utf-8", b"a name and a password are needed\n", ask)
        return self.server.answers.get(self.path, {name.lower(): value for name, value in self.headers.items()})

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """For what is no GET: in plain words, and the connection ends."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code, message = HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are answered"
        self.close_connection = True
        text = (message or HTTPStatus(code).phrase) + "\n"
        allow = {"Allow": "GET, HEAD"} if code == HTTPStatus.METHOD_NOT_ALLOWED else {}
        self._send(Answer(code, "text/plain; charset=utf-8", text.encode(), allow))

    def log_message(self, format: str, *args: Any) -> None:
        """A line for every scrape would bury what matters."""
