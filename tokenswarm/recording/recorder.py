"""Gathers what one process measures and hands it on once a second: finished rows and one interval line."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec

from tokenswarm import histogram
from tokenswarm.record import INCOMPLETE, RequestRecord, csv_rows, one_line
from tokenswarm.recording.health import Health
from tokenswarm.recording.messages import Batch, Totals
from tokenswarm.timing import Anchor, Tally, Timeline

ROWS_AT_ONCE: Final = 20
"""A millisecond's work."""


class InFlight(Protocol):
    """A request as the recorder sees it, from its start to its row."""

    record: RequestRecord
    timeline: Timeline
    messages: Sequence[Any]

    def end(self, status: str) -> bool:
        """End it here and now; its row comes back through `Recorder.close`."""

    def tell(self) -> None:
        """Tell Locust and its listeners, which may raise."""


class Recorder:
    """One process's part of a run: `open` and `close` around each call; `tick` once a second; `finish`."""

    def __init__(
        self,
        run: str,
        worker: int,
        anchor: Anchor,
        users: Callable[[], tuple[int, int]],
        loop_lag_ns: Callable[[], int],
        sink: Callable[[Batch], None],
        save_responses: bool = False,
    ) -> None:
        """`anchor` turns instants into wall times on the run's clock, and may be replaced by a better one; `users`
        gives (running, asked for); `loop_lag_ns` the longest the event loop was busy since the last call; `sink` takes
        each batch, in order."""
        self.run = run
        self.worker = worker
        self.anchor = anchor
        self.totals = Totals()
        self.exceptions: Counter[str] = Counter()
        """What the locustfile's own code raised."""
        self.through = ""
        self.drained = False
        self.offset_ns = 0
        self.uncertainty_ns = 0
        self.step = -1
        """As `Batch` has them."""
        self._users = users
        self._health = Health(loop_lag_ns)
        self._sink = sink
        self._save_responses = save_responses
        self._problems: list[str] = []
        self._gave_up = ""
        self._in_flight: dict[str, InFlight] = {}
        self._tally = Tally()
        self._rows: list[RequestRecord] = []
        self._responses: list[bytes] = []
        self._started = 0
        self._ended: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._output: defaultdict[int, float] = defaultdict(float)
        self._input: Counter[int] = Counter()
        self._sequence = 0
        self._work: Iterator[None] | None = None
        """What a tick has begun."""
        self._since = time.monotonic_ns()

    @property
    def batches(self) -> int:
        """How many went to the sink so far."""
        return self._sequence

    @property
    def in_flight(self) -> int:
        """Requests started and not ended."""
        return len(self._in_flight)

    def current_tally(self) -> Tally:
        """Where arrivals are counted, the same at all times."""
        return self._tally

    def open(self, call: InFlight) -> None:
        """A request starts."""
        self._in_flight[call.record.id] = call
        self._started += 1
        self.totals.started += 1

    def close(self, call: InFlight, saved: tuple[str, str] | None) -> None:
        """A request has ended; its row goes out with the next tick. `saved`: text and reasoning to be kept."""
        record = call.record
        del self._in_flight[record.id]
        self._rows.append(record)
        self._ended[record.status] += 1
        if record.error_class:
            self._errors[record.error_class] += 1
        self._count(record, call.timeline)
        if saved is not None:
            text, reasoning = saved
            entry = {"id": record.id, "messages": call.messages, "text": text, "reasoning": reasoning}
            try:
                line = msgspec.json.encode(entry)
            except (TypeError, ValueError):  # a prompt that could not be sent either; its row says why
                line = msgspec.json.encode({**entry, "messages": ascii(call.messages)})
            self._responses.append(line + b"\n")

    def shed(self, record: RequestRecord) -> None:
        """A request that was due and is not sent; its row goes out with the next tick."""
        self._rows.append(record)
        self._ended[record.status] += 1
        self.totals.ended += 1

    def problem(self, text: str) -> None:
        """Something went wrong that the run must tell; it goes out with the next batch."""
        self._problems.append(one_line(text))

    def give_up(self, why: str) -> None:
        """The run cannot go on; the first reason goes out with the next batch."""
        self._gave_up = self._gave_up or one_line(why)

    def tick(self, pause: Callable[[], None] | None = None) -> None:
        """Hand on the rows that ended and the interval since the last tick. `pause` is called between pieces of the
        work, of a millisecond or two each: others are waiting. What it does not return from, the next tick finishes."""
        self._work = self._work or self._hand_on()
        try:
            for _ in self._work:
                if pause is not None:
                    pause()
        except Exception:
            self._work = None
            raise
        self._work = None

    def _hand_on(self) -> Iterator[None]:
        line, tally = self._interval()
        rows, self._rows = self._rows, []
        responses, self._responses = self._responses, []
        problems, self._problems = self._problems, []
        batch = Batch(
            run=self.run,
            worker=self.worker,
            seq=self._sequence,
            rows=b"",
            row_count=len(rows),
            interval=b"",
            responses=b"".join(responses),
            totals=msgspec.structs.replace(self.totals),
            in_flight=len(self._in_flight),
            exceptions=dict(self.exceptions),
            problems=problems,
            gave_up=self._gave_up,
            users=self._users()[0],
            through=self.through,
            drained=self.drained,
            offset_ns=self.offset_ns,
            uncertainty_ns=self.uncertainty_ns,
            step=self.step,
        )
        self._sequence += 1
        for part in self._health.take():
            yield
            line.update(part)
        for name, durations in (("ttft", tally.ttft_ns), ("itl", tally.itl_ns), ("client_lag", tally.lag_ns)):
            yield
            line[name] = histogram.encode_ns(durations)
        lines = []
        for first in range(0, len(rows), ROWS_AT_ONCE):
            yield
            lines.append(csv_rows(rows[first : first + ROWS_AT_ONCE]))
        text = "".join(lines).encode("utf-8", "backslashreplace")
        yield
        self._sink(msgspec.structs.replace(batch, rows=text, interval=msgspec.json.encode(line) + b"\n"))

    def finish(self) -> list[InFlight]:
        """The run is over: what is still in flight ends as incomplete, everything is handed on. Returns the calls that
        this cut, of which Locust is yet to be told."""
        if self._work is not None:
            self.tick()
        cut = list(self._in_flight.values())
        for call in cut:
            call.end(INCOMPLETE)
        self.tick()
        self._health.close()
        return cut

    def _count(self, record: RequestRecord, line: Timeline) -> None:
        totals = self.totals
        totals.ended += 1
        if record.status == "ok":
            totals.ok += 1
            totals.e2e_ms += record.e2e_ms or 0.0
        elif record.error_class:
            totals.errors += 1
        if record.ttft_ms is not None:
            totals.ttft_ms += record.ttft_ms
            totals.ttft_count += 1
        # Whole seconds of the epoch.
        offset = self.anchor.wall_ns - self.anchor.monotonic_ns
        if record.input_tokens:
            first = line.at[0] if line.at else line.end or line.start
            self._input[(offset + first) // 1_000_000_000] += record.input_tokens
        tokens = record.output_tokens
        if tokens is None:
            return
        output = self._output
        if line.at:
            totals.output_tokens += tokens
            totals.token_chunks += len(line.at)
            for second, share in line.spread(tokens, offset):
                output[second] += share
        else:
            totals.whole_tokens += tokens
            output[(offset + (line.end or line.start)) // 1_000_000_000] += tokens

    def _interval(self) -> tuple[dict[str, Any], Tally]:
        """Its line, but for what takes long, and what that is made of."""
        now = time.monotonic_ns()
        tally = self._tally.take()
        self.totals.chunks += tally.chunks
        self.totals.characters += tally.characters
        running, asked = self._users()
        self.totals.user_seconds += running * (now - self._since) / 1e9
        self.totals.seconds += (now - self._since) / 1e9
        line = {
            "worker": self.worker,
            "seq": self._sequence,
            "time": self.anchor.wall(now),
            "seconds": (now - self._since) / 1e9,
            "users": running,
            "target_users": asked,
            "in_flight": len(self._in_flight),
            "started": self._started,
            "ended": dict(self._ended),
            "errors": dict(self._errors),
            "chunks": tally.chunks,
            "characters": tally.characters,
            "bytes": tally.bytes,
            "tokens": [[second, round(tokens, 3)] for second, tokens in sorted(self._output.items())],
            "input_tokens": sorted(map(list, self._input.items())),
            "ttft": "",
            "itl": "",
            "client_lag": "",
            "merged_reads": tally.merged_reads,
            "late_merged_reads": tally.late_merged_reads,
        }
        self._since = now
        self._started = 0
        for counts in (self._ended, self._errors, self._output, self._input):
            counts.clear()
        return line, tally
