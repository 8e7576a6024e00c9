"""One level of a capacity search: whether the queue has settled there, and whether the objectives are kept.

Fed with the time and with requests that have ended. No clock and no Locust. Counted are the requests that end while it
measures, whenever they began: of a steady load that is a fair sample, where those that begin and end in it would favour
short answers.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from tokenswarm.load.bracket import ABOVE, CLIENT, COARSE, CONFIRM, FINE, Next
from tokenswarm.load.sequential import FAIL, PASS, UNDECIDED, Sample
from tokenswarm.load.trend import grows
from tokenswarm.slo import COLUMNS, Objective
from tokenswarm.timing import percentile
from tokenswarm.verdict import INVALID, Measured, judge

LEAST_SETTLING_S: Final = 3.0
MOST_SETTLING_S: Final = 60.0
TURNS: Final = 2.0
"""A level settles for so many median requests at least."""
FEWEST_TURNS: Final = 3.0
"""Requests a user after which it counts as settled where there are too few for a trend."""
LEAST_GROWTH_S: Final = 10.0
"""A queue that grows for shorter may be a fluctuation."""
MOST_S: Final = 600.0
"""Of measuring; of a confirmation twice as many."""
FEWEST_FINE: Final = 8
MOST_FINE: Final = 40
FEWEST_FOR_CLIENT: Final = 20
FEWEST_FOR_P95: Final = 72
QUEUE: Final = "queue"
"""What binds where the queue grows without end."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A request that has ended, as its row has it. Epoch seconds and milliseconds."""

    status: str
    start: float
    end: float
    figures: dict[str, float]
    """The columns of `slo.COLUMNS` that are not empty, and `ttft_low_ms` and, but of a retry, `queue_ms`."""
    before_sent_ms: float | None = None


class Probe:
    """From the moment at which the users of a level are there."""

    def __init__(
        self, tried: Next, objectives: Sequence[Objective], now: float, *, open_loop: bool, settling: float | None
    ) -> None:
        """`settling` (seconds): how long a level settles at least; None: 3 s or two median requests."""
        self.tried = tried
        self.began = now
        self.measured_from: float | None = None
        self.until: float | None = None
        self.decision: str | None = None
        self.binding: str | None = None
        """The objective that failed, or was the closest to it; `queue` if the queue grew."""
        self.client: list[dict[str, Any]] = []
        """What of our own client was out of bounds."""
        self._objectives = objectives
        self._samples = [Sample(objective.allowed) for objective in objectives]
        self._decided: list[str] = [UNDECIDED] * len(objectives)
        self._open_loop = open_loop
        self._settling = settling
        self._waiting: list[Ended] = []
        self._measured: list[Ended] = []
        self._in_flight: list[tuple[float, float]] = []

    def feed(self, ended: Iterable[Ended]) -> None:
        """Requests that have ended, in any order; those from before the level was there do not count."""
        self._waiting += [each for each in ended if each.start >= self.began]

    def tick(self, now: float, in_flight: int) -> str | None:
        """PASS, FINE, FAIL, UNDECIDED or CLIENT once it is known."""
        self._in_flight.append((now, float(in_flight)))
        self._waiting.sort(key=lambda each: each.end)
        if self.measured_from is None:
            self.decision = self._settle(now)
        if self.measured_from is not None:
            self._take()
            self.decision = self._measure(now)
        if self.decision is not None:
            self.until = now
        return self.decision

    def told(self) -> dict[str, Any]:
        """What run.json and the report say of it."""
        # Up to the last request that is known: workers tell once a second, and what ended since is still to come.
        last = max((each.end for each in self._measured), default=self.began)
        seconds = last - (last if self.measured_from is None else self.measured_from)
        return {
            "users": self.tried.level,
            "kind": self.tried.kind,
            "decision": self.decision,
            "binding": self.binding,
            "began": self.began,
            "measured_from": self.measured_from,
            "until": self.until,
            "requests": len(self._measured),
            "requests_per_s": len(self._measured) / seconds if seconds > 0 else None,
            "objectives": [
                {
                    "objective": objective.text,
                    "requests": len(sample),
                    "misses": sample.misses,
                    "miss_share": sample.share,
                    "allowed": objective.allowed,
                    "decision": decided,
                }
                for objective, sample, decided in zip(self._objectives, self._samples, self._decided, strict=True)
            ],
            "client": self.client,
        }

    # Settling

    def _settle(self, now: float) -> str | None:
        elapsed = now - self.began
        if elapsed < self._least_settling():
            return None
        since = self.began + elapsed / 2
        turns = len(self._waiting) / self.tried.level
        growing = grows(self._queue(since), since, now)
        if (
            growing is None and turns >= FEWEST_TURNS and not self._open_loop
        ):  # too slow for a line, and nobody waits for ever
            growing = False
        if self._open_loop and elapsed < MOST_SETTLING_S:
            if len(self._waiting) < self._in_flight[-1][1]:  # what came at first is still on its way
                return None
            if growing and elapsed >= LEAST_GROWTH_S and self._runs_away(since):
                return self._overflow()
        if growing is False and (turns >= 1.0 or self._open_loop):
            self.measured_from = since
        elif elapsed >= MOST_SETTLING_S:
            if growing and self._runs_away(since):
                return self._overflow()
            self.measured_from = since
        return None

    def _least_settling(self) -> float:
        if self._settling is not None:
            return self._settling
        lengths = [(each.end - each.start) for each in self._waiting]
        return max(LEAST_SETTLING_S, TURNS * statistics.median(lengths) if lengths else 0.0)

    def _queue(self, since: float) -> list[tuple[float, float]]:
        """What tells the length of the queue: requests in flight in the open loop; as those are always the same in the
        closed one, how long first tokens take there."""
        if self._open_loop:
            return [point for point in self._in_flight if point[0] >= since]
        ended = [(each.end, each.figures.get("ttft_ms", each.figures.get("e2e_ms"))) for each in self._waiting]
        return [(at, figure) for at, figure in ended if figure is not None and at >= since]

    def _runs_away(self, since: float) -> bool:
        """Whether so much more of it is there after half the time that no fluctuation explains it."""
        queue = self._queue(since)
        half = len(queue) // 2
        if half < 2:
            return False
        before, after = (statistics.fmean(figure for _, figure in part) for part in (queue[:half], queue[half:]))
        return after - before >= (5.0 + 3.0 * before**0.5 if self._open_loop else before / 5)

    def _overflow(self) -> str:
        self.binding = QUEUE
        return FAIL

    # Measuring

    def _take(self) -> None:
        """What has ended since it measures goes into the samples."""
        for each in self._waiting:
            if each.end < (self.measured_from or 0.0):
                continue
            self._measured.append(each)
            age = (each.end - each.start) * 1e3
            for index, objective in enumerate(self._objectives):
                figure = each.figures.get(COLUMNS.get(objective.metric, ""))
                missed = objective.missed_by(each.status, figure, age)
                if missed is not None:
                    self._samples[index].add(missed, figure)
        self._waiting.clear()

    def _measure(self, now: float) -> str | None:
        confirming = self.tried.kind == CONFIRM
        for index, sample in enumerate(self._samples):
            if self._decided[index] == UNDECIDED:
                self._decided[index] = sample.decision(2 * sample.passes_after if confirming else 0)
        decision = self._decision(now)
        if decision is None:
            return None
        self._bind(decision)
        self.client = self._client_faults()
        return CLIENT if any(fault["level"] == INVALID for fault in self.client) else decision

    def _decision(self, now: float) -> str | None:
        if FAIL in self._decided or self._overflows(now):
            return FAIL
        seconds = now - (self.measured_from or now)
        if self._open_loop and seconds < LEAST_GROWTH_S:  # a queue may still be too short to be missed
            return None
        if all(decided == PASS for decided in self._decided):
            return PASS
        if self.tried.kind == COARSE and self._is_fine():
            return FINE
        spent = seconds >= MOST_S * (2 if self.tried.kind in (CONFIRM, ABOVE) else 1)
        full = all(
            decided != UNDECIDED or sample.full for decided, sample in zip(self._decided, self._samples, strict=True)
        )
        return UNDECIDED if spent or full else None

    def _overflows(self, now: float) -> bool:
        """Whether, for all that the objectives are still kept, the queue grows."""
        since = self.measured_from or now
        if not self._open_loop or now - since < LEAST_GROWTH_S:
            return False
        if not grows(self._queue(since), since, now) or not self._runs_away(since):
            return False
        self._overflow()
        return True

    def _is_fine(self) -> bool:
        enough = min(MOST_FINE, max(FEWEST_FINE, 2 * self.tried.level))
        return all(len(sample) >= enough and sample.evidence() < 0 for sample in self._samples)

    def _bind(self, decision: str) -> None:
        if self.binding is not None:
            return
        failed = [index for index, decided in enumerate(self._decided) if decided == FAIL]
        among = failed or [index for index, sample in enumerate(self._samples) if len(sample)]
        if among and decision != FINE:
            closest = max(
                among, key=lambda index: (self._samples[index].share or 0.0) / self._objectives[index].allowed
            )
            self.binding = self._objectives[closest].text

    def _client_faults(self) -> list[dict[str, Any]]:
        """Rules of the verdict on the client's own share, degraded or invalid."""
        measured: list[Measured] = []
        if len(self._measured) >= FEWEST_FOR_CLIENT:
            measured += self._own_delays()
        found = judge(measured)
        return [
            {"rule": reason.rule, "level": reason.level, "value": reason.value, "text": reason.text}
            for reason in found.reasons
            if reason.level in ("degraded", INVALID)
        ]

    def _own_delays(self) -> Iterable[Measured]:
        # p95 of few would be their one worst.
        name, rank = ("p95", 95.0) if len(self._measured) >= FEWEST_FOR_P95 else ("p50", 50.0)

        def at_rank(figures: Iterable[float | None]) -> float | None:
            found = sorted(figure for figure in figures if figure is not None)
            return percentile(found, rank) if found else None

        ttft, low = (at_rank(each.figures.get(c) for each in self._measured) for c in ("ttft_ms", "ttft_low_ms"))
        before = at_rank(each.before_sent_ms for each in self._measured)
        late = at_rank(each.figures.get("queue_ms") for each in self._measured)
        if ttft and low is not None:
            yield Measured(rule="ttft_bounds", value=(ttft - low) / ttft, absolute=ttft - low, subject=name)
        if ttft and before is not None:
            middle = statistics.median(each.figures["ttft_ms"] for each in self._measured if "ttft_ms" in each.figures)
            yield Measured(rule="send_delay", value=before / middle, absolute=before, subject=name)
        if self._open_loop and late is not None:
            yield Measured(rule="schedule_lag", value=late)
