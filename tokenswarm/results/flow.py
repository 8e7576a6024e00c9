"""Amounts that flow over time: tokens, chunks, requests in flight; how much fell into a window or into each second.

Also which of the run directory's files each amount is taken from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tokenswarm.results.cohort import Rows
from tokenswarm.results.read import Run, once

Floats = npt.NDArray[np.float64]

SILENT_S: Final = 3.0
BEFORE_SENT: Final = ("pool_ms", "dns_ms", "tcp_ms", "tls_ms", "send_ms")


class Flow:
    """The sum of many even flows, each `amount` spread over its [start, end) in epoch seconds.

    Kept as one piecewise linear curve of the amount so far, so that any window costs two look-ups.
    """

    def __init__(self, starts: Floats, ends: Floats, amounts: Floats) -> None:
        use = ~(np.isnan(starts) | np.isnan(ends) | np.isnan(amounts))
        starts, amounts = starts[use], amounts[use]
        ends = np.maximum(ends[use], starts + 1e-4)
        self._origin = float(starts.min()) if len(starts) else 0.0
        rates = amounts / (ends - starts)
        times = np.concatenate([ends, starts]) - self._origin  # ends first: back to back is not at once
        order = np.argsort(times, kind="stable")
        self._times: Floats = times[order] if len(times) else np.zeros(1)
        self._rates: Floats = np.cumsum(np.concatenate([-rates, rates])[order]) if len(times) else np.zeros(1)
        steps = np.diff(self._times) * self._rates[:-1]
        self._so_far: Floats = np.concatenate([[0.0], np.cumsum(steps)])

    def until(self, times: Floats) -> Floats:
        """The amount before each of these instants."""
        found: Floats = np.interp(np.asarray(times, dtype=np.float64) - self._origin, self._times, self._so_far)
        return found

    def between(self, start: float, end: float) -> float:
        """The amount in [start, end)."""
        before, after = self.until(np.array([start, end]))
        return float(after - before)

    def per_bin(self, edges: Floats) -> Floats:
        """The amount per second in each bin between consecutive edges."""
        found: Floats = np.diff(self.until(edges)) / np.diff(edges)
        return found

    def busiest_second(self, start: float, end: float) -> tuple[float, float] | None:
        """The whole second of [start, end) with the largest amount, the first if there are several: when it begins, and
        the amount. None if there is no whole second."""
        first, last = math.ceil(start), math.floor(end) - 1
        if last < first:
            return None
        # The rate is constant between changes, so that one of the seconds around them is the busiest.
        changes = np.unique(np.floor(self._times + self._origin))
        seconds = np.unique(np.concatenate([[first], changes - 1, changes, changes + 1]))
        seconds = seconds[(seconds >= first) & (seconds <= last)]
        amounts = self.until(seconds + 1) - self.until(seconds)
        index = int(amounts.argmax())
        return float(seconds[index]), float(amounts[index])

    def highest_rate(self) -> float:
        """The largest rate at any instant; for requests in flight (amount = duration), the most at once."""
        return float(self._rates.max())


class Instants:
    """Many instants in epoch seconds, each with an amount: how many, and how much, fell into a window. Those without an
    instant or an amount (NaN) are none."""

    def __init__(self, times: Floats, amounts: Floats | None = None) -> None:
        amounts = np.ones(len(times)) if amounts is None else amounts
        use = ~(np.isnan(times) | np.isnan(amounts))
        order = np.argsort(times[use], kind="stable")
        self._times = times[use][order]
        self._so_far: Floats = np.concatenate([[0.0], np.cumsum(amounts[use][order])])

    def between(self, start: float, end: float) -> tuple[int, float]:
        """How many are in [start, end), and the sum of their amounts."""
        first, last = np.searchsorted(self._times, (start, end), side="left").tolist()
        return last - first, float(self._so_far[last] - self._so_far[first])


@dataclass(frozen=True)
class Flows:
    """All that flows in a run, made once for all of its windows; `placed_by` as `output_tokens` has it. `succeeded`,
    with the inputs that were embedded, and `sent` are requests; `unaccounted` are those of the whole run without a row.
    """

    output_tokens: Flow | None
    placed_by: str
    input_tokens: Flow | None
    characters: Flow | None
    chunks: Flow | None
    bytes: Flow | None
    in_flight: Flow | None
    succeeded: Instants
    inputs: Instants
    sent: Instants
    unaccounted: int


def flows(run: Run, run_end: float) -> Flows:
    """Of a whole run."""
    output, placed_by = output_tokens(run)
    ends = np.where((run.rows["status"] == "ok").to_numpy(), column(run.rows, "end_time"), np.nan)
    return Flows(
        output_tokens=output,
        placed_by=placed_by,
        input_tokens=input_tokens(run),
        characters=counted(run, "characters"),
        chunks=counted(run, "chunks"),
        bytes=counted(run, "bytes"),
        in_flight=in_flight(run, run_end),
        succeeded=Instants(ends),
        inputs=Instants(ends, column(run.rows, "inputs")),
        sent=Instants(sent_times(run.rows)),
        unaccounted=unaccounted(run),
    )


@once
def missing_intervals(run: Run) -> int:
    """Intervals that are not in the file: gaps in the workers' own numbering, and what run.json knows of beyond it."""
    numbers = run.intervals.groupby("worker")["seq"]
    there, last = numbers.nunique(), numbers.max()
    expected = {worker.index: worker.batches for worker in run.info.workers}
    return sum(
        max(0, expected.get(index, 0), int(last.get(index, -1)) + 1) - int(there.get(index, 0))
        for index in expected.keys() | {int(index) for index in there.index}
    )


@once
def output_tokens(run: Run) -> tuple[Flow | None, str]:
    """Output tokens, and what placed them in time; None if no row tells its tokens.

    `chunks`: the seconds their chunks arrived in, as the workers counted; `rows`, without all intervals: evenly between
    a row's first and last token.
    """
    seconds, amounts = _token_seconds(run.intervals["tokens"])
    if len(seconds) and not missing_intervals(run):
        return Flow(seconds, seconds + 1.0, amounts), "chunks"
    rows = run.rows[run.rows["output_tokens"].notna()]
    if rows.empty:
        return None, ""
    first = column(rows, "first_token_time")
    last = column(rows, "start_time") + column(rows, "last_token_ms") / 1e3
    return Flow(first, last, column(rows, "output_tokens")), "rows"


@once
def input_tokens(run: Run) -> Flow | None:
    """Input tokens, each request's at its first token; None if no row tells them."""
    seconds, amounts = _token_seconds(run.intervals["input_tokens"])
    if len(seconds) and not missing_intervals(run):
        return Flow(seconds, seconds + 1.0, amounts)
    rows = run.rows[run.rows["input_tokens"].notna()]
    if rows.empty:
        return None
    at = column(rows, "first_token_time")
    at = np.where(np.isnan(at), column(rows, "end_time"), at)
    return Flow(at, at, column(rows, "input_tokens"))


def counted(run: Run, what: str) -> Flow | None:
    """`chunks`, `characters` or `bytes` as the workers counted them live; None without intervals."""
    if run.intervals.empty:
        return None
    ends = column(run.intervals, "time")
    return Flow(ends - column(run.intervals, "seconds"), ends, column(run.intervals, what))


@once
def in_flight(run: Run, run_end: float) -> Flow | None:
    """Requests between sent and end, as amounts of seconds; a row without an end lasts to the run's. None without."""
    sent = sent_times(run.rows)
    ends = column(run.rows, "end_time")
    ends = np.where(np.isnan(ends), run_end, ends)
    use = ~np.isnan(sent) & (ends > sent)
    return Flow(sent[use], ends[use], (ends - sent)[use]) if use.any() else None


@once
def unaccounted(run: Run) -> int:
    """Requests that the workers say were started and that have no row."""
    if run.intervals.empty:
        return 0
    ended = sum(sum(statuses.values()) for statuses in run.intervals["ended"])
    in_flight = int(run.intervals.groupby("worker")["in_flight"].last().sum())
    counts_shed = any("shed" in statuses for statuses in run.intervals["ended"])
    rows = len(run.rows) if counts_shed else int((run.rows["status"] != "shed").sum())
    return max(0, ended + in_flight - rows - run.rows_damaged - run.info.rows.lost)


def sent_times(rows: Rows) -> Floats:
    """When the last byte of each request was handed to the kernel, epoch seconds; NaN if it never was."""
    return column(rows, "start_time") + before_sent_ms(rows) / 1e3


def before_sent_ms(rows: Rows) -> Floats:
    """Start → sent of each row; NaN where it was never sent."""
    total = column(rows, BEFORE_SENT[0])  # which nothing is sent without
    for name in BEFORE_SENT[1:]:
        total = total + np.nan_to_num(column(rows, name))
    return total


def workers_over_time(run: Run, name: str) -> pd.Series[Any]:
    """A gauge (`users`, `in_flight`) summed over the workers, by whole epoch second; a worker that is up to three
    seconds late keeps its last value."""
    if run.intervals.empty:
        return pd.Series(dtype="float64")
    frame = pd.DataFrame(
        {"second": np.floor(column(run.intervals, "time")), "worker": run.intervals["worker"], "n": run.intervals[name]}
    )
    table = frame.pivot_table(index="second", columns="worker", values="n", aggfunc="last")
    said = table.index.to_numpy()
    seconds = np.unique(np.concatenate([said + late for late in range(5)]))  # not each of a year, if a clock jumped
    table = table.reindex(seconds[seconds <= said.max()]).ffill(limit=3)
    return table.sum(axis=1, min_count=1)


def users_running(run: Run, run_end: float) -> tuple[Floats, Floats]:
    """Instants and the number of users from each on, over all workers, by what each said last; none of a worker that
    was silent for more than three seconds."""
    said = run.intervals[["worker", "time", "users"]]
    last = said.groupby("worker", as_index=False).last()
    silent = last[last["time"] < run_end - SILENT_S].assign(time=lambda frame: frame["time"] + SILENT_S, users=0)
    said = pd.concat([said, silent]).sort_values("time", kind="stable")
    changes = said.groupby("worker")["users"].diff().fillna(said["users"]).to_numpy(dtype=np.float64)
    kept = changes != 0
    if len(kept):
        kept[-1] = True
    found: Floats = np.cumsum(changes)[kept]
    return column(said, "time")[kept], found


def column(frame: Rows, name: str) -> Floats:
    """A column as float64, NaN where not measured."""
    return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)


def _token_seconds(lists: pd.Series[Any]) -> tuple[Floats, Floats]:
    pairs = [pair for pairs in lists for pair in pairs]
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]
