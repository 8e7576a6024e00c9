"""One request's way through plan, engine and wire, in whatever dialect it came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenswarm.simulator import prefix_cache
from tokenswarm.simulator.dialects.base import Dialect, Events, Reply, Times
from tokenswarm.simulator.engine import QueueFull, Sequence
from tokenswarm.simulator.faults import TOLD_TOKENS
from tokenswarm.simulator.pacing import EngineLoop
from tokenswarm.simulator.plan import Plan, Style, plan_reply
from tokenswarm.simulator.reply import ReplyStream
from tokenswarm.simulator.request import ApiError, Request, on_purpose
from tokenswarm.simulator.sendlog import SendRecord
from tokenswarm.simulator.text import Tape
from tokenswarm.simulator.wire import DribblingWire, Sender, response_head

CATCH_UP_SECONDS = 0.005
"""How often a slow reader is looked at once its reply is complete."""

_AT_ONCE = ("status", "silent", "empty", "reset-early", "rate-limit", "wrong-type")
_GOOD_ENDS = (*TOLD_TOKENS, "slow")
_PAGE = b"<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body><h1>Welcome</h1></body></html>\n"


@dataclass(slots=True)
class Backend:
    """The model and what runs it; `received` counts the requests."""

    engine: EngineLoop
    model: str
    style: Style
    tape: Tape
    seed: int
    received: int = 0


@dataclass(slots=True)
class Call:
    """One request from its arrival to its line in the log."""

    backend: Backend
    dialect: Dialect[Any]
    record: SendRecord
    wire: Sender
    chunks_allowed: bool
    keep_alive: bool
    sequence: Sequence | None = field(default=None)

    async def answer(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Returns once everything has been sent. Raises ApiError if the request is refused."""
        backend, record = self.backend, self.record
        request: Request = self.dialect.parse(body)
        record.stream = self.dialect.streams(request, headers)
        asked = request.asked_model()
        if asked not in (None, backend.model):
            message = f"The model {asked!r} does not exist; this server has {backend.model!r}."
            raise ApiError(404, message, param="model", code="model_not_found")
        backend.received += 1
        plan = plan_reply(request, backend.style, backend.tape, backend.seed, backend.received)
        record.input_tokens = plan.input_tokens
        if plan.fault.fault in _AT_ONCE:
            record.outcome = plan.fault.fault
            await self._fail_at_once(request, plan)
        elif record.stream:
            await self._stream(request, plan)
        else:
            await self._whole(request, plan)

    def refuse(self, error: ApiError, more: Mapping[str, str] | None = None) -> None:
        """An error in the dialect's envelope, with `more` headers."""
        self._send_whole(error.status, self.dialect.refusal(error), more=more)

    async def _fail_at_once(self, request: Request, plan: Plan) -> None:
        """Play the faults that need no engine."""
        kind, record = plan.fault.fault, self.record
        if kind == "status":
            self.refuse(on_purpose(plan.fault.status))
        elif kind == "rate-limit":
            self.refuse(on_purpose(429), {"Retry-After": "1"})
        elif kind == "silent":
            await asyncio.get_running_loop().create_future()
        elif kind == "reset-early":
            self.wire.reset()
        elif kind == "wrong-type":
            self._send_whole(200, _PAGE, content_type="text/html; charset=utf-8")
        elif record.stream:
            events = self._open_stream(request, plan, self._reply(plan, said=False))
            record.end_ns = time.monotonic_ns()
            self.wire.send(events.empty() + events.end)
        else:
            self._send_whole(200, self.dialect.whole(self._reply(plan, said=False), request, "", ""))

    def _reply(self, plan: Plan, usage: bool = True, said: bool = True) -> Reply:
        return Reply(
            id=self.record.id,
            model=self.backend.model,
            created=int(time.time()),
            input_tokens=plan.input_tokens,
            length=plan.length if said else 0,
            reasoning=plan.reasoning if said else 0,
            finish_reason=plan.finish_reason if said else None,
            usage=usage,
            told_share=TOLD_TOKENS.get(plan.fault.fault, 1.0),
            ends_well=plan.fault.fault in _GOOD_ENDS,
        )

    def _blocks(self, request: Request) -> list[tuple[int, int]] | None:
        return None if self.backend.engine.engine.prefix_cache is None else prefix_cache.blocks(request.texts())

    def _submit(self, sequence: Sequence, reply: Reply) -> None:
        try:
            self.backend.engine.submit(sequence, self.record.received_ns)
        except QueueFull as error:
            raise ApiError(429, f"The server is full: {error}.", code="queue_full") from None
        self.sequence = sequence
        if self.backend.engine.engine.prefix_cache is not None:
            reply.cached_tokens = lambda: sequence.cached_tokens
        received_ns, submitted_ns = self.record.received_ns, time.monotonic_ns()
        reply.times = lambda: Times(
            received_ns, submitted_ns, sequence.prefill_ns, sequence.ready_ns, time.monotonic_ns()
        )

    async def _stream(self, request: Request, plan: Plan) -> None:
        backend = self.backend
        sequence = Sequence(plan.input_tokens, plan.length, _nothing, self._blocks(request))
        reply = self._reply(plan, request.wants_usage())
        self._submit(sequence, reply)
        events = self._open_stream(request, plan, reply)
        stream = ReplyStream(
            plan, backend.style, backend.tape, events, self.wire, self.record, lambda: backend.engine.cancel(sequence)
        )
        sequence.emit = stream.emit
        await stream.wake
        while not stream.over:
            await asyncio.sleep(CATCH_UP_SECONDS)
            stream.flush()
        await stream.sent()

    def _open_stream(self, request: Request, plan: Plan, reply: Reply) -> Events:
        chunked = self.chunks_allowed and plan.fault.fault != "close-delimited"
        self.keep_alive = self.keep_alive and chunked
        self.wire.send(
            response_head(
                200,
                self.record.id,
                self.dialect.stream_type,
                length=None,
                chunked=chunked,
                keep_alive=self.keep_alive,
            )
        )
        return self.dialect.events(reply, request, chunked=chunked)

    async def _whole(self, request: Request, plan: Plan) -> None:
        complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def emit(tokens: int, last: bool) -> None:
            if last and not complete.done():
                complete.set_result(None)

        reply = self._reply(plan)
        self._submit(Sequence(plan.input_tokens, plan.length, emit, self._blocks(request)), reply)
        await complete
        tape, split = self.backend.tape, plan.start + plan.reasoning
        reasoning, text = tape.text(plan.start, plan.reasoning), tape.text(split, plan.length - plan.reasoning)
        body = self.dialect.whole(reply, request, text, reasoning)
        kind, record = plan.fault.fault, self.record
        if kind not in (*TOLD_TOKENS, "no-done"):
            record.outcome = kind
            await self._break_whole(kind, body)
            return
        exact = self._send_whole(200, body, delimited=kind != "close-delimited")
        if record.end_ns is not None:
            record.outcome = "ok"
            record.output_tokens = plan.length
            record.sent_ns, record.done_ns = [record.end_ns], [time.monotonic_ns()]
            record.tokens, record.chars = [plan.length], [len(reasoning) + len(text)]
            record.reasoning, record.batched = [False], [1]
            record.inexact = [] if exact else [0]

    async def _break_whole(self, kind: str, body: bytes) -> None:
        """The faults of a reply that is not streamed: half a body, broken JSON, slow bytes, or an error instead."""
        half = body[: len(body) // 2]
        if kind == "stream-error":
            self._send_whole(200, self.dialect.refusal(on_purpose(500)))
            return
        if kind == "malformed":
            self._send_whole(200, half)
            return
        if kind == "slow":
            self.wire = DribblingWire(self.wire, asyncio.get_running_loop())
            self._send_whole(200, body)
            ended_ns = await self.wire.drained()
            self.record.end_ns = None if self.wire.gone else ended_ns
            return
        head = response_head(
            200, self.record.id, self.dialect.whole_type, length=len(body), chunked=False, keep_alive=False
        )
        self.wire.send(head + half)
        if kind == "stall":
            await asyncio.get_running_loop().create_future()
        elif kind == "reset":
            self.wire.reset()
        else:
            self.wire.close()

    def _send_whole(
        self,
        status: int,
        body: bytes,
        *,
        delimited: bool = True,
        content_type: str | None = None,
        more: Mapping[str, str] | None = None,
    ) -> bool:
        """Head and body in one send. True if the kernel took it all at once. Sets `end_ns` unless nobody is there."""
        record = self.record
        record.status = status
        self.keep_alive = self.keep_alive and delimited
        head = response_head(
            status,
            record.id,
            content_type or self.dialect.whole_type,
            length=len(body) if delimited else None,
            chunked=False,
            keep_alive=self.keep_alive,
            more=more,
        )
        record.end_ns = time.monotonic_ns()
        exact = self.wire.send(head + body)
        if self.wire.gone:
            record.end_ns = None
        return exact


def _nothing(tokens: int, last: bool) -> None:
    """Stands in until the stream is there; the engine never emits before the next turn of the loop."""
