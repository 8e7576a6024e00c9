"""One reply's way onto the wire as a stream of events, each logged as it is sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tokenswarm.simulator.dialects.base import Events
from tokenswarm.simulator.faults import TOLD_TOKENS
from tokenswarm.simulator.plan import Plan, Style
from tokenswarm.simulator.request import on_purpose
from tokenswarm.simulator.sendlog import SendRecord
from tokenswarm.simulator.text import Tape
from tokenswarm.simulator.wire import DribblingWire, Sender

_AT_THE_END = 1 << 62
_NEVER = _AT_THE_END + 1


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
        wire: Sender,
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
        self._reasoning: bool | None = None  # nothing said yet
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
            thinking = self._said < self._plan.reasoning
            self._wire.send(self._lead(thinking) + self._events.text(b"", thinking, self._said))
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
        thinking = min(tokens, max(0, self._plan.reasoning - said))
        if thinking and thinking < tokens:  # a step across the border makes two events
            self._send(said, thinking, True)
            self._send(said + thinking, tokens - thinking, False)
        else:
            self._send(said, tokens, bool(thinking))
        self._said = said + tokens
        record.output_tokens = self._said

    def _lead(self, reasoning: bool) -> bytes:
        """What goes before output that is reasoning or not: it shares the send."""
        before = self._reasoning
        if before is reasoning:
            return b""
        self._reasoning = reasoning
        return self._events.opening(reasoning) if before is None else self._events.turn()

    def _send(self, start: int, tokens: int, reasoning: bool) -> None:
        batched = 1
        piece, chars = self._tape.piece(self._plan.start + start, tokens)
        if reasoning is self._reasoning:
            data = self._events.text(piece, reasoning, start + tokens)
        else:
            lead = self._lead(reasoning)
            batched += lead.count(self._events.mark)
            data = lead + self._events.text(piece, reasoning, start + tokens)
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
        record.batched.append(batched)

    def _cut(self, data: bytes, piece: bytes) -> int:
        """Where to cut: every second time inside the text, and always so that the event ends in the second part."""
        source = self._plan.random
        if len(piece) > 1 and source.random() < 0.5:
            start = data.rfind(piece)
            return source.randrange(start + 1, start + len(piece))
        return source.randrange(1, len(data) - 4)

    def _finish(self) -> None:
        closing = self._events.closing()
        if self._fault.fault == "no-done":
            self._record.outcome = "no-done"
        else:
            closing += self._events.done()
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
            return  # the usual end, without its mark
        self._record.outcome = kind
        if kind == "malformed":
            self._fault_at = _NEVER
            self._wire.send(events.malformed())
            return
        if kind == "slow":
            self._fault_at = _NEVER
            self._wire = DribblingWire(self._wire, asyncio.get_running_loop())
            return
        self.over = True
        self._cancel()
        if kind == "stall":
            return  # and never wake: the request ends when the client gives up
        if kind == "no-done":
            self._close(b"")
        elif kind == "stream-error":
            self._close(events.error(on_purpose(500)))
        elif kind == "truncate":
            self._wire.close()
        elif kind == "cut-event":
            self._break_off()
        elif kind == "reset":
            self._wire.reset()
        self._awake()

    def _break_off(self) -> None:
        """Half of the next event, and the end of the connection."""
        said, tokens = self._said, self._owed
        thinking = said < self._plan.reasoning
        lead, event = b"", self._events.closing() or self._events.done()
        if tokens:
            lead = self._lead(thinking)
            event = self._events.text(self._tape.piece(self._plan.start + said, tokens)[0], thinking, said + tokens)
        end = event.index(self._events.mark, 8)  # past the chunk's size: the end of the first event there
        self._wire.send(lead + event[: end // 2])
        self._wire.close()

    async def sent(self) -> None:
        """Wait until what a slow connection still holds back has been sent too."""
        ended_ns = await self._wire.drained()
        if ended_ns is not None and self._record.end_ns is not None:
            self._record.end_ns = ended_ns

    def _abandon(self) -> None:
        """The peer is gone."""
        self.over = True
        self._cancel()
        self._awake()

    def _awake(self) -> None:
        if not self.wake.done():
            self.wake.set_result(None)
