"""Whether a steady window was steady: its first half held against its second.

Successive requests are alike (they share batches, queues and waves of prompts), so each half is cut into batches that
are longer than a user's whole turn, and only batches are compared: the halves differ if every batch of the one lies
above every batch of the other. By chance that happens once in 35 windows with four batches a half, and once in 6,435
with eight; to count, a change has to be large as well (`rules.py`). A window too short for four batches is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from tokenswarm.results import flow
from tokenswarm.results.distribution import between
from tokenswarm.results.flow import Floats, column
from tokenswarm.results.phases import Phase, Phases, intended
from tokenswarm.results.read import Run

MOST_BATCHES: Final = 8
FEWEST_BATCHES: Final = 4
"""In each half."""
BATCH_ROWS: Final = 20
BATCH_SECONDS: Final = 1.0
FEWEST_REQUESTS: Final = 2.0
"""Requests in flight that come and go are no change of load."""


@dataclass(frozen=True)
class Change:
    """Medians of the batches of either half, which do not overlap."""

    what: str
    """As a sentence names it."""
    unit: str
    first: float
    second: float

    @property
    def share(self) -> float:
        """Of the smaller of the two."""
        low, high = sorted((self.first, self.second))
        return (high - low) / low if low > 0 else 0.0


def changes(run: Run, phases: Phases) -> Iterator[Change]:
    """What differs between the halves of a steady window, of every window that is long enough to tell."""
    if phases.whole_run:
        return
    due = intended(run)
    tokens, _ = flow.output_tokens(run)
    flying = flow.in_flight(run, phases.end)
    for window in phases.windows:
        inside = (due >= window.start) & (due < window.end) & run.rows["ttft_ms"].notna().to_numpy()
        batches = batches_a_half(window, int(inside.sum()))
        if batches < FEWEST_BATCHES:
            continue
        edges = np.linspace(window.start, window.end, 2 * batches + 1)
        yield from _compared("TTFT", " ms", _medians(due[inside], column(run.rows, "ttft_ms")[inside], edges))
        if tokens is not None:
            yield from _compared("output tokens", "/s", tokens.per_bin(edges))
        if flying is not None:
            for change in _compared("requests in flight", "", flying.per_bin(edges)):
                if abs(change.second - change.first) >= FEWEST_REQUESTS:
                    yield change


def batches_a_half(window: Phase, rows: int) -> int:
    """How many batches fit into half the window, each of at least a second, twenty rows, and a user's whole turn."""
    if not rows:
        return 0
    turn = (window.users or 1) / (rows / window.seconds)
    length = max(BATCH_SECONDS, turn, BATCH_ROWS * window.seconds / rows)
    return min(MOST_BATCHES, int(window.seconds / 2 / length))


def _medians(times: Floats, values: Floats, edges: Floats) -> Floats:
    """Of the values in each batch; NaN for one without any."""
    return np.array([np.median(batch) if len(batch) else np.nan for batch in between(edges, times, values)])


def _compared(what: str, unit: str, values: Floats) -> Iterator[Change]:
    first, second = np.split(values, 2)
    if first.max() < second.min() or first.min() > second.max():
        yield Change(what, unit, float(np.median(first)), float(np.median(second)))
