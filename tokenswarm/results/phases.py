"""Ramp, steady and drain windows of a run, and its cohort, from the load's boundaries. METRICS.md, "Cohort".

Steady starts when the asked number of users is reached plus a settling time, and ends at the next change of load or at
the stop. A run edited in the web UI, or with steps, has several steady windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tokenswarm.results import flow
from tokenswarm.results.capacity import Probe
from tokenswarm.results.read import Boundary, Run

Mask = npt.NDArray[np.bool_]

RAMP: Final = "ramp"
STEADY: Final = "steady"
DRAIN: Final = "drain"
SHORTEST_S: Final = 1.0
"""A steady stretch shorter than this is no window: nothing per second can be said about it."""
SETTLING_S: Final = 10.0


@dataclass(frozen=True)
class Phase:
    """[start, end) in UTC epoch seconds; `users` is the asked number."""

    kind: str
    start: float
    end: float
    users: int | None

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Phases:
    """`windows` are what is measured: the steady phases, or the whole run when there is none (`whole_run`)."""

    start: float
    end: float
    warmup: float
    wanted_warmup: float
    """What the settling time would have been in a run that is long enough."""
    phases: tuple[Phase, ...]
    windows: tuple[Phase, ...]
    whole_run: bool
    note: str

    @property
    def seconds(self) -> float:
        """Length of all windows together."""
        return sum(window.seconds for window in self.windows)

    def contain(self, times: npt.NDArray[np.float64]) -> Mask:
        """Which of these instants lie inside a window."""
        inside = np.zeros(len(times), dtype=np.bool_)
        for window in self.windows:
            inside |= (times >= window.start) & (times < window.end)
        return inside


def find(run: Run) -> Phases:
    """The phases of a run. Never empty: without a steady window the whole run is the window, and `note` says why."""
    start, end = _span(run)
    boundaries = sorted(known_boundaries(run), key=lambda boundary: boundary.time)
    load_end = min((b.time for b in boundaries if b.event in ("stopping", "stopped")), default=end)
    wanted = settling_time(run)
    warmup = wanted if _is_set(run) else min(wanted, max(0.0, load_end - start) / 3)
    phases = _phases(boundaries, start, load_end, end, warmup)
    steady = tuple(phase for phase in phases if phase.kind == STEADY)
    if run.info.capacity is not None and run.info.capacity.headline:
        probes = tuple(_probes(run.info.capacity.headline))
        return Phases(start, end, warmup, warmup, phases, probes, whole_run=False, note="")
    if steady:
        return Phases(start, end, warmup, wanted, phases, steady, whole_run=False, note="")
    spawned = any(boundary.event == "spawned" for boundary in boundaries)
    why = (
        f"load did not stay at its target for longer than the settling time of {warmup:.3g} s"
        if spawned
        else "the asked number of users was never reached"
    )
    note = f"No steady window: {why}. The figures cover the whole run, ramp and drain included."
    whole = Phase("whole", start, max(end, start + 1e-3), run.info.load.users)
    return Phases(start, end, warmup, wanted, phases, (whole,), whole_run=True, note=note)


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


def _is_set(run: Run) -> bool:
    asked: Any = run.info.options.get("warmup")
    return isinstance(asked, int | float) and not isinstance(asked, bool) and math.isfinite(asked) and asked >= 0


def settling_time(run: Run) -> float:
    """`--warmup`, or the larger of 10 s and twice the median e2e of the successful."""
    if _is_set(run):
        return float(run.info.options["warmup"])
    e2e = run.rows.loc[run.rows["status"] == "ok", "e2e_ms"].dropna()
    twice_median = 2 * float(e2e.median()) / 1e3 if len(e2e) else 0.0
    return max(SETTLING_S, twice_median)


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


def _phases(
    boundaries: Sequence[Boundary], start: float, load_end: float, end: float, warmup: float
) -> tuple[Phase, ...]:
    changes = [b for b in boundaries if b.event in ("start", "target", "lost") and b.time < load_end]
    phases: list[Phase] = []
    for index, change in enumerate(changes):
        until = changes[index + 1].time if index + 1 < len(changes) else load_end
        reached = [b for b in boundaries if b.event == "spawned" and change.time <= b.time < until]
        users = reached[0].users if reached and reached[0].users is not None else change.users
        steady_from = reached[0].time + warmup if reached else until
        if users == 0 or until - steady_from < SHORTEST_S:
            steady_from = until
        phases += [Phase(RAMP, change.time, steady_from, users), Phase(STEADY, steady_from, until, users)]
    if end > load_end:
        phases.append(Phase(DRAIN, load_end, end, 0))
    return tuple(phase for phase in phases if phase.seconds > 0)
