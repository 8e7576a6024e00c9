"""Ramp, steady and drain windows of a run, and its cohort, from the load's boundaries. METRICS.md, "Cohort".

Steady starts when the asked number of users is reached plus a settling time, and ends at the next change of load or at
the stop. A run edited in the web UI, or with steps, has several steady windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tokenswarm.results import flow
from tokenswarm.results.figures.capacity import Probe
from tokenswarm.results.read import Boundary, Run, once

Mask = npt.NDArray[np.bool_]

RAMP: Final = "ramp"
STEADY: Final = "steady"
DRAIN: Final = "drain"
SHORTEST_S: Final = 1.0
"""A steady stretch shorter than this is no window: nothing per second can be said about it."""
SETTLING_S: Final = 10.0
ENDS: Final = ("through", "stopping", "stopped")
"""Events from which on less is sent than was asked: what is in flight drains."""


@dataclass(frozen=True)
class Phase:
    """[start, end) in UTC epoch seconds; `users` is the asked number. `step` counts the asked numbers, from 0."""

    kind: str
    start: float
    end: float
    users: int | None
    step: int = 0

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Step:
    """What became of one asked number of users, in [start, end): steady from `settled` on, or `unmeasured` says why
    nothing of it counts. Epoch seconds; None: never."""

    number: int
    users: int
    start: float
    end: float
    reached: float | None
    settled: float | None
    unmeasured: str


@dataclass(frozen=True)
class Settling:
    """What is left out after the users are there: so many seconds, or the time in which so many requests end."""

    wanted: float
    """Seconds, in a run that is long enough."""
    seconds: float
    requests: int | None = None
    ends: npt.NDArray[np.float64] | None = field(default=None, compare=False)
    """When requests ended, in order, where they are counted."""

    def over(self, reached: float) -> float:
        """When it is over, if the users were there at `reached`; infinite: never."""
        if self.requests is None or self.ends is None:
            return reached + self.seconds
        last = int(np.searchsorted(self.ends, reached)) + self.requests - 1
        return float(self.ends[last]) if last < len(self.ends) else math.inf

    def __str__(self) -> str:
        return f"{self.seconds:.3g} s" if self.requests is None else f"{self.requests:,} requests"


@dataclass(frozen=True)
class Phases:
    """`windows` are what is measured: the steady phases, or the whole run when there is none (`whole_run`)."""

    start: float
    end: float
    settling: Settling
    phases: tuple[Phase, ...]
    steps: tuple[Step, ...]
    windows: tuple[Phase, ...]
    whole_run: bool
    note: str

    @property
    def seconds(self) -> float:
        """Length of all windows together."""
        return sum(window.seconds for window in self.windows)

    def contain(self, times: npt.NDArray[np.float64]) -> Mask:
        """Which of these instants lie inside a window."""
        windows = sorted(self.windows, key=lambda window: window.start)
        begun = np.searchsorted([window.start for window in windows], times, side="right")
        until = np.maximum.accumulate([-math.inf, *(window.end for window in windows)])
        inside: Mask = times < until[begun]  # the latest end of what has begun by then
        return inside


@once
def find(run: Run) -> Phases:
    """The phases of a run. Never empty: without a steady window the whole run is the window, and `note` says why."""
    start, end = _span(run)
    boundaries = sorted(known_boundaries(run), key=lambda boundary: boundary.time)
    load_end = min((b.time for b in boundaries if b.event in ENDS), default=end)
    settling = _settling(run, load_end - start)
    steps = _steps(boundaries, load_end, settling)
    phases = _phases(steps, boundaries, start, load_end, end)
    steady = tuple(phase for phase in phases if phase.kind == STEADY)
    if run.info.capacity is not None and run.info.capacity.headline:
        probes = tuple(_probes(run.info.capacity.headline))
        own = Settling(settling.seconds, settling.seconds)
        return Phases(start, end, own, phases, (), probes, whole_run=False, note="")
    if steady:
        return Phases(start, end, settling, phases, steps, steady, whole_run=False, note="")
    spawned = any(boundary.event == "spawned" for boundary in boundaries)
    why = (
        f"load did not stay at its target for longer than the settling time of {settling}"
        if spawned
        else "the asked number of users was never reached"
    )
    note = f"No steady window: {why}. The figures cover the whole run, ramp and drain included."
    whole = Phase("whole", start, max(end, start + 1e-3), run.info.load.users)
    return Phases(start, end, settling, phases, steps, (whole,), whole_run=True, note=note)


@once
def intended(run: Run) -> npt.NDArray[np.float64]:
    """When each row was due, UTC epoch seconds; its start where the row has no such time."""
    times = run.rows["intended_time"].fillna(run.rows["start_time"])
    return times.to_numpy(dtype=np.float64)


def known_boundaries(run: Run) -> list[Boundary]:
    """The recorded changes of load. run.json of a killed run may lack them; then they are what the workers' intervals
    tell, to the second."""
    recorded = run.info.boundaries
    if run.ended or any(boundary.event == "spawned" for boundary in recorded):
        return recorded
    users = flow.workers_over_time(run, "users")
    asked = flow.workers_over_time(run, "target_users")
    found: list[Boundary] = []
    target, reached = 0.0, True
    for second, running, wanted in zip(users.index, users, asked, strict=True):
        if wanted != target and not math.isnan(wanted):
            target, reached = wanted, False
            found.append(Boundary(time=float(second), event="target", users=int(wanted)))
        if not reached and running >= target:
            reached = True
            found.append(Boundary(time=float(second), event="spawned", users=int(target)))
    return found or recorded


def _probes(probes: Sequence[Probe]) -> Iterator[Phase]:
    """What a capacity search measured, each level from when it had settled."""
    for probe in probes:
        if probe.measured_from is not None and probe.until is not None:
            yield Phase(STEADY, probe.measured_from, probe.until, probe.users)


def _settling(run: Run, load_seconds: float) -> Settling:
    """`--warmup`; else the larger of 10 s and twice the median e2e of the successful, but at most a third of the load,
    and of each of --steps."""
    asked: Any = run.info.options.get("warmup")
    if isinstance(asked, int | float) and not isinstance(asked, bool) and math.isfinite(asked) and asked >= 0:
        return Settling(float(asked), float(asked))
    if isinstance(asked, dict) and isinstance(asked.get("requests"), int):
        ends = run.rows.loc[run.rows["status"] != "shed", "end_time"].dropna()
        return Settling(0.0, 0.0, max(1, asked["requests"]), np.sort(ends.to_numpy(dtype=np.float64)))
    e2e = run.rows.loc[run.rows["status"] == "ok", "e2e_ms"].dropna()
    wanted = max(SETTLING_S, 2 * float(e2e.median()) / 1e3 if len(e2e) else 0.0)
    longest = max(0.0, load_seconds) / 3
    step_time: Any = run.info.options.get("step_time")
    if run.info.options.get("steps") and isinstance(step_time, int | float):
        longest = min(longest, step_time / 3)
    return Settling(wanted, min(wanted, longest))


def _span(run: Run) -> tuple[float, float]:
    """First and last instant of the run, from whatever tells them."""
    info, rows, intervals = run.info, run.rows, run.intervals
    boundary_times = [boundary.time for boundary in info.boundaries]
    starts = [info.start.time] if info.start else [*boundary_times, *_extreme(rows["start_time"].min())]
    ends = [*boundary_times, *_extreme(rows["end_time"].max())]
    if len(intervals):
        ends.append(float(intervals["time"].iloc[-1]))
        starts = starts or [float(intervals["time"].iloc[0])]
    if info.end:
        ends.append(info.end.time)
    start = min(starts, default=0.0)
    return start, max([*ends, start])


def _extreme(value: Any) -> list[float]:
    return [] if value is None or math.isnan(value) else [float(value)]


def _steps(boundaries: Sequence[Boundary], load_end: float, settling: Settling) -> tuple[Step, ...]:
    """What became of each asked number of users. A lost worker ends what its users were part of."""
    changes = [b for b in boundaries if b.event in ("target", "lost") and b.time < load_end]
    found: list[Step] = []
    number = -1
    ends = [*(change.time for change in changes[1:]), load_end]
    for change, until in zip(changes, ends, strict=False):
        number += change.event == "target"
        reached = next((b for b in boundaries if b.event == "spawned" and change.time <= b.time < until), None)
        users = change.users or 0
        settled, unmeasured = None, "its users were never all there"
        if reached is not None:
            users = users if reached.users is None else reached.users
            settled, unmeasured = settling.over(reached.time), ""
            if settled > until - SHORTEST_S:
                settled, unmeasured = None, f"it did not last longer than the settling time of {settling}"
        if users == 0:
            settled, unmeasured = None, "nobody was asked for"
        at = None if reached is None else reached.time
        found.append(Step(max(0, number), users, change.time, until, at, settled, unmeasured))
    return tuple(found)


def _phases(
    steps: Sequence[Step], boundaries: Sequence[Boundary], start: float, load_end: float, end: float
) -> tuple[Phase, ...]:
    began = next((b.time for b in boundaries if b.event == "start"), start)
    phases = [Phase(RAMP, began, steps[0].start if steps else load_end, 0)]
    for step in steps:
        settled = step.end if step.settled is None else step.settled
        phases.append(Phase(RAMP, step.start, settled, step.users, step.number))
        phases.append(Phase(STEADY, settled, step.end, step.users, step.number))
    if end > load_end:
        phases.append(Phase(DRAIN, load_end, end, 0))
    return tuple(phase for phase in phases if phase.seconds > 0)
