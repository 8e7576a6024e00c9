"""What a WebSocket receives, push-style: the handshake's answer, then frames, as the messages of turn after turn.

Frames are read by wsproto's decoder, wherever the network cuts them. Knows no socket and reads no clock.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from wsproto.frame_protocol import CloseReason, Frame, FrameDecoder, FrameProtocol, Opcode, ParseFailed
from wsproto.utilities import generate_accept_token

from tokenswarm.errors import RequestError
from tokenswarm.framing import MAX_EVENT_BYTES
from tokenswarm.timing import Clock
from tokenswarm.transport.exchange import HttpExchange
from tokenswarm.transport.request import Request

SWITCHING_PROTOCOLS: Final = 101
NO_CODE: Final = 1005
_CLEAN: Final = (1000, 1001, NO_CODE)
_DROPPED: Final = (*_CLEAN, 1006, 1012)
"""Close codes that say no more than that the server has gone; any other names an error."""


class Turn(HttpExchange):
    """One request over a WebSocket and its reply, in messages. The first turn on a connection begins with the answer to
    the handshake, which is HTTP: a refusal is how that turn ends."""

    __slots__ = ("_accept", "_heard", "_key", "_on_accepted", "accepted", "asked", "first_bytes")

    def __init__(self, request: Request, on_finished: Callable[[], None]) -> None:
        super().__init__(request, on_finished)
        self.accepted = False
        """Whether the server has just agreed to a WebSocket."""
        self.first_bytes = b""
        """What came with that, of the WebSocket's own."""
        self.asked = False
        self._heard = False
        self._accept = b""
        self._key = b""
        self._on_accepted: Callable[[], None] | None = None

    def expect_acceptance(self, key: bytes, on_accepted: Callable[[], None]) -> None:
        """A handshake with this key is about to be sent."""
        self._key, self._on_accepted = key, on_accepted

    def begin(self) -> None:
        """The request is about to be sent: messages that come from now on are its reply."""
        self.asked = self.awaits_first_byte = self.streamed = True
        self.status = SWITCHING_PROTOCOLS

    @property
    def answered(self) -> bool:
        """Whether a message has come: a server that closes an idle connection may say so first."""
        return self._heard

    def message(self, data: bytes) -> None:
        """A whole message of the reply. Raises RequestError (`malformed`)."""
        self._heard = True
        self.body(data)

    def followed(self) -> None:
        """Something else came after the last message of this read."""
        self._after_last_chunk = True

    def closed(self, code: int, reason: str, at: int) -> None:
        """The server has closed the WebSocket, and says why."""
        if code in _CLEAN and self._protocol.ends_by_close:
            self._done_at = at
            self.conclude(at)
            return
        name = CloseReason(code).name.lower().replace("_", " ") if code in set(CloseReason) else ""
        said = ", ".join(filter(None, (name, reason)))
        text = f"the server closed the WebSocket in mid-reply, code {code}{f' ({said})' if said else ''}"
        self.fail(RequestError("truncated" if code in _DROPPED else "stream_error", text), at)

    def eof(self, at: int) -> None:
        """The connection has ended without a word."""
        if self.asked:
            self.fail(RequestError("truncated", "the server dropped the WebSocket in mid-reply"), at)
        else:
            super().eof(at)

    # The handshake

    def upgraded(self, rest: bytes) -> RequestError | None:
        """As `HttpExchange` has it: as it should be, if the server has understood."""
        if self._on_accepted is None or self._accept != generate_accept_token(self._key):
            return RequestError("malformed", "the server's Sec-WebSocket-Accept is not the answer to our key")
        self.accepted, self.first_bytes = True, rest
        self._on_accepted()
        return None

    def headers(self, status: int, content_type: str, encoding: str, location: str, delimited: bool) -> None:
        """As `ReplyState` has it, of a server that does not switch. Raises RequestError."""
        super().headers(status, content_type, encoding, location, delimited)
        if status < 300:
            text = f"HTTP {status} instead of a WebSocket; is there one at this path (--ws-path)?"
            raise RequestError("malformed", text, status)

    def on_header(self, name: bytes, value: bytes) -> None:
        """As `HttpExchange` has it."""
        super().on_header(name, value)
        if name.lower() == b"sec-websocket-accept":
            self._accept = value.strip()

    def on_message_complete(self) -> None:
        """As `HttpExchange` has it. Raises RequestError on a switch to nothing."""
        super().on_message_complete()
        if self._parser.get_status_code() == SWITCHING_PROTOCOLS and not self._parser.should_upgrade():
            raise RequestError("malformed", "HTTP 101 without 'Upgrade: websocket' and 'Connection: Upgrade'")

    def _finish(self, at: int) -> None:
        super()._finish(at)
        del self._on_accepted


class Messages:
    """What a connection pushes into for as long as it lives; `turn` is whose messages they are.

    What comes between two turns is nobody's, and ends the connection; what comes before the first request, such as a
    greeting, is passed over.
    """

    def __init__(self) -> None:
        self.turn: Turn | None = None
        self.open = False
        """Whether the server has agreed to the handshake."""
        self.over = False
        """Whether the connection is of no more use."""
        self._answer = b""
        self._decoder = FrameDecoder(client=True)
        self._encoder = FrameProtocol(client=True, extensions=[])
        self._inside = False
        self._begun = bytearray()
        self._unasked = False
        self._close: tuple[int, str] | None = None

    @property
    def awaits_first_byte(self) -> bool:
        """As `Exchange` has it."""
        return self.turn is not None and self.turn.awaits_first_byte

    @property
    def finished(self) -> bool:
        """As `Exchange` has it: of the turn that is on."""
        return self.turn is not None and self.turn.finished

    def feed(self, data: bytes, at: int, low: int, handled: int, clock: Clock) -> None:
        """As `Exchange` has it."""
        turn = None if self.turn is None or self.turn.finished else self.turn
        if not self.open:
            if turn is None:
                self.over = True
                return
            turn.feed(data, at, low, handled, clock)
            if not turn.accepted:
                return
            self.open = True
            data = turn.first_bytes
        elif turn is not None:
            turn.awaits_first_byte = False
            turn.read_began(len(data), at, low, clock)
            if turn.finished:
                self.over = True
                return
        error = self._read(data, turn)
        self.over = self.over or error is not None or self._close is not None
        if turn is None:
            self.over = self.over or self._unasked
            return
        turn.read_ended(handled)
        if turn.done_at is not None:
            # After an error nobody knows where the server's reply ends; it might be taken for the next one.
            turn.reusable = turn.error is None and not (self.over or self._unasked or self._pending)
            turn.conclude(at)
        elif error is not None:
            turn.fail(error, at)
        elif self._close is not None:
            turn.closed(*self._close, at)

    def eof(self, at: int) -> None:
        """As `Exchange` has it."""
        self.over = True
        if self.turn is not None:
            self.turn.eof(at)

    def fail(self, error: RequestError, at: int) -> None:
        """As `Exchange` has it."""
        self.over = True
        if self.turn is not None:
            self.turn.fail(error, at)

    def take_answer(self) -> bytes:
        """What has to be sent at once, after a read: to the latest ping, or to the close; empty for nothing."""
        answer, self._answer = self._answer, b""
        return answer

    def frame(self, text: str) -> bytes:
        """A text message of ours, ready to send."""
        return bytes(self._encoder.send_data(text))

    def goodbye(self) -> bytes:
        """The frame that closes the WebSocket, ready to send."""
        return bytes(self._encoder.close(CloseReason.NORMAL_CLOSURE))

    @property
    def _pending(self) -> bool:
        """Whether part of a frame or of a message has come."""
        return self._inside or self._decoder.header is not None or len(self._decoder.buffer) > 0

    def _read(self, data: bytes, turn: Turn | None) -> RequestError | None:
        """Every frame that these bytes complete; what is wrong with one of them."""
        self._unasked = False
        decoder = self._decoder
        try:
            decoder.receive_bytes(data)
            while self._close is None and (frame := decoder.process_buffer()) is not None:
                if not frame.opcode.iscontrol():
                    self._piece(frame, turn)
                    continue
                self._control(frame)
                if turn is not None:
                    turn.followed()
        except ParseFailed as error:
            return RequestError("malformed", f"not a WebSocket's frame: {error}")
        except RequestError as error:
            return error
        if turn is not None and self._pending:
            turn.followed()
        return None

    def _piece(self, frame: Frame, turn: Turn | None) -> None:
        """A frame of a message, or as much of one as has come."""
        if (frame.opcode is Opcode.CONTINUATION) is not self._inside:
            raise RequestError("malformed", "a message begins in the middle of another, or goes on before it began")
        data = frame.payload
        assert isinstance(data, bytes)  # wsproto's decoder for messages would make it text
        whole = frame.frame_finished and frame.message_finished
        if self._inside or not whole:
            self._begun += data
            if len(self._begun) > MAX_EVENT_BYTES:
                raise RequestError("malformed", f"a message of more than {MAX_EVENT_BYTES} bytes")
            self._inside = not whole
            if not whole:
                return
            data = bytes(self._begun)
            self._begun.clear()
        if turn is not None and turn.asked and turn.done_at is None:
            turn.message(data)
        elif turn is None or turn.asked:
            self._unasked = True

    def _control(self, frame: Frame) -> None:
        data = frame.payload
        assert isinstance(data, bytes)
        if frame.opcode is Opcode.PING:
            self._answer = bytes(self._encoder.pong(data))
        elif frame.opcode is Opcode.CLOSE:
            if len(data) == 1:
                raise RequestError("malformed", "a close frame with half a code")
            code: int = struct.unpack("!H", data[:2])[0] if data else NO_CODE
            self._close = code, data[2:].decode("utf-8", "replace")
            self._answer = self.goodbye()
