"""A TCP server that does to each connection exactly what a test scripts, in a thread of its own, and notes when."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def event(text: str, finish: str | None = None) -> bytes:
    """One SSE event with a text, as one HTTP chunk."""
    delta = {"content": text} if text else {}
    data = b"data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": finish}]}).encode() + b"\n\n"
    return chunk(data)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


DONE = chunk(b"data: [DONE]\n\n")
REPLY = HEAD + event("hello") + event("", "stop") + DONE + END


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, number: int, stop: threading.Event) -> None:
        self.sock = sock
        self.number = number
        self.stop = stop
        """Set when the test is over; wait on it to do nothing."""
        self.sent: list[int] = []

    def request(self) -> bytes:
        """Read one whole request (with Content-Length); empty when the client closed."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.sock.recv(65536)
            if not piece:
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(int(h[15:]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length:"))
        while len(body) < length:
            body += self.sock.recv(65536)
        return head + b"\r\n\r\n" + body

    def send(self, data: bytes) -> None:
        """Send now, and note the moment before."""
        self.sent.append(time.monotonic_ns())
        self.sock.sendall(data)

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Server:
    """Where it listens, and the peers it has had."""

    def __init__(self, port: int, scheme: str) -> None:
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.port = port
        self.peers: list[Peer] = []


@contextmanager
def scripted(script: Callable[[Peer], Any], tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Runs `script` for each connection; what it leaves open is closed when it returns."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(listener.getsockname()[1], "https" if tls else "http")
    stop = threading.Event()
    threads = []

    def serve(sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                sock = tls.wrap_socket(sock, server_side=True)
            peer = Peer(sock, len(server.peers), stop)
            server.peers.append(peer)
            script(peer)
        except OSError:
            return  # the client went away, which some tests are about
        finally:
            sock.close()

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=serve, args=(sock,), daemon=True)
            thread.start()
            threads.append(thread)

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield server
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(5)
        for peer in server.peers:
            with suppress(OSError):  # closed already
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
