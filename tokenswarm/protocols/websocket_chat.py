"""Chat over a WebSocket, as home-made FastAPI servers and ChatGLM's demo speak it: a JSON object with the query and the
history a turn, answered by messages until the turn ends.

Servers differ in names, in what a message holds, and in how a turn ends: a `Shape` says which it is. ChatGLM's is the
default: `{"response": <the text so far>, "history": […], "status": 202}` again and again, then `{"status": 200}`, alone
or with the other two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from tokenswarm.errors import OptionError, RequestError
from tokenswarm.framing import Event
from tokenswarm.protocols import refusals
from tokenswarm.protocols.base import Delta, Generation, Message, WebSocketProtocol, WireRequest
from tokenswarm.protocols.cumulative import CumulativeText
from tokenswarm.protocols.values import as_turns, excerpt, load_object, merged

CLOSE: Final = "close"
_UNWRITABLE = re.compile(r'["\\\x00-\x1f]')
_FIELD_END = re.compile(r"([A-Za-z_][\w-]*)=(.+)", re.DOTALL)
_LIMITS: Final = ("max_tokens", "temperature", "top_p")
LEAST_KEPT: Final = 0.25
"""Share of a text so far that the next one begins with, at least, or messages hold something else."""


class Shape(msgspec.Struct, frozen=True):
    """How a server wants to be asked, and how it answers. `history_field`, `id_field` and `reply_field` may be empty:
    then no history or no id is sent, or a message is plain text."""

    path: str = "/ws"
    query_field: str = "query"
    history_field: str = "history"
    reply_field: str = "response"
    cumulative: bool = True
    """Whether a message holds the text so far, or the next piece of it."""
    end: str = "status=200"
    """What ends a turn: NAME=VALUE, a field and its value; `close`, the server closes; else a text, all of a message or
    of its reply field."""
    id_field: str = ""
    """Where each turn's id goes. In a header it can only go with the handshake, so only the first turn's does."""

    @property
    def end_field(self) -> tuple[str, Any] | None:
        """The field that ends a turn, and its value."""
        match = _FIELD_END.fullmatch(self.end)
        if match is None:
            return None
        try:
            value = msgspec.json.decode(match[2])
        except msgspec.DecodeError:
            value = match[2]
        return match[1], value

    @property
    def progress_field(self) -> str:
        """Where a message says how the turn goes."""
        return "status" if self.end_field is None else self.end_field[0]

    def check(self) -> None:
        """Raises OptionError, naming the option."""
        if not self.path.startswith("/"):
            raise OptionError(f"--ws-path {self.path!r}: begin it with a slash, as in /ws")
        for name in (self.query_field, self.history_field, self.id_field, self.reply_field, self.progress_field):
            if _UNWRITABLE.search(name):
                raise OptionError(f"--ws-…: a field cannot be named {name!r}, with quotes, backslashes or controls")
        if self.reply_field == "error":
            raise OptionError("--ws-reply-field 'error': that is where servers tell of errors")
        if self.query_field == self.history_field:
            raise OptionError(f"--ws-query-field and --ws-history-field are both {self.query_field!r}")
        if self.id_field and self.id_field in (self.query_field, self.history_field, *_LIMITS):
            raise OptionError(f"--ws-id-field {self.id_field!r}: something else goes there")
        if self.end_field is not None and self.end_field[0] == self.reply_field:
            raise OptionError(f"--ws-end {self.end!r}: that is the field of the reply; write its text alone")


class WebSocketChatDecoder:
    """Decodes one reply, a message at a time."""

    __slots__ = ("_decode", "_end", "_goes_on", "_shape", "_so_far", "_spoke")

    def __init__(self, shape: Shape, decode: Callable[[bytes], Any]) -> None:
        """`decode` reads what `message_type` has of a message."""
        self._shape = shape
        self._decode = decode
        self._end = shape.end_field
        self._goes_on: Any = None
        """The end field's value where a turn went on."""
        self._spoke = False
        self._so_far = CumulativeText(LEAST_KEPT)

    def decode(self, event: Event) -> Delta | None:
        """What one message says. Raises RequestError (`malformed`)."""
        if not self._shape.reply_field:
            return self._decode_text(event.data)
        try:
            message = self._decode(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._decode_leniently(event.data)
        said = message.text
        if said is None or said == self._shape.end or message.error or message.end != self._goes_on:
            return self._decode_leniently(event.data)
        return self._new_in(said)

    def decode_whole(self, body: bytes) -> Delta:
        """Never asked: every reply is streamed."""
        raise NotImplementedError(body)

    def _decode_leniently(self, data: bytes) -> Delta | None:
        shape = self._shape
        if self._is_end_text(data.decode("utf-8", "replace")):
            return self._ended(None, data)
        value = load_object(data)
        error = refusals.from_stream(value) or self._failure(value)
        if error is not None:
            return Delta(error=error)
        said = value.get(shape.reply_field)
        if isinstance(said, str) and self._is_end_text(said):
            return self._ended(None, data)
        delta = self._new_in(said) if isinstance(said, str) else None
        if self._ends(value):
            return self._ended(delta, data)
        self._goes_on = value.get(self._shape.progress_field)
        return delta

    def _decode_text(self, data: bytes) -> Delta | None:
        """A message that is the text itself. The one that ends the turn may be an object all the same, and so may one
        that tells of an error instead of a reply."""
        try:
            said = data.decode()
        except UnicodeDecodeError as error:
            raise RequestError("malformed", f"not UTF-8 ({error.reason}): {excerpt(data)}") from None
        if self._is_end_text(said):
            return self._ended(None, data)
        value = _object(said)
        if value is not None and self._ends(value):
            return self._ended(None, data)
        if value is not None and not self._spoke:
            failure = (refusals.from_stream(value) if "error" in value else None) or self._failure(value)
            if failure is not None:
                return Delta(error=failure)
        return self._new_in(said)

    def _new_in(self, said: str) -> Delta | None:
        """What this text adds. Raises RequestError (`malformed`) where it does not go on from the former one."""
        if self._shape.cumulative:
            try:
                said = self._so_far.new_part(said)
            except RequestError as error:
                raise RequestError("malformed", f"{error}; if messages hold pieces, give --ws-reply pieces") from None
        self._spoke = self._spoke or bool(said)
        return Delta(said) if said else None

    def _is_end_text(self, said: str) -> bool:
        return self._end is None and said.strip() == self._shape.end != CLOSE

    def _ends(self, value: dict[str, Any]) -> bool:
        return self._end is not None and self._end[0] in value and value[self._end[0]] == self._end[1]

    def _ended(self, last: Delta | None, data: bytes) -> Delta:
        if not self._spoke:
            field = f" in {self._shape.reply_field!r} (--ws-reply-field)" if self._shape.reply_field else ""
            return Delta(error=RequestError("empty", f"the turn ended without any text{field}: {excerpt(data)}"))
        last = last or Delta()
        last.done = True
        return last

    def _failure(self, value: dict[str, Any]) -> RequestError | None:
        """ChatGLM's way to say how it goes is an HTTP status, and so is its way to say that it went wrong."""
        status = value.get("status")
        if isinstance(status, int) and 400 <= status <= 599 and not self._ends(value):
            return RequestError("stream_error", f"status {status}: {refusals.message_of(value) or 'no message'}")
        return None


class WebSocketChat(WebSocketProtocol):
    """A WebSocket at `shape.path`, kept over the turns."""

    name = "websocket-chat"
    default_model: str | None = "unnamed"

    def __init__(self, shape: Shape | None = None) -> None:
        self.shape = shape or Shape()
        self.ends_by_close = self.shape.end == CLOSE
        self._decode = msgspec.json.Decoder(message_type(self.shape)).decode

    def encode(self, messages: Sequence[Message], generation: Generation) -> WireRequest:
        """One message of ours. The limits go along only where they are asked for: most servers know none."""
        query, history = as_turns(messages)
        body: dict[str, Any] = {self.shape.query_field: query}
        if self.shape.history_field:
            body[self.shape.history_field] = history
        if self.shape.id_field:
            body[self.shape.id_field] = generation.request_id
        for key in _LIMITS:
            value = getattr(generation, key)
            if value is not None:
                body[key] = value
        return WireRequest(self.shape.path, msgspec.json.encode(merged(body, generation.extra_body)), "", "GET")

    def refusal(self, status: int, body: bytes) -> RequestError:
        """As `WireProtocol` has it. FastAPI answers 403 where it has no WebSocket at all."""
        error = super().refusal(status, body)
        if status not in (403, 404):
            return error
        return RequestError(error.error_class, f"{error} (is {self.shape.path} its WebSocket? see --ws-path)", status)

    def decoder(self) -> WebSocketChatDecoder:
        """A decoder for one reply."""
        return WebSocketChatDecoder(self.shape, self._decode)


def message_type(shape: Shape) -> type[msgspec.Struct]:
    """What the hot path reads of a message: `text`, `end` and `error`, under the names that they have there."""
    progress = shape.progress_field if shape.progress_field not in (shape.reply_field, "error") else "(none)"
    names = {"text": shape.reply_field or "(none)", "end": progress, "error": "error"}
    fields: list[tuple[str, Any, Any]] = [("text", str | None, None), ("end", Any, None), ("error", Any, None)]
    return msgspec.defstruct("_Message", fields, rename=names, gc=False)


def _object(said: str) -> dict[str, Any] | None:
    if not said.startswith("{"):
        return None
    try:
        value = msgspec.json.decode(said)
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
