"""What else happened around one request: the load, its worker, the GPUs, the server's own queue."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from tokenswarm.results import flow
from tokenswarm.results.figures import server
from tokenswarm.results.figures.server_names import SERVERS
from tokenswarm.results.files import server_metrics
from tokenswarm.results.flow import Floats, column
from tokenswarm.results.phases import Phases
from tokenswarm.results.read import Run

NEARBY_S: Final = 1.0
WAITING: Final = frozenset(name for names in SERVERS for each in names.waiting for name in each.split("+"))
"""How many requests wait, as the servers call it."""
UTILIZATION: Final = "utilization_ratio"


class Surroundings:
    """Of one run, made once for all the requests that are asked about."""

    def __init__(self, run: Run, phases: Phases) -> None:
        self._origin = phases.start
        self._starts = np.sort(column(run.rows, "start_time"), kind="stable")
        self._flying = _in_flight(run, phases)
        self._lines = run.intervals
        self._line_ends = column(run.intervals, "time")
        self._line_starts = self._line_ends - column(run.intervals, "seconds")
        self._line_workers = column(run.intervals, "worker")
        gpus = run.hardware[run.hardware["metric"] == UTILIZATION]
        self._gpu = column(gpus, "time"), gpus["mean"].fillna(gpus["value"]).to_numpy(dtype=np.float64) * 100
        told = run.server[run.server["metric"].isin([server_metrics.UP, *WAITING])]
        queues = ((page.times, page.gauge("waiting")) for page in server.pages(told))
        self._queues = [(times, values) for times, values in queues if values is not None]

    def of(self, row: dict[str, Any], kind: str) -> dict[str, Any]:
        """What surrounded a request (columns of its row) whose `kind` of latency is looked at.

        At its start: requests in flight, also of its worker alone, itself not counted; requests that started within a
        second; how many waited at the server. While the latency lasted: its worker's CPU and busiest loop, whether its
        receive ring was full, and the GPUs' mean utilization. None where nothing was measured.
        """
        start = row["start_time"]
        flying = {who: _before(sent, start) - _until(ends, start) for who, (sent, ends) in self._flying.items()}
        lasted = row["e2e_ms"] if kind == "itl_max_ms" else row[kind]
        until = start + lasted / 1e3
        lines = self._lines[
            (self._line_workers == row["worker"]) & (self._line_ends > start) & (self._line_starts < until)
        ]
        return {
            "at_s": float(start) - self._origin,
            "in_flight": sum(flying.values()),
            "in_flight_worker": flying.get(row["worker"], 0),
            "started_nearby": _until(self._starts, start + NEARBY_S) - _before(self._starts, start - NEARBY_S) - 1,
            "cpu_percent": _highest(lines, "cpu_percent"),
            "loop_lag_ms": _highest(lines, "loop_lag_ms"),
            "ring_full": None if (full := _highest(lines, "ring_full_ms")) is None else full > 0,
            "gpu_percent": self._gpu_percent(start, until),
            "server_waiting": self._waiting(start),
        }

    def _gpu_percent(self, start: float, end: float) -> float | None:
        """The mean of all GPUs, over at least a second, so that there is a sample."""
        times, values = self._gpu
        reach = max(0.0, NEARBY_S - (end - start)) / 2
        inside = values[(times >= start - reach) & (times <= end + reach)]
        inside = inside[~np.isnan(inside)]
        return float(inside.mean()) if len(inside) else None

    def _waiting(self, at: float) -> int | None:
        """Over all servers, by the last page of each; None where one's did not come lately."""
        known = [value for times, values in self._queues if (value := _last(times, values, at)) is not None]
        return round(sum(known)) if known and len(known) == len(self._queues) else None


def _in_flight(run: Run, phases: Phases) -> dict[float, tuple[Floats, Floats]]:
    """By worker, in order, when requests were sent, and when those ended; one without an end lasts to the run's."""
    sent, ends, workers = flow.sent_times(run.rows), column(run.rows, "end_time"), column(run.rows, "worker")
    use = ~(np.isnan(sent) | np.isnan(workers))
    sent, ends, workers = sent[use], np.where(np.isnan(ends), phases.end, ends)[use], workers[use]
    numbers, counts = np.unique(workers, return_counts=True)
    parts = (np.split(times[np.lexsort((times, workers))], np.cumsum(counts)[:-1]) for times in (sent, ends))
    return dict(zip(numbers.tolist(), zip(*parts, strict=True), strict=True)) if len(numbers) else {}


def _before(times: Floats, at: float) -> int:
    """How many of these instants, which are in order, are before `at`."""
    return int(np.searchsorted(times, at, side="left"))


def _until(times: Floats, at: float) -> int:
    """How many are no later."""
    return int(np.searchsorted(times, at, side="right"))


def _highest(lines: pd.DataFrame, name: str) -> float | None:
    values = column(lines, name)
    return None if np.isnan(values).all() else float(np.nanmax(values))


def _last(times: Floats, values: Floats, at: float) -> float | None:
    """What was said last, no more than a second and a half before."""
    index = int(np.searchsorted(times, at, side="right")) - 1
    stale = index < 0 or at - times[index] > 1.5 * NEARBY_S
    return None if stale or np.isnan(values[index]) else float(values[index])
