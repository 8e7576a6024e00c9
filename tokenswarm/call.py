"""One request of a user, from its prompt to its one row: whatever happens to it, `Call.end` writes exactly one."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gevent
import msgspec
from locust.exception import CatchResponseError

from tokenswarm import record as rec
from tokenswarm.errors import RequestError
from tokenswarm.protocols.base import Generation, Message, Usage, WireRequest
from tokenswarm.record import RequestRecord
from tokenswarm.timing import Timeline
from tokenswarm.transport import base
from tokenswarm.transport.reply import ReplyState
from tokenswarm.transport.request import Leaving, Request

if TYPE_CHECKING:
    from tokenswarm.run import Run

_log = logging.getLogger("tokenswarm")


class Reply(msgspec.Struct, frozen=True):
    """What a chat brought: the text, the server's token counts, and the request's row with all its timing."""

    text: str
    reasoning: str
    tool_calls: str
    """Names and arguments of tool calls, as text."""
    usage: Usage | None
    record: RequestRecord

    @property
    def ok(self) -> bool:
        """Whether the whole reply came."""
        return self.record.status == rec.OK

    @property
    def ttft_ms(self) -> float | None:
        """Milliseconds from the start to the first token."""
        return self.record.ttft_ms

    @property
    def e2e_ms(self) -> float | None:
        """Milliseconds from the start to the end."""
        return self.record.e2e_ms


class Call:
    """A request in flight. Listed by the recorder from its start until its row is written."""

    def __init__(
        self,
        run: Run,
        user: Any,
        client: base.Client,
        messages: Sequence[Message],
        generation: Generation,
        name: str | None,
        intended: int | None,
        leaving: Leaving | None = None,
    ) -> None:
        self.record = RequestRecord(
            id=run.next_request_id(),
            worker=run.recorder.worker,
            user_class=type(user).__name__,
            protocol=run.protocol.name,
            model=generation.model,
            asked_output_tokens=generation.max_tokens,
            transport=client.transport.name,
        )
        self.messages = messages
        self.timeline = Timeline(time.monotonic_ns(), intended)
        self._run = run
        self._user = user
        self._client = client
        self._generation = msgspec.structs.replace(generation, request_id=self.record.id)
        self._name = name
        self._leaving = leaving
        self._http: base.Call[ReplyState] | None = None
        self._ended = False

    def run(self) -> Reply:
        """Send, receive, record. Raises only what stops the greenlet (a kill, a timeout of the user's own)."""
        self._run.recorder.open(self)
        status, error = rec.INCOMPLETE, None
        try:
            http = self._begin()
            http.run()
            if http.exchange.left:
                status, self.record.error = rec.CANCELLED, http.exchange.left
            else:
                error = http.exchange.error or self._run.cut_short(self._generation.model, http.exchange)
                status = _status_of(error)
        except RequestError as raised:
            status, error = rec.FAILED, raised
        except (gevent.GreenletExit, KeyboardInterrupt, SystemExit):
            raise
        except Exception as raised:  # ours to explain, not the user's to catch
            _log.exception("A request could not be made.")
            status, error = rec.FAILED, RequestError("client", f"{type(raised).__name__}: {raised}")
        except BaseException:  # a timeout of the user's own
            status = rec.CANCELLED
            raise
        finally:
            if self.end(status, error):
                self.tell()
        return self._reply()

    def end(self, status: str, error: RequestError | None = None) -> bool:
        """Write the row. False if it was written before, when the run ended: the first time counts."""
        if self._ended:
            return False
        self._ended = True
        if self.timeline.end is None:
            self.timeline.end = time.monotonic_ns()
        record = self.record
        record.status = status
        if error is not None:
            record.error_class = error.error_class
            record.error = self._run.redact(str(error))[: rec.ERROR_LENGTH]
            record.http_status = error.http_status
        record.step = self._run.step_at(self.timeline.intended)
        hidden = self._take_facts()
        rec.measure(record, self.timeline, self._run.recorder.anchor, hidden)
        saved = None
        if self._run.options.save_responses:
            reply = self._reply()
            saved = self._run.redact(reply.text), self._run.redact(reply.reasoning)
        self._run.recorder.close(self, saved)
        return True

    def _begin(self) -> base.Call[ReplyState]:
        try:
            wire = self._run.protocol.encode(self.messages, self._generation)
        except (TypeError, ValueError) as error:
            self.record.name = self._name or "unsendable"
            raise RequestError("client", f"the prompt cannot be sent: {error}") from error
        self.record.name = self._name or self._run.origins.path(wire.path)
        self._http = self._call(wire)
        return self._http

    def _call(self, wire: WireRequest) -> base.Call[ReplyState]:
        request = Request(
            protocol=self._run.protocol,
            wire=wire,
            id=self.record.id,
            timeline=self.timeline,
            tally=self._run.recorder.current_tally(),
            on_first_token=self._first_token,
            leaving=self._leaving,
            expect_stream=self._generation.stream,
        )
        return self._client.call(request)

    def _take_facts(self) -> int:
        """What the transport learnt, into the record; returns the output tokens that were counted but never sent."""
        http, record = self._http, self.record
        if http is None:
            return 0
        exchange = http.exchange
        record.attempts = http.attempts
        record.conn_reused = http.connection_reused
        record.remote_addr = http.remote_addr
        record.request_bytes = http.request_bytes
        record.response_bytes = exchange.response_bytes
        record.clock = "kernel" if exchange.kernel_clock and exchange.response_bytes else "user"
        record.finish_reason = exchange.finish_reason
        record.http_status = record.http_status or exchange.status
        if not self.timeline.at:  # else it is measured by its chunks
            whole = (*exchange.text, *exchange.reasoning, *exchange.tool)
            record.output_chars = sum(map(len, whole))
        times = exchange.times
        if times is not None:
            record.server_total_ms, record.server_load_ms = times.total_ms, times.load_ms
            record.server_prompt_ms, record.server_decode_ms = times.prompt_ms, times.decode_ms
        if exchange.vectors is not None:
            record.inputs, record.vector_size = exchange.vectors.inputs, exchange.vectors.size
        usage = exchange.usage
        if usage is not None:
            record.input_tokens, record.cached_tokens = usage.input_tokens, usage.cached_tokens
            record.reasoning_tokens = usage.reasoning_tokens
        if usage is not None and usage.output_tokens:
            record.output_tokens, record.token_source = usage.output_tokens, "usage"
        elif self.timeline.at:
            record.output_tokens, record.token_source = self._counted(exchange)
        hidden = 0 if exchange.saw_reasoning or usage is None else usage.reasoning_tokens or 0
        return hidden if record.token_source == "usage" else 0

    def _counted(self, exchange: ReplyState) -> tuple[int, str]:
        """Output tokens that the server does not tell, and by whose count."""
        tokenizer = self._run.traffic(type(self._user)).supply.tokenizer
        if tokenizer.exact:
            parts = ("".join(pieces) for pieces in (exchange.text, exchange.reasoning, exchange.tool))
            if tokens := sum(tokenizer.counts([part for part in parts if part])):
                return tokens, "tokenizer"
        return len(self.timeline.at), "chunks"

    def _first_token(self) -> None:
        hook = self._user.environment.events.first_token
        if not hook._handlers:  # nobody listens, and a greenlet costs as much as a dozen chunks
            return
        # In the event loop's own callback: listeners may block, so they get a greenlet of their own.
        ttft_ms = (self.timeline.at[0] - self.timeline.start) / 1e6
        gevent.spawn(hook.fire, user=self._user, name=self.record.name, ttft_ms=ttft_ms)

    def tell(self) -> None:
        """Tell Locust's statistics and whoever listens. Raises what a listener may raise to stop its user."""
        record, environment = self.record, self._user.environment
        kind, name = self._run.protocol.request_type, record.name
        if record.status in (rec.OK, rec.FAILED, rec.TIMEOUT):
            environment.events.request.fire(
                request_type=kind,
                name=name,
                response_time=record.e2e_ms or 0.0,
                response_length=record.response_bytes,
                exception=CatchResponseError(record.error_class) if record.error_class else None,
                context=self._user.context(),
                start_time=record.start_time,
                url=self._run.origins.url,
                response=None,
            )
        else:
            environment.stats.get(name, record.status.upper()).log(record.e2e_ms or 0.0, record.response_bytes)
        # Entries of their own: Locust's Aggregated row counts requests only.
        for entry, milliseconds in (("TTFT", record.ttft_ms), ("TPOT", record.tpot_ms)):
            if milliseconds is not None:
                environment.stats.get(name, entry).log(milliseconds, 0)
        if record.output_tokens is not None:
            environment.stats.get(name, "TOKENS").log(record.output_tokens, record.output_tokens)
            environment.events.output_tokens.fire(
                user=self._user, name=name, tokens=record.output_tokens, record=record
            )

    def _reply(self) -> Reply:
        exchange = None if self._http is None else self._http.exchange
        if exchange is None:
            return Reply("", "", "", None, self.record)
        text, reasoning, tool = ("".join(pieces) for pieces in (exchange.text, exchange.reasoning, exchange.tool))
        return Reply(text, reasoning, tool, exchange.usage, self.record)


def _status_of(error: RequestError | None) -> str:
    if error is None:
        return rec.OK
    return rec.TIMEOUT if error.error_class in rec.TIMEOUT_CLASSES else rec.FAILED
