"""One reply: what it will be, and its way onto the wire as a stream of events, each logged as it is sent."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tokenswarm.simulator.faults import TOLD_TOKENS, Fault, FaultRate, draw
from tokenswarm.simulator.openai import ApiError, ChatRequest, Events, usage
from tokenswarm.simulator.sendlog import SendRecord
from tokenswarm.simulator.text import Tape, estimate_tokens
from tokenswarm.simulator.wire import Wire

LENGTH_VARIATION = 0.5
"""Coefficient of variation of the lengths at which replies end by themselves."""

_AT_THE_END = 1 << 62
_NEVER = _AT_THE_END + 1


@dataclass(frozen=True, slots=True)
class Style:
    """How replies are made and sent; the same for all of a server's requests. Counts are tokens, rates are 0 to 1."""

    output_tokens: int = 200
    reasoning: int = 0
    empty_chunks: float = 0.0
    cut_writes: bool = False
    max_model_len: int = 131_072
    faults: tuple[FaultRate, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What one request will get: `length` tokens of the tape from `start` on, the first `reasoning` as reasoning."""

    input_tokens: int
    start: int
    length: int
    reasoning: int
    finish_reason: str
    fault: Fault
    include_usage: bool
    random: random.Random

    def usage(self) -> dict[str, object]:
        told = int(self.length * TOLD_TOKENS.get(self.fault.fault, 1.0))
        return usage(self.input_tokens, told, min(self.reasoning, told))


def plan_reply(request: ChatRequest, style: Style, tape: Tape, seed: int, number: int) -> Plan:
    """The reply of request `number`. If the request has a `seed` of its own, its prompt decides instead of the number.

    Raises ApiError 400 when prompt and asked output do not fit the context.
    """
    texts = request.texts()
    input_tokens = estimate_tokens(texts)
    room = style.max_model_len - input_tokens
    limit = room if request.limit is None else request.limit
    if limit > room or room < 1:
        raise ApiError(
            400,
            f"The model's context is {style.max_model_len} tokens; the prompt has {input_tokens} "
            f"and {max(limit, 1)} were asked for.",
            param="messages",
            code="context_length_exceeded",
        )
    key = f"{seed}:{number}" if request.seed is None else f"{seed}:{request.seed}:{texts}"
    source = random.Random(key)
    start = source.choice(tape.starts)
    sigma = math.sqrt(math.log(1.0 + LENGTH_VARIATION**2))
    natural = max(1, round(style.output_tokens * source.lognormvariate(-(sigma**2) / 2, sigma)))
    if request.ignore_eos:
        natural = limit + 1
    drawn = draw(style.faults, source)
    length = min(natural, limit)
    return Plan(
        input_tokens=input_tokens,
        start=start,
        length=length,
        reasoning=min(style.reasoning, length),
        finish_reason="stop" if natural <= limit else "length",
        fault=request.simulator or drawn,
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
        random=source,
    )


class ReplyStream:
    """Turns what the engine makes into events on one connection, each sent before `emit` returns.

    While the reader is behind, tokens are only counted, and go out as one chunk once it has caught up, so that a dead
    reader costs no memory. `wake` is done when nothing more will come from the engine; `over` is true once the end has
    been sent as well.
    """

    def __init__(
        self,
        plan: Plan,
        style: Style,
        tape: Tape,
        events: Events,
        wire: Wire,
        record: SendRecord,
        cancel: Callable[[], None],
    ) -> None:
        self.wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.over = False
        self._plan = plan
        self._style = style
        self._tape = tape
        self._events = events
        self._wire = wire
        self._record = record
        self._cancel = cancel
        self._owed = 0
        self._said = 0
        self._opened = False
        self._complete = False
        self._fault = plan.fault
        self._fault_at = self._fault_position()

    def emit(self, tokens: int, last: bool) -> None:
        """Called by the engine once a step."""
        self._owed += tokens
        self._complete = last
        if self.over:
            return
        if self._wire.blocked():
            if last:
                self._awake()  # the request's task waits for the reader
            return
        style = self._style
        if style.empty_chunks and not last and self._plan.random.random() < style.empty_chunks:
            # As while a code point is incomplete: the token comes with the next one.
            self._wire.send(self._role_once() + self._events.text(b"", False))
            return
        self.flush()

    def flush(self) -> None:
        """Send what is owed, unless the reader is still behind; and the end, if the reply is complete."""
        if self.over or self._wire.blocked():
            return
        if len(self._record.sent_ns) >= self._fault_at:
            self._fail()
        if self._owed and not self.over:
            self._send_output()
        if self._complete and not self.over:
            if self._fault_at != _NEVER:
                self._fail()
            if not self.over:
                self._finish()

    def _fault_position(self) -> int:
        """Output events sent before the fault happens."""
        if self._fault.fault in TOLD_TOKENS:
            return _NEVER
        after = self._fault.after_chunks
        return _AT_THE_END if after is None else after

    def _send_output(self) -> None:
        tokens, self._owed = self._owed, 0
        said, record = self._said, self._record
        first = self._role_once()
        thinking = min(tokens, max(0, self._plan.reasoning - said))
        if thinking and thinking < tokens:  # a step across the border makes two events
            self._send(first, said, thinking, True)
            self._send(b"", said + thinking, tokens - thinking, False)
        else:
            self._send(first, said, tokens, bool(thinking))
        self._said = said + tokens
        record.output_tokens = self._said

    def _role_once(self) -> bytes:
        """The role-only event, the first time; it shares the send of the first output."""
        if self._opened:
            return b""
        self._opened = True
        return self._events.role()

    def _send(self, before: bytes, start: int, tokens: int, reasoning: bool) -> None:
        piece, chars = self._tape.piece(self._plan.start + start, tokens)
        data = before + self._events.text(piece, reasoning) if before else self._events.text(piece, reasoning)
        wire = self._wire
        if self._style.cut_writes:
            cut = self._cut(data, piece)
            wire.send(data[:cut])
            data = data[cut:]
        sent_ns = time.monotonic_ns()
        exact = wire.send(data)
        done_ns = time.monotonic_ns()
        if wire.gone:
            self._abandon()
            return
        record = self._record
        if not exact:
            record.inexact.append(len(record.sent_ns))
        record.sent_ns.append(sent_ns)
        record.done_ns.append(done_ns)
        record.tokens.append(tokens)
        record.chars.append(chars)
        record.reasoning.append(reasoning)
        record.batched.append(2 if before else 1)

    def _cut(self, data: bytes, piece: bytes) -> int:
        """Where to cut: every second time inside the text, and always so that the event ends in the second part."""
        source = self._plan.random
        if len(piece) > 1 and source.random() < 0.5:
            start = len(data) - len(self._events.tail) - len(piece)
            return source.randrange(start + 1, start + len(piece))
        return source.randrange(1, len(data) - 4)

    def _finish(self) -> None:
        events, plan = self._events, self._plan
        closing = events.finish(plan.finish_reason)
        if plan.include_usage:
            closing += events.usage(plan.usage())
        if self._fault.fault == "no-done":
            self._record.outcome = "no-done"
        else:
            closing += events.done
        self._close(closing)

    def _close(self, closing: bytes) -> None:
        self._record.end_ns = time.monotonic_ns()
        self._wire.send(closing + self._events.end)
        if self._wire.gone:
            self._record.end_ns = None
        elif self._record.outcome == "cancelled":
            self._record.outcome = "ok"
        self.over = True
        self._awake()

    def _fail(self) -> None:
        """The fault happens now."""
        kind, events = self._fault.fault, self._events
        if kind == "no-done" and self._fault_at == _AT_THE_END:
            return  # the usual end, without [DONE]
        self._record.outcome = kind
        if kind == "malformed":
            self._fault_at = _NEVER
            self._wire.send(events.malformed())
            return
        self.over = True
        self._cancel()
        if kind == "stall":
            return  # and never wake: the request ends when the client gives up
        if kind == "no-done":
            self._close(b"")
        elif kind == "stream-error":
            self._close(events.error(500, "The engine failed on purpose.") + events.done)
        elif kind == "truncate":
            self._wire.close()
        elif kind == "reset":
            self._wire.reset()
        self._awake()

    def _abandon(self) -> None:
        """The peer is gone."""
        self.over = True
        self._cancel()
        self._awake()

    def _awake(self) -> None:
        if not self.wake.done():
            self.wake.set_result(None)
