"""One HTTP/1.1 response, push-style: bytes and their arrival go in, and through llhttp (httptools) into a reply.

HTTP only; what the body means is `reply.py`'s. Knows no socket and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import httptools

from tokenswarm.errors import RequestError
from tokenswarm.timing import Clock
from tokenswarm.transport.reply import ReplyState
from tokenswarm.transport.request import Request

MAX_HEAD_BYTES: Final = 65536
"""Of headers and trailers, and of whatever else comes before the body or between two pieces of it."""


class HttpExchange(ReplyState):
    """A reply that parses its own HTTP: `feed` it what a connection reads."""

    __slots__ = (
        "_complete",
        "_content_type",
        "_encoding",
        "_framed",
        "_head_bytes",
        "_keep_alive",
        "_parser",
        "_redirected_to",
        "awaits_first_byte",
        "reusable",
    )

    def __init__(self, request: Request, on_finished: Callable[[], None]) -> None:
        super().__init__(request, on_finished)
        self.awaits_first_byte = True
        self.reusable = False
        """Whether the connection may carry another request."""
        self._parser = httptools.HttpResponseParser(self)
        self._content_type = ""
        self._encoding = ""
        self._redirected_to = ""
        self._framed = False
        self._head_bytes = 0
        self._complete = False
        self._keep_alive = False

    def feed(self, data: bytes, at: int, low: int, handled: int, clock: Clock) -> None:
        """Bytes that arrived in (low, at], by this clock, and were handled at `handled`."""
        if self.finished:
            self.reusable = False
            return
        self.awaits_first_byte = False
        self.read_began(len(data), at, low, clock)
        if self.finished:
            return
        error = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as raised:
            error = self.upgraded(data[raised.args[0] :])
        except httptools.HttpParserError as raised:
            error = _parser_error(raised)
        else:  # chunk extensions and what has no end come to no callback
            if self.response_bytes - self._body_at > MAX_HEAD_BYTES:
                error = self._endless_head()
        self.read_ended(handled)
        if error is not None and not self._complete:
            self.fail(error, at)
        elif self._complete and not self.finished:
            self.reusable = error is None and self._keep_alive
            self.conclude(at)

    def upgraded(self, rest: bytes) -> RequestError | None:
        """The server speaks another protocol from now on, which `rest` is the first of: what is wrong with that."""
        return RequestError("malformed", "the server switched to another protocol, unasked")

    # What the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one response header, or trailer. Raises RequestError on too many."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise self._endless_head()
        key = name.lower()
        if key == b"content-type":
            self._content_type = value.decode("latin-1")
        elif key in (b"content-length", b"transfer-encoding"):
            self._framed = True
        elif key == b"content-encoding":
            self._encoding = value.decode("latin-1")
        elif key == b"location":
            self._redirected_to = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """httptools: status line and headers are there."""
        status = self._parser.get_status_code()
        if status >= 200:  # 100 Continue and its kin announce the real answer
            self.headers(status, self._content_type, self._encoding, self._redirected_to, self._framed)

    on_body = ReplyState.body  # httptools: a piece of the body, chunk framing taken off

    def on_message_complete(self) -> None:
        """httptools: the body has ended, by its own framing."""
        if self.status is not None:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()  # llhttp tells only from in here
            self.body_ended()

    def _endless_head(self) -> RequestError:
        return RequestError("malformed", f"not HTTP/1.1: more than {MAX_HEAD_BYTES} bytes of headers", self.status)

    def _finish(self, at: int) -> None:
        super()._finish(at)
        del self._parser  # it holds us: see there


def _parser_error(error: Exception) -> RequestError:
    cause = error.__context__
    if isinstance(cause, RequestError):  # raised in one of our callbacks
        return cause
    if isinstance(error, httptools.HttpParserCallbackError):
        return RequestError("client", f"the reply could not be handled: {cause!r}")
    return RequestError("malformed", f"not HTTP/1.1: {error}")
