"""A latency against what may explain it: length of prompt and answer, requests in flight, share that was cached.

Of each relation the median and p95 of bins with about as many rows each, and, for lengths, the slope: Theil and Sen's,
the median of the slopes between all pairs of rows (of a sample of them), with its 95 % interval. What x explains of y
is not what it causes: in a mixed load long prompts may be another user's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tokenswarm.results import flow
from tokenswarm.results.distribution import NEEDED, Floats
from tokenswarm.results.flow import column
from tokenswarm.results.phases import Phases, intended
from tokenswarm.results.read import Run, once

MOST_BINS: Final = 20
FEW_BINS: Final = 8
"""In a small run, whose bins have a median only."""
FEWEST_IN_A_BIN: Final = 12
FEWEST: Final = 4 * FEWEST_IN_A_BIN
SEEN: Final = 100_000
"""Rows at about which bins are laid out; their percentiles are of all rows."""
SAMPLE: Final = 600
"""Rows that a slope is taken of: 180 thousand pairs."""


@dataclass(frozen=True)
class Relation:
    """`y` is a column of requests.csv; `x` one of `explaining`. `whole_run`: of all rows that have both, ramp included,
    for a closed loop has one and the same concurrency in its steady window; else of the cohort. `slope` a `per` of
    x."""

    y: str
    x: str
    whole_run: bool = False
    per: float | None = None
    only_ok: bool = True

    @property
    def name(self) -> str:
        return f"{self.y}_by_{self.x}"


RELATIONS: Final = (
    Relation("ttft_ms", "input_tokens", per=100, only_ok=False),
    Relation("ttft_ms", "cached_share", only_ok=False),
    Relation("ttft_ms", "in_flight", whole_run=True, only_ok=False),
    Relation("tpot_ms", "in_flight", whole_run=True),
    Relation("tpot_ms", "output_tokens"),
    Relation("e2e_ms", "output_tokens", per=100),
)


@dataclass(frozen=True)
class Pairs:
    """The rows of a relation that have both; `ok` of each."""

    relation: Relation
    x: Floats
    y: Floats
    ok: np.ndarray[Any, np.dtype[np.bool_]]


def figures(run: Run, phases: Phases) -> dict[str, Any]:
    """By the relation's name: its `rows`, `bins` and `slope`; None where x is unknown or (nearly) always the same, or
    the rows are too few."""
    found: dict[str, Any] = dict.fromkeys(relation.name for relation in RELATIONS)
    for pairs in every(run, phases):
        bins = _bins(pairs.x, pairs.y) if len(pairs.x) >= FEWEST else []
        if len(bins) > 1:
            slope = None if pairs.relation.per is None else _slope(pairs.x, pairs.y, pairs.relation.per)
            found[pairs.relation.name] = {"rows": len(pairs.x), "bins": bins, "slope": slope}
    return found


def every(run: Run, phases: Phases) -> Iterator[Pairs]:
    """The pairs of each relation that says something: two rows at least, and an x that differs."""
    explaining = _explaining(run)
    cohort = phases.contain(intended(run))
    ok = (run.rows["status"] == "ok").to_numpy()
    for relation in RELATIONS:
        x, y = explaining[relation.x], column(run.rows, relation.y)
        use = ~(np.isnan(x) | np.isnan(y))
        use &= True if relation.whole_run else cohort
        use &= ok if relation.only_ok else True
        if differs(x[use]):
            yield Pairs(relation, x[use], y[use], ok[use])


def differs(x: Floats) -> bool:
    """Whether there is anything to see: not all the same, nor all but a few."""
    if len(x) < 2:
        return False
    low, high = np.percentile(x[_spread(len(x), SEEN)], (5, 95))
    return bool(high > low)


def in_flight(rows: pd.DataFrame) -> Floats:
    """Requests in flight, sent and not ended, when each was sent: itself and all others, of all workers. NaN for what
    was never sent. A row without an end lasts for ever."""
    sent, ends = flow.sent_times(rows), column(rows, "end_time")
    was_sent = ~np.isnan(sent)
    over = np.sort(np.where(np.isnan(ends), np.inf, ends)[was_sent])
    order = np.argsort(sent[was_sent], kind="stable")
    begun = sent[was_sent][order]
    at_once = np.searchsorted(begun, begun, side="right") - np.searchsorted(over, begun, side="right")
    counted = np.empty(len(begun))
    counted[order] = np.maximum(at_once, 1)  # one that ended as it was sent is there for that instant
    found = np.full(len(rows), np.nan)
    found[was_sent] = counted
    return found


@once
def _explaining(run: Run) -> dict[str, Floats]:
    into, cached = column(run.rows, "input_tokens"), column(run.rows, "cached_tokens")
    share = np.round(np.divide(cached * 100, into, out=np.full(len(into), np.nan), where=into > 0))
    return {
        "input_tokens": np.where(into > 0, into, np.nan),
        "output_tokens": column(run.rows, "output_tokens"),
        "cached_share": share,
        "in_flight": in_flight(run.rows),
    }


def _bins(x: Floats, y: Floats) -> list[dict[str, Any]]:
    """Bins of about as many rows each, from lower to higher x; equal values of x are never parted. `p95` is None where
    a bin has too few for one."""
    edges = np.unique(_edges(x))
    which = np.searchsorted(edges, x, side="right").astype(np.uint8)
    order = np.argsort(which, kind="stable")  # of bytes: by radix, in no time
    bounds = np.flatnonzero(np.diff(which[order])) + 1
    found = []
    for of, values in zip(np.split(x[order], bounds), np.split(y[order], bounds), strict=True):
        if len(of) >= FEWEST_IN_A_BIN:
            p50, p95 = np.percentile(values, (50, 95))
            found.append(
                {
                    "from": float(of.min()),
                    "to": float(of.max()),
                    "x": float(np.median(of)),
                    "rows": len(of),
                    "p50": float(p50),
                    "p95": float(p95) if len(of) >= NEEDED["p95"] else None,
                }
            )
    return found


def _edges(x: Floats) -> Floats:
    """Where bins begin, but for the first: at each value if these are few, else so that bins have as many rows."""
    some = x[_spread(len(x), SEEN)]
    values = np.unique(some)
    if len(values) <= MOST_BINS:
        return values[1:]
    bins = int(np.clip(len(x) // NEEDED["p95"], min(FEW_BINS, len(x) // FEWEST_IN_A_BIN), MOST_BINS))
    found: Floats = np.quantile(some, np.linspace(0, 1, bins + 1)[1:-1], method="higher")
    return found


def _spread(count: int, most: int) -> npt.NDArray[np.int64]:
    """Places of at most so many out of `count`, spread over them evenly: one of each stretch, the same ones each time,
    but not by a fixed step, which a load whose lengths come in turn might be in step with."""
    edges = np.linspace(0, count, min(most, count) + 1)
    within = np.random.default_rng(0).random(len(edges) - 1)
    found: npt.NDArray[np.int64] = np.minimum(edges[:-1] + within * np.diff(edges), count - 1).astype(np.int64)
    return found if count > most else np.arange(count)


def _slope(x: Floats, y: Floats, per: float) -> dict[str, float] | None:
    """Theil and Sen's slope a `per` of x with its 95 % interval (Sen's, by the variance of Kendall's S); of rows that
    lie evenly in the order of the file. None if no pair differs in x."""
    chosen = _spread(len(x), SAMPLE)
    x, y = x[chosen], y[chosen]
    first, second = np.triu_indices(len(x), 1)
    run = x[second] - x[first]
    apart = run != 0
    slopes = np.sort((y[second] - y[first])[apart] / run[apart])
    n = len(x)
    if not len(slopes):
        return None
    half = 1.96 * np.sqrt(n * (n - 1) * (2 * n + 5) / 18) / 2
    middle = len(slopes) / 2
    low, high = (int(np.clip(at, 0, len(slopes) - 1)) for at in (np.floor(middle - half), np.ceil(middle + half)))
    return {
        "per": per,
        "ms": float(np.median(slopes)) * per,
        "low": float(slopes[low]) * per,
        "high": float(slopes[high]) * per,
    }
