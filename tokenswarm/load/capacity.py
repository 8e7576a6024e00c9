"""The search for the most users, or the highest rate, at which the objectives are kept. The documentation's "Capacity".

A state machine that is told the time and what has ended, and says how many users there should be. No clock and no
Locust. Each level is ramped to, left to settle, tested (`probe.py`), and drained if it was too much; `bracket.py` says
which comes next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from tokenswarm.load.bracket import CLIENT, Bracket, Next
from tokenswarm.load.probe import Ended, Probe
from tokenswarm.load.sequential import FAIL, RISK, UNDECIDED
from tokenswarm.slo import Objective

FOUND: Final = "found"
NOTHING_PASSES: Final = "nothing passes"
NOT_REACHED: Final = "not reached"
CONTRADICTORY: Final = "contradictory"
TIME: Final = "time"
STOPPED: Final = "stopped"
STUCK: Final = "stuck"

QUIET_S: Final = 1.5
"""Nothing in flight counts after so long: what was told of it may be a second old."""
STUCK_S: Final = 60.0
"""Users of a level that do not come for so long never will."""

_RAMP, _PROBE, _DRAIN, _DONE = "ramp", "probe", "drain", "done"


class Search:
    """`tick` once a second or more often, until it returns None; then there is an `answer`."""

    def __init__(
        self,
        objectives: Sequence[Objective],
        *,
        most: int,
        rate_per_user: float | None = None,
        settling: float | None = None,
        time_limit: float | None = None,
        drain_limit: float = 300.0,
    ) -> None:
        """`most`: users that may be tried. `rate_per_user`: requests a second that each stands for in the open loop;
        None in the closed one. Seconds: `settling` of each level at least (None: as it needs), `time_limit` of the
        whole search, `drain_limit` of waiting for what is in flight."""
        self.probes: list[dict[str, Any]] = []
        self.answer: dict[str, Any] | None = None
        self._objectives = objectives
        self._bracket = Bracket(most)
        self._rate = rate_per_user
        self._settling = settling
        self._time_limit = time_limit
        self._drain_limit = drain_limit
        self._state = _RAMP
        self._next: Next = Next(0, "")
        self._probe: Probe | None = None
        self._began: float | None = None
        self._since = 0.0
        self._asked = 0
        self._running = 0

    @property
    def probe(self) -> Probe | None:
        """The level that is being tried; None while it ramps or drains."""
        return self._probe if self._state == _PROBE else None

    def feed(self, ended: Iterable[Ended]) -> None:
        """Requests that have ended."""
        if self._probe is not None and self._state == _PROBE:
            self._probe.feed(ended)

    def tick(self, now: float, running: int, in_flight: int) -> int | None:
        """How many users there should be, given how many there are, and requests in flight; None when it is over."""
        if self._began is None:
            self._began = now
            self._go_on(now, drain=False)
        if self._time_limit is not None and now - self._began >= self._time_limit and self._state != _DONE:
            self.stop(now, TIME)
        if self._state == _RAMP and running != self._asked:
            self._watch_ramp(now, running)
        elif self._state == _RAMP:
            self._state = _PROBE
            self._probe = Probe(
                self._next, self._objectives, now, open_loop=self._rate is not None, settling=self._settling
            )
        elif self._state == _PROBE and self._probe is not None:
            if (found := self._probe.tick(now, in_flight)) is not None:
                self._note(self._probe)
                self._bracket.record(self._next, found)
                self._go_on(now, drain=found in (FAIL, UNDECIDED, CLIENT))
        elif self._state == _DRAIN and self._is_drained(now, running, in_flight):
            self._state, self._asked, self._since = _RAMP, self._next.level, now
        return None if self._state == _DONE else self._asked

    def stop(self, now: float, why: str = STOPPED) -> None:
        """It ends here, with what it knows; `tick` returns None from now on."""
        if self.answer is None:
            self.answer = self._answer(now, why)
        self._state = _DONE

    def _watch_ramp(self, now: float, running: int) -> None:
        if running != self._running:
            self._running, self._since = running, now
        elif now - self._since >= STUCK_S:
            self.stop(now, STUCK)

    def _go_on(self, now: float, drain: bool) -> None:
        """To the next level, if there is one."""
        coming = self._bracket.next()
        if coming is None:
            self.stop(now, self._reason())
            return
        self._next = coming
        self._since = now
        self._state = _DRAIN if drain else _RAMP
        self._asked = 0 if drain else coming.level

    def _is_drained(self, now: float, running: int, in_flight: int) -> bool:
        waited = now - self._since
        return waited >= self._drain_limit or (running == 0 and in_flight == 0 and waited >= QUIET_S)

    def _note(self, probe: Probe) -> None:
        told = {"number": len(self.probes) + 1, **probe.told()}
        if self._rate is not None:
            told["rate"] = told["users"] * self._rate
        self.probes.append(told)

    def _reason(self) -> str:
        bracket = self._bracket
        if bracket.exhausted:
            return CONTRADICTORY
        if bracket.ceiling == CLIENT:
            return CLIENT
        if not bracket.low:
            return NOTHING_PASSES if bracket.ceiling == FAIL else UNDECIDED
        if bracket.high is None:
            return NOT_REACHED
        return FOUND if bracket.failed is not None else UNDECIDED

    def _answer(self, now: float, why: str) -> dict[str, Any]:
        """As run.json and summary.json have it."""
        passed, failed = self._bracket.passed, self._bracket.failed
        answer = {
            "why": why,
            "users": passed,
            "failed_users": failed,
            "most_users": self._bracket.most,
            "confirmed": passed is not None and self._bracket.confirmed and self._bracket.low == passed,
            "binding": self._binding(passed, failed),
            "risk": RISK,
            "seconds": now - (self._began if self._began is not None else now),
        }
        if self._rate is not None:
            answer["rate"] = None if passed is None else passed * self._rate
            answer["failed_rate"] = None if failed is None else failed * self._rate
        return answer

    def _binding(self, passed: int | None, failed: int | None) -> str | None:
        """What stood in the way at the lowest level that failed; else what was closest to it at the highest pass."""
        for level in (failed, passed):
            for probe in reversed(self.probes):
                if level is not None and probe["users"] == level and probe["binding"] is not None:
                    return str(probe["binding"])
        return None
