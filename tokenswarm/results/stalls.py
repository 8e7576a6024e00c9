"""Stalls: replies that stood still in mid-stream. How many, how long, on which workers, and which of them ended at one
and the same moment, as they do when a whole server pauses.

A row tells its longest gap, not when that was. The workers' histograms of gaps, one a second, tell it to the second.
"""

from __future__ import annotations

from collections import Counter
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
    numbers, counts = np.unique(workers[~np.isnan(gaps)].astype(int), return_counts=True)
    streamed = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    stalled = Counter(workers[found.index].astype(int).tolist())
    count, total = len(found.index), sum(streamed.values())
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
        "workers": [{"worker": worker, "streamed": n, "requests": stalled[worker]} for worker, n in streamed.items()],
        "one_worker": _one_worker(stalled, streamed),
        "moments": moments[:MOST_MOMENTS],
        "each": [
            {
                "id": str(rows["id"].iat[index]),
                "worker": int(workers[index]),
                "gap_ms": float(found.gap_ms[n]),
                "from_s": float(found.low[n]) - phases.start,
                "to_s": float(found.high[n]) - phases.start,
                "at_s": float(at[n]) - phases.start,
            }
            for n, index in enumerate(found.index[:MOST_LISTED].tolist())
        ],
    }


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
    owners, itl = column(lines, "worker"), lines["itl"].tolist()
    late = np.nan_to_num(column(rows, "client_lag_ms")) / 1e3
    workers = column(rows, "worker")
    read: dict[int, Floats] = {}
    for at in range(len(rows)):
        # A chunk is counted when it is handled, which may be later than it came.
        near = np.flatnonzero((owners == workers[at]) & (ends > low[at]) & (starts < high[at] + late[at]))
        new = [line for line in near.tolist() if line not in read]
        if len(read) + len(new) > MOST_LINES:
            continue
        read |= {line: _gaps_ms(itl[line]) for line in new}
        here = [line for line in near.tolist() if (np.abs(read[line] / gaps[at] - 1) <= SAME_GAP).any()]
        if here:
            low[at] = max(low[at], min(starts[here]) - late[at])
            high[at] = max(low[at], min(high[at], max(ends[here])))


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


def _one_worker(stalled: Counter[int], streamed: dict[int, int]) -> int | None:
    """The worker that has all the stalls, where there are others and chance would not have it so."""
    if len(stalled) != 1 or len(streamed) < 2:
        return None
    (worker, count), *_ = stalled.items()
    return worker if (streamed[worker] / sum(streamed.values())) ** count < CHANCE else None


def _moments(run: Run, phases: Phases, found: Stalls) -> tuple[Floats, list[dict[str, Any]]]:
    """When each stall probably ended (epoch seconds), and the instants at which several may have, the ones with the
    most first: as few instants as there can be, for every stall of which it is known when."""
    probably = (found.low + found.high) / 2
    known = np.flatnonzero(found.known)
    order = known[np.argsort(found.high[known], kind="stable")]
    workers = column(run.rows, "worker")
    first, last = column(run.rows, "first_token_time"), _last_token(run.rows)
    moments = []
    while len(order):
        until = float(found.high[order[0]])
        members = order[found.low[order] <= until]
        order = order[found.low[order] > until]
        if len(members) < SEVERAL:
            continue
        gaps = found.gap_ms[members]
        at = (float(found.low[members].max()) + until) / 2
        probably[members] = at
        streaming = (first <= until - gaps.min() / 1e3) & (last >= until)
        stalled = set(workers[found.index[members]].astype(int).tolist())
        others = int((streaming & ~np.isin(workers, list(stalled))).sum())
        moments.append(
            {
                "at_s": at - phases.start,
                "requests": len(members),
                "streaming": int(streaming.sum()),
                "workers": sorted(stalled),
                "longest_ms": float(gaps.max()),
                "median_ms": float(np.median(gaps)),
                "suspect": _suspect(len(members), int(streaming.sum()), len(stalled), others),
            }
        )
    return probably, sorted(moments, key=lambda moment: -moment["requests"])


def _suspect(stalled: int, streaming: int, workers: int, on_others: int) -> str | None:
    """`worker`: those of one worker stood still, while others' went on; `server`: at least half of all did."""
    if workers == 1 and on_others >= SEVERAL:
        return "worker"
    return "server" if stalled * 2 >= streaming else None
