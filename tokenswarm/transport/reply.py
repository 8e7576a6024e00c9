"""What one response was worth: body bytes and their arrival go in, the timeline and the reply's text come out.

Framer, decoder, timeline and judgement, shared by every transport. Knows no HTTP parser, no socket and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable

from tokenswarm.errors import RequestError
from tokenswarm.framing import Event, Framer, parse_event
from tokenswarm.protocols.base import Delta, ServerTimes, Usage, Vectors
from tokenswarm.timing import Clock
from tokenswarm.transport.request import Request

_KERNEL, _USER = Clock.KERNEL, Clock.USER  # looked up once, not with every chunk

MAX_WHOLE_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
MAX_REPLY_BYTES = 1024 * 1024 * 1024
"""Of a stream, all of it: text and times of every chunk are kept until its row is written."""

_COMPRESSED = (
    "the body is {}-encoded though identity was asked for: turn compression off at the server, or at the proxy before "
    "it (compressed tokens wait for each other, so nobody could time them)"
)


class ReplyState:
    """Feed it until `finished`; `error` then says how it went (None: well).

    Each read of the wire is told by `read_began`, what it brought by `headers`, `body` and `body_ended`, and that it
    has been handled by `read_ended`; the end by `conclude`, `eof` or `fail`. `on_finished` is called once, when the
    reply has ended or failed; the request's `on_first_token` once, at the first output.
    """

    # A chunk of each of a thousand replies comes before the next of the same: compact is fast.
    __slots__ = (
        "_after_last_chunk",
        "_at",
        "_body_at",
        "_chunks_before",
        "_clock",
        "_decoder",
        "_delimited",
        "_done_at",
        "_expect_stream",
        "_framer",
        "_leaving",
        "_location",
        "_low",
        "_most_whole",
        "_on_finished",
        "_on_first_token",
        "_protocol",
        "_tally",
        "_whole",
        "enough",
        "error",
        "finish_reason",
        "finished",
        "kernel_clock",
        "left",
        "on_end_mark",
        "reasoning",
        "response_bytes",
        "saw_reasoning",
        "status",
        "streamed",
        "text",
        "timeline",
        "times",
        "tool",
        "usage",
        "vectors",
    )

    def __init__(
        self,
        request: Request,
        on_finished: Callable[[], None],
        parse: Callable[[bytes], Event | None] = parse_event,
    ) -> None:
        self.finished = False
        self.error: RequestError | None = None
        self.left = ""
        """Why the user has left before the end; empty if not."""
        self.enough = False
        """Whether the last chunk has come that the user stays for; it ends with the read that brought it."""
        self._leaving = request.leaving
        self.status: int | None = None
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.times: ServerTimes | None = None
        self.vectors: Vectors | None = None
        self.streamed = False
        self.saw_reasoning = False
        self.kernel_clock = True
        self.on_end_mark: Callable[[], None] | None = None
        """Called when the protocol's own end mark, or an error, has come."""
        self.response_bytes = 0
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.tool: list[str] = []
        self.timeline = request.timeline
        self._protocol = request.protocol
        self._decoder = request.decoder()
        self._tally = request.tally
        self._on_finished = on_finished
        self._on_first_token = request.on_first_token
        self._expect_stream = request.expect_stream
        self._framer: Framer = request.protocol.framer(parse)
        self._whole = bytearray()
        self._most_whole = 0
        self._body_at = 0
        """How many bytes had come when a piece of the body was last among them."""
        self._location = ""
        self._delimited = False
        self._done_at: int | None = None
        self._at = 0
        self._low = 0
        self._clock = Clock.USER
        self._chunks_before = 0
        self._after_last_chunk = False

    @property
    def done_at(self) -> int | None:
        """When the protocol's own end mark, or an error, arrived; the HTTP body may still be open."""
        return self._done_at

    @property
    def answered(self) -> bool:
        """Whether anything of an answer has come."""
        return self.response_bytes > 0

    @property
    def leaves_at(self) -> int | None:
        """The instant at which the user will have left; None: not known, or not at all."""
        leaving, line = self._leaving, self.timeline
        return None if leaving is None else leaving.due(line.start, bool(line.at))

    # What a transport tells

    def read_began(self, size: int, at: int, low: int, clock: Clock) -> None:
        """`size` bytes arrived in (low, at], by this clock. Ends here if the user had left by then."""
        if self._leaving is not None and self._done_at is None:
            due = self.leaves_at
            if due is not None and at > due:
                self.leave(due)
                return
        self._at, self._low, self._clock = at, low, clock
        self._after_last_chunk = False
        self._chunks_before = len(self.timeline.at)
        self.response_bytes += size
        if clock is _USER:
            self.kernel_clock = False
        self._tally.bytes += size

    def read_ended(self, handled: int) -> None:
        """All that the read brought has been told, by `handled`. More calls for the same read do nothing."""
        before, line = self._chunks_before, self.timeline
        now = len(line.at)
        if now == before or self.finished:
            return
        self._chunks_before = now
        # Only the kernel's stamp is the arrival of what came last; ours is the time at which we got round to reading.
        exact = self._clock is _KERNEL and not self._after_last_chunk and not self._framer.pending
        line.read_ended(before, exact, handled, self._tally)
        if before == 0 and self._on_first_token is not None:
            self._on_first_token()
        if self.enough:
            self.leave(line.at[-1])

    def headers(self, status: int, content_type: str, encoding: str, location: str, delimited: bool) -> None:
        """Status and what matters of the headers. `delimited`: the body's own framing tells where it ends.

        Raises RequestError on a compressed reply; an error's status is worth more than its words.
        """
        self.status = status
        self._location = location
        self._delimited = delimited
        self.timeline.headers = self._at
        plain = encoding.lower() in ("", "identity")
        if status < 300 and not plain:
            raise RequestError("malformed", _COMPRESSED.format(encoding), status)
        self._most_whole = MAX_WHOLE_BYTES if status < 300 else MAX_ERROR_BYTES if plain else 0
        kind = content_type.partition(";")[0].strip().lower()
        whole = kind.endswith(("/json", "+json")) or kind == "text/html"  # the latter: a page, so no reply
        self.streamed = self._expect_stream and status < 300 and not whole

    def body(self, data: bytes) -> None:
        """A piece of the body, HTTP's framing taken off. Raises RequestError (`malformed`)."""
        self._body_at = self.response_bytes
        if self._body_at > MAX_REPLY_BYTES:
            raise RequestError("malformed", f"a reply of more than {MAX_REPLY_BYTES} bytes", self.status)
        if self.streamed:
            for event in self._framer.feed(data):
                self._after_last_chunk = True
                if self._done_at is None and not self.enough:
                    delta = self._decoder.decode(event)
                    if delta is not None:
                        self._take(delta)
            return
        room = self._most_whole - len(self._whole)
        self._whole += data[:room] if len(data) > room else data
        if len(data) > room and self._most_whole == MAX_WHOLE_BYTES:
            raise RequestError("malformed", f"a whole reply of more than {MAX_WHOLE_BYTES} bytes", self.status)

    def body_ended(self) -> None:
        """The body has ended, by its own framing."""
        self._after_last_chunk = True

    def eof(self, at: int) -> None:
        """The server closed the connection: a clean end only for a body that nothing else delimits."""
        if self.finished:
            return
        if self.status is None:
            self.fail(RequestError("truncated", "the server closed the connection before it answered"), at)
        elif self._delimited and self._done_at is None:
            self.fail(RequestError("truncated", "the server closed the connection in mid-response"), at)
        else:
            self.conclude(at)

    def fail(self, error: RequestError, at: int) -> None:
        """End here, with this error; but what had its end mark is whole, whatever becomes of the connection."""
        if self.finished:
            return
        if self._done_at is not None:
            self.conclude(at)
            return
        self.error = error
        self._finish(at)

    def leave(self, at: int) -> None:
        """End here: the user has gone; but what had its end mark is whole."""
        if self.finished or self._leaving is None:
            return
        if self._done_at is not None:
            self.conclude(at)
            return
        line = self.timeline
        self.left = self._leaving.why(self.enough, at, line.start, bool(line.at))
        self._finish(at)

    def conclude(self, at: int) -> None:
        """The body is whole, or its own end mark came though it stays open; now say whether it was a reply."""
        if self.finished:
            return
        try:
            self._judge()
        except RequestError as error:
            self.error = self.error or error
        except Exception as error:  # in the event loop's own callback nobody else would end this request
            self.error = self.error or RequestError("malformed", f"a reply of an unknown shape: {error!r}", self.status)
        if not self.finished:
            self._finish(at if self._done_at is None else self._done_at)

    # What the events mean

    def _take(self, delta: Delta) -> None:
        text, usage = delta.text, delta.usage
        characters = len(text) + len(delta.reasoning) + len(delta.tool)
        if usage is not None:
            self.usage = usage
        if characters:
            line, at = self.timeline, self._at
            if text:
                self.text.append(text)
                if line.first_answer is None:
                    line.first_answer = at
            if delta.reasoning:
                self.reasoning.append(delta.reasoning)
                self.saw_reasoning = True
            if delta.tool:
                self.tool.append(delta.tool)
            line.at.append(at)
            line.low.append(self._low)
            line.characters.append(characters)
            if self._leaving is not None and len(line.at) == self._leaving.chunks:
                self.enough = True
            if usage is not None and usage.output_tokens is not None:
                line.cumulative.append(usage.output_tokens)
            self._after_last_chunk = False
        if delta.finish_reason is not None:
            self.finish_reason = delta.finish_reason
        if delta.times is not None:
            self.times = delta.times
        if delta.error is not None:
            delta.error.http_status = self.status
            self.error = delta.error
        if delta.done or delta.error is not None:
            self._done_at = self._at
            if self.on_end_mark is not None:
                self.on_end_mark()

    def _judge(self) -> None:
        status = self.status
        if status is None or status >= 300:
            self.error = self.error or self._refusal(status or 0)
            return
        if not self.streamed:
            delta = self._decoder.decode_whole(bytes(self._whole))
            self.usage, self.finish_reason, self.error = delta.usage, delta.finish_reason, delta.error
            self.times, self.vectors = delta.times, delta.vectors
            for pieces, piece in ((self.text, delta.text), (self.reasoning, delta.reasoning), (self.tool, delta.tool)):
                if piece:
                    pieces.append(piece)
            self._tally.characters += len(delta.text) + len(delta.reasoning) + len(delta.tool)
        else:
            left = self._framer.finish()
            if left is not None and self._done_at is None and (said := self._decoder.decode(left)) is not None:
                self._take(said)
                self.read_ended(self._at)
        if self.error is not None or self.finished:  # it was the last chunk that the user stayed for
            return
        output = bool(self.text or self.reasoning or self.tool or self.vectors)
        if not output and self.finish_reason is None:
            raise RequestError("empty", "HTTP 200 without any output and without a finish reason", status)
        if self.streamed and self._done_at is None and self.finish_reason is None:
            raise RequestError("truncated", "the stream ended without its end mark and without a finish reason", status)

    def _refusal(self, status: int) -> RequestError:
        if 300 <= status < 400:
            to = f" to {self._location}" if self._location else ""
            return RequestError("http_4xx", f"HTTP {status}: redirected{to}; give that address as --host", status)
        return self._protocol.refusal(status, bytes(self._whole))

    def _finish(self, at: int) -> None:
        self.finished = True
        self.timeline.end = at
        self._on_finished()
        # Cycles would leave every request to the garbage collector, whose pauses are lateness.
        self.on_end_mark = None
        del self._on_finished, self._on_first_token
