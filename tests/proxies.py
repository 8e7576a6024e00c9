"""The smallest HTTP and SOCKS5 proxies that are true to their protocols, for `scripted_server.scripted`."""

from __future__ import annotations

import base64
import socket
import struct
import threading
from contextlib import suppress
from urllib.parse import urlsplit

from scripted_server import Peer


class HttpProxy:
    """CONNECT tunnels, and requests in absolute form, by RFC 9110; `asked` notes the request lines."""

    def __init__(self, credentials: str | None = None) -> None:
        self.asked: list[str] = []
        self._authorization = credentials and "Basic " + base64.b64encode(credentials.encode()).decode()

    def __call__(self, peer: Peer) -> None:
        upstream: socket.socket | None = None
        while head := read_head(peer.sock):
            line, *headers = head.split("\r\n")
            self.asked.append(line)
            fields = {name.lower(): value for name, _, value in (header.partition(": ") for header in headers)}
            if self._authorization and fields.get("proxy-authorization") != self._authorization:
                peer.send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            method, target, version = line.split(" ")
            if method == "CONNECT":
                host, _, port = target.rpartition(":")
                try:
                    upstream = socket.create_connection((host, int(port)))
                except OSError:
                    peer.send(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
                    return
                peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
                relay(peer.sock, upstream)
                return
            url = urlsplit(target)
            if upstream is None:
                upstream = socket.create_connection((url.hostname or "", url.port or 80))
                threading.Thread(target=pump, args=(upstream, peer.sock), daemon=True).start()
            kept = [header for header in headers if not header.lower().startswith("proxy-")]
            upstream.sendall("\r\n".join([f"{method} {url.path} {version}", *kept, "", ""]).encode("latin-1"))
            left = int(fields["content-length"])
            while left > 0 and (piece := peer.sock.recv(min(left, 65536))):
                upstream.sendall(piece)
                left -= len(piece)


class SocksProxy:
    """SOCKS5's CONNECT, by RFC 1928 and 1929; `asked` notes where to, and as which kind of address."""

    def __init__(self, credentials: tuple[str, str] | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self._credentials = credentials

    def __call__(self, peer: Peer) -> None:
        sock = peer.sock
        _, methods = exactly(sock, 2)
        offered = exactly(sock, methods)
        if self._credentials is None:
            sock.sendall(b"\x05\x00")
        else:
            assert 2 in offered
            sock.sendall(b"\x05\x02")
            name = exactly(sock, exactly(sock, 2)[1]).decode()
            password = exactly(sock, exactly(sock, 1)[0]).decode()
            good = (name, password) == self._credentials
            sock.sendall(b"\x01\x00" if good else b"\x01\x01")
            if not good:
                return
        _, _, _, kind = exactly(sock, 4)
        host = exactly(sock, exactly(sock, 1)[0]).decode() if kind == 3 else socket.inet_ntoa(exactly(sock, 4))
        (port,) = struct.unpack("!H", exactly(sock, 2))
        self.asked.append(("name" if kind == 3 else "address", host))
        try:
            upstream = socket.create_connection((host, port))
        except OSError:
            sock.sendall(b"\x05\x05\x00\x01" + bytes(6))  # connection refused
            return
        sock.sendall(b"\x05\x00\x00\x01" + bytes(6))
        relay(sock, upstream)


def read_head(sock: socket.socket) -> str:
    """Up to the blank line, byte by byte, so that nothing of what follows is taken; empty at the end."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            return ""
        data += byte
    return data[:-4].decode("latin-1")


def exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise ConnectionError("the client went away")
        data += piece
    return data


def relay(one: socket.socket, other: socket.socket) -> None:
    """Both ways, until both have ended."""
    back = threading.Thread(target=pump, args=(other, one), daemon=True)
    back.start()
    pump(one, other)
    back.join(5)
    other.close()


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
