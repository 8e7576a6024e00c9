"""Stalls: replies that stood still in mid-stream. How many, how long, on which workers, and which of them ended at one
and the same moment, as they do when a whole server pauses.

A row tells its longest gap, not when that was. The workers' histograms of gaps, one a second, tell it to the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tokenswarm import histogram
from tokenswarm.results.flow import Floats, column
from tokenswarm.results.phases import Phases
from tokenswarm.results.read import Run

SHORTEST_MS: Final = 1000.0
TIMES_THE_MEDIAN: Final = 10.0
"""A gap longer than both, this many times the median gap and a second, is a stall."""
MOST_LINES: Final = 300
"""Histograms that are read to find out when; the longest stalls first."""
KNOWN_S: Final = 2.5
"""A moment that is known as well as this may be held against others."""
SAME_GAP: Final = 0.01
"""Histograms keep a gap within half a percent."""
SEVERAL: Final = 3
MOST_MOMENTS: Final = 10
MOST_LISTED: Final = 1000
CHANCE: Final = 0.01


@dataclass(frozen=True)
class Stalls:
    """The requests with a stall, the longest first: indices into the run's rows, their longest gaps, and between which
    instants (UTC epoch seconds) these ended."""

    threshold_ms: float
    index: npt.NDArray[np.int64]
    gap_ms: Floats
    low: Floats
    high: Floats

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Of which it is known when."""
        return (self.high - self.low) <= KNOWN_S


def threshold_ms(rows: pd.DataFrame) -> float | None:
    """The longest gap that is none: one second, or ten times the median of the requests' median gaps; None where no
    request has any."""
    typical = column(rows, "itl_p50_ms")
    if np.isnan(column(rows, "itl_max_ms")).all():
        return None
    known = typical[~np.isnan(typical)]
    return max(SHORTEST_MS, TIMES_THE_MEDIAN * float(np.median(known))) if len(known) else SHORTEST_MS


def find(run: Run) -> Stalls | None:
    """All of a run; None where no gap between chunks is known."""
    limit = threshold_ms(run.rows)
    if limit is None:
        return None
    gaps = column(run.rows, "itl_max_ms")
    index = np.flatnonzero(gaps > limit)
    index = index[np.argsort(-gaps[index], kind="stable")]
    rows = run.rows.iloc[index]
    low = column(rows, "first_token_time") + gaps[index] / 1e3
    high = np.maximum(low, _last_token(rows))
    if not run.intervals.empty:
        _place(run, rows, gaps[index], low, high)
    return Stalls(limit, index, gaps[index], low, high)


def figures(run: Run, phases: Phases) -> dict[str, Any] | None:
    """What `stalls` of summary.json says; None where no gap between chunks is known."""
    found = find(run)
    if found is None:
        return None
    rows, workers = run.rows, column(run.rows, "worker")
    gaps = column(rows, "itl_max_ms")
    streamed = _by_worker(workers[~np.isnan(gaps)])
    stalled = _by_worker(workers[found.index])
    count, total = len(found.index), int((~np.isnan(gaps)).sum())
    at, moments = _moments(run, phases, found)
    return {
        "threshold_ms": found.threshold_ms,
        "streamed": total,
        "requests": count,
        "share": count / total,
        "longest_ms": float(np.nanmax(gaps)),
        "longest_id": str(rows["id"].iat[int(np.nanargmax(gaps))]),
        "silent": _silent(rows, found.threshold_ms),
        "placed": int(found.known.sum()),
        "workers": [
            {"worker": worker, "streamed": n, "requests": stalled.get(worker, 0)} for worker, n in streamed.items()
        ],
        "one_worker": _one_worker(count, stalled, streamed),
        "moments": moments,
        "each": [
            {
                "id": str(rows["id"].iat[index]),
                "worker": None if np.isnan(workers[index]) else int(workers[index]),
                "gap_ms": float(found.gap_ms[n]),
                "from_s": float(found.low[n]) - phases.start,
                "to_s": float(found.high[n]) - phases.start,
                "at_s": float(at[n]) - phases.start,
            }
            for n, index in enumerate(found.index[:MOST_LISTED].tolist())
        ],
    }


def _by_worker(workers: Floats) -> dict[int, int]:
    """How many of these requests are of each; left out are those of which it is not known."""
    numbers, counts = np.unique(workers[~np.isnan(workers)].astype(int), return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def _last_token(rows: pd.DataFrame) -> Floats:
    return column(rows, "start_time") + column(rows, "last_token_ms") / 1e3


def _silent(rows: pd.DataFrame, limit: float) -> int:
    """Replies that stood still and never went on: requests that were not ok in the end, with so long a silence after
    their last token."""
    rest = column(rows, "e2e_ms") - column(rows, "last_token_ms")
    return int(((rows["status"] != "ok").to_numpy() & (rest > limit)).sum())


def _place(run: Run, rows: pd.DataFrame, gaps: Floats, low: Floats, high: Floats) -> None:
    """Narrow [low, high] to the seconds in whose histogram a gap of that length is."""
    lines = run.intervals
    ends = column(lines, "time")
    starts = ends - column(lines, "seconds")
    itl = lines["itl"].tolist()
    late = np.nan_to_num(column(rows, "client_lag_ms")) / 1e3
    of_worker = _lines_of(column(lines, "worker"), starts, ends)
    read: dict[int, Floats] = {}
    for at, worker in enumerate(column(rows, "worker").tolist()):
        if worker not in of_worker:
            continue
        # A chunk is counted when it is handled, which may be later than it came.
        near = of_worker[worker].touching(float(low[at]), float(high[at] + late[at]))
        new = [line for line in near if line not in read]
        if len(read) + len(new) > MOST_LINES:
            continue
        read |= {line: _gaps_ms(itl[line]) for line in new}
        here = [line for line in near if (np.abs(read[line] / gaps[at] - 1) <= SAME_GAP).any()]
        if here:
            low[at] = max(low[at], min(starts[here]) - late[at])
            high[at] = max(low[at], min(high[at], max(ends[here])))


@dataclass(frozen=True)
class _Lines:
    """The intervals of one worker by their places in the file, in order of their ends."""

    places: npt.NDArray[np.int64]
    starts: Floats
    ends: Floats
    longest: float

    def touching(self, start: float, end: float) -> list[int]:
        """Those that (start, end) touches."""
        first, last = np.searchsorted(self.ends, (start, end + self.longest), side="right")
        places: list[int] = self.places[first:last][self.starts[first:last] < end].tolist()
        return places


def _lines_of(owners: Floats, starts: Floats, ends: Floats) -> dict[float, _Lines]:
    order = np.lexsort((ends, owners))
    numbers, begins = np.unique(owners[order], return_index=True)
    return {
        number: _Lines(mine, starts[mine], ends[mine], float((ends[mine] - starts[mine]).max()))
        for number, mine in zip(numbers.tolist(), np.split(order, begins[1:]), strict=True)
    }


def _gaps_ms(encoded: str) -> Floats:
    """The gaps in a histogram that can be stalls; none in a damaged one, of which others tell."""
    if not encoded:
        return np.empty(0)
    try:
        values, _ = histogram.recorded(histogram.decode(encoded))
    except ValueError:
        return np.empty(0)
    gaps: Floats = values[values >= SHORTEST_MS * 1e3 * (1 - SAME_GAP)] / 1e3
    return gaps


def _one_worker(count: int, stalled: dict[int, int], streamed: dict[int, int]) -> int | None:
    """The worker that has all the stalls, where there are others and chance would not have it so."""
    if len(streamed) < 2 or count not in stalled.values():
        return None
    (worker,) = stalled
    return worker if (streamed[worker] / sum(streamed.values())) ** count < CHANCE else None


def _moments(run: Run, phases: Phases, found: Stalls) -> tuple[Floats, list[dict[str, Any]]]:
    """When each stall probably ended (epoch seconds), and the instants at which several may have, the ones with the
    most first: as few instants as there can be, for every stall of which it is known when."""
    probably = (found.low + found.high) / 2
    known = np.flatnonzero(found.known)
    order = known[np.argsort(found.high[known], kind="stable")]
    together = []
    while len(order):
        until = float(found.high[order[0]])
        members = order[found.low[order] <= until]
        order = order[found.low[order] > until]
        if len(members) >= SEVERAL:
            probably[members] = (float(found.low[members].max()) + until) / 2
            together.append(members)
    largest = sorted(together, key=len, reverse=True)[:MOST_MOMENTS]
    return probably, [_moment(run, phases, found, members, float(probably[members[0]])) for members in largest]


def _moment(run: Run, phases: Phases, found: Stalls, members: npt.NDArray[np.int64], at: float) -> dict[str, Any]:
    """What is said of stalls that may all have ended at one instant."""
    workers, gaps = column(run.rows, "worker"), found.gap_ms[members]
    until = float(found.high[members].min())
    streaming = (column(run.rows, "first_token_time") <= until - gaps.min() / 1e3) & (_last_token(run.rows) >= until)
    streaming[found.index[members]] = True  # whatever rounding makes of a stall just before the last token
    # Of some it is known that they stood still, but not when: it may have been now.
    unsure = ~found.known & (found.low <= until) & (found.high >= found.low[members].max())
    perhaps = streaming & np.isin(np.arange(len(streaming)), found.index[unsure])
    went_on = streaming & ~perhaps
    went_on[found.index[members]] = False
    stood = workers[found.index[members]]
    return {
        "at_s": at - phases.start,
        "requests": len(members),
        "streaming": int(streaming.sum()),
        "workers": sorted(_by_worker(stood)),
        "longest_ms": float(gaps.max()),
        "median_ms": float(np.median(gaps)),
        "suspect": _suspect(stood, workers[went_on], workers[perhaps]),
    }


def _suspect(stood: Floats, went_on: Floats, perhaps: Floats) -> str | None:
    """By the workers of what stood still, of what went on, and of what may have done either. `worker`: those of one
    worker stood still, while others' went on; `server`: at least half of all did; `unknown`: at least half may have.
    """
    if len(np.unique(stood)) == 1 and not np.isnan(stood[0]):
        others, unsure = (int((~np.isnan(these) & (these != stood[0])).sum()) for these in (went_on, perhaps))
        if others >= max(SEVERAL, unsure):
            return "worker"
    if len(stood) >= len(went_on) + len(perhaps):
        return "server"
    return "unknown" if len(stood) + len(perhaps) >= len(went_on) else None
