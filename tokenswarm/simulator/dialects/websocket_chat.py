"""ChatGLM's chat over a WebSocket: a query and its history a turn, answered by the text so far again and again.

Not in `DIALECTS`: it has a route of its own (`simulator/websocket.py`).
"""

from __future__ import annotations

import struct

import msgspec

from tokenswarm.simulator.dialects.base import Dialect, Events, Reply
from tokenswarm.simulator.request import ApiError, Request, TokenCount

NORMAL_CLOSURE = 1000

_TEXT, _CLOSE = 0x81, 0x88
_GOING_ON, _DONE = 202, 200


def frame(payload: bytes, opcode: int = _TEXT) -> bytes:
    """A whole message in one frame, as a server sends it: not masked."""
    size = len(payload)
    if size < 126:
        return bytes([opcode, size]) + payload
    if size < 65536:
        return struct.pack("!BBH", opcode, 126, size) + payload
    return struct.pack("!BBQ", opcode, 127, size) + payload


def close_frame() -> bytes:
    """The end of the WebSocket, in order."""
    return frame(struct.pack("!H", NORMAL_CLOSURE), _CLOSE)


class WebSocketChatRequest(Request, kw_only=True):
    """`id` is what the send log calls the turn, since there are no headers."""

    query: str
    history: list[list[str]] | None = None
    max_tokens: TokenCount | None = None
    seed: int | None = None
    id: str | None = None

    def texts(self) -> list[str]:
        return [*(text for turn in self.history or [] for text in turn), self.query]

    def limit(self) -> int | None:
        return self.max_tokens

    def own_seed(self) -> int | None:
        return self.seed

    def reasons(self) -> bool:
        return False


class WebSocketChatEvents(Events):
    """Messages, of a frame each. If `closes`, the reply ends with the WebSocket instead of with a message."""

    mark = b"}"

    def __init__(self, reply: Reply, request: WebSocketChatRequest, *, closes: bool) -> None:
        super().__init__(reply, chunked=False)
        self._closes = closes
        self.end = close_frame() if closes else b""
        history = msgspec.json.encode([*(request.history or []), [request.query, ""]])
        self._between = b'","history":' + history[:-3]
        self._tail = b'"]],"status":%d}' % _GOING_ON
        self._so_far = b""

    def frame(self, events: bytes) -> bytes:
        return frame(events)

    def text(self, piece: bytes, reasoning: bool, said: int) -> bytes:
        self._so_far += piece
        return frame(b'{"response":"%b%b%b%b' % (self._so_far, self._between, self._so_far, self._tail))

    def closing(self) -> bytes:
        return b""

    def done(self) -> bytes:
        return b"" if self._closes else frame(b'{"status":%d}' % _DONE)

    def error(self, error: ApiError) -> bytes:
        return frame(_error(error))

    def malformed(self) -> bytes:
        return frame(b'{"response":"')


class WebSocketChat(Dialect[WebSocketChatRequest]):
    path = "/ws"
    request_type = WebSocketChatRequest

    def streams(self, request: WebSocketChatRequest, headers: object) -> bool:
        return True

    def whole(self, reply: Reply, request: WebSocketChatRequest, text: str, reasoning: str) -> bytes:
        raise NotImplementedError("every reply is streamed")

    def refusal(self, error: ApiError) -> bytes:
        return _error(error)


def _error(error: ApiError) -> bytes:
    return msgspec.json.encode({"status": error.status, "error": str(error)})
