"""The server's end of a WebSocket, byte by byte: what a test sends is what goes over the wire. No WebSocket library."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

from scripted_server import Peer

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
END = {"status": 200}


def frame(payload: bytes, opcode: int = TEXT, last: bool = True) -> bytes:
    """One frame as a server sends it."""
    size = len(payload)
    if size < 126:
        length = bytes([size])
    else:
        length = b"\x7e" + struct.pack("!H", size) if size < 65536 else b"\x7f" + struct.pack("!Q", size)
    return bytes([opcode | (0x80 if last else 0)]) + length + payload


def message(value: Any) -> bytes:
    """A whole message: a string as it is, all else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return frame(text.encode())


def so_far(text: str) -> bytes:
    """ChatGLM's message in mid-reply."""
    return message({"response": text, "history": [], "status": 202})


def close(code: int | None = None, reason: str = "") -> bytes:
    return frame(b"" if code is None else struct.pack("!H", code) + reason.encode(), CLOSE)


def acceptance(key: str) -> bytes:
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
    )


class Socket:
    """A peer that speaks WebSocket."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.head: dict[str, str] = {}
        self.request_line = ""
        self._unread = b""

    def handshake(self) -> None:
        """Read the request; keeps its headers, by lower-case name."""
        while b"\r\n\r\n" not in self._unread:
            self._read()
        head, self._unread = self._unread.split(b"\r\n\r\n", 1)
        self.request_line, *lines = head.decode().split("\r\n")
        self.head = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    def accept(self, also: bytes = b"") -> None:
        """The handshake, answered."""
        self.handshake()
        self.peer.send(acceptance(self.head["sec-websocket-key"]) + also)

    def frame(self) -> tuple[int, bytes]:
        """(opcode, payload) of the next frame. Raises OSError when the client has gone."""
        first, second = self._take(2)
        size = second & 127
        if size > 125:
            (size,) = struct.unpack("!H", self._take(2)) if size == 126 else struct.unpack("!Q", self._take(8))
        assert second & 128, "a client masks"
        mask = self._take(4) * (size // 4 + 1)
        payload = self._take(size)
        return first & 15, bytes(a ^ b for a, b in zip(payload, mask, strict=False))

    def query(self) -> Any:
        """The next message, as JSON. Pongs are passed over."""
        opcode, payload = self.frame()
        while opcode == PONG:
            opcode, payload = self.frame()
        if opcode == CLOSE:
            raise ConnectionResetError("closed")
        assert opcode == TEXT
        return json.loads(payload)

    def send(self, *parts: bytes) -> None:
        self.peer.send(b"".join(parts))

    def _take(self, size: int) -> bytes:
        while len(self._unread) < size:
            self._read()
        taken, self._unread = self._unread[:size], self._unread[size:]
        return taken

    def _read(self) -> None:
        piece = self.peer.sock.recv(65536)
        if not piece:
            raise ConnectionResetError("the client has gone")
        self._unread += piece


def speaking(script: Callable[[Socket], Any]) -> Callable[[Peer], None]:
    """A script for `scripted` that begins when the WebSocket is open."""

    def run(peer: Peer) -> None:
        socket = Socket(peer)
        socket.accept()
        script(socket)

    return run


def chats(socket: Socket) -> None:
    """Answers every query with two messages and the end."""
    while True:
        socket.query()
        socket.send(so_far("hel"))
        socket.send(so_far("hello"))
        socket.send(message(END))
