"""Everything that a run left, on one timeline: a row a second (or more) with load, latency, hardware and server.

Nothing is interpolated. What was not measured in a row is empty, never 0. docs/analysis.md explains every column.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pandas as pd

from tokenswarm.errors import AnalysisError
from tokenswarm.results import counters, flow, hardware, phases
from tokenswarm.results.files import server_metrics
from tokenswarm.results.flow import Floats, column
from tokenswarm.results.merge import bins, locust_history
from tokenswarm.results.merge.bins import OUTSIDE, Bins
from tokenswarm.results.read import ROWS_FILE, Run

LATE_S: Final = 3.0
"""A worker that reports late keeps its last number of users for as long."""
NEAR_S: Final = 2.0
"""How far the rows may go beyond what else tells the run's time: clocks differ a little, and a kill is no end."""
LOCUST: Final = "locust"

Columns = dict[str, Any]


def timeline(run: Run, every: float, samples: pd.DataFrame, server: pd.DataFrame, defects: list[str]) -> pd.DataFrame:
    """The timeline of a run, in rows of `every` seconds.

    `samples` of hardware and lines of `server` metrics are as their modules read them. What is left out, and why, is
    added to `defects`. Raises AnalysisError if the run has no times, or too many.
    """
    start, end = span(run, defects)
    rows = bins.covering(start, end, every)
    found = _time(rows, start)
    found["phase"] = _phases(run, rows)
    if len(run.intervals):
        found["users"] = _users(run, rows)
    if (run.path / ROWS_FILE).is_file():
        found |= _requests(run, rows, end, defects)
    found |= _flows(run, rows)
    if len(run.intervals):
        found |= _client(run, rows)
    history = locust_history.read(run.path / LOCUST, defects)
    found |= _locust(history, rows)
    found |= _hardware(samples, rows, run.info.scraped) | _server(server, rows)
    return pd.DataFrame(found)


def of_locust(history: pd.DataFrame, every: float, samples: pd.DataFrame) -> pd.DataFrame:
    """The timeline of any Locust run, from its --csv history. Raises AnalysisError if there is none."""
    if history.empty:
        raise AnalysisError("there is no line in Locust's history: it is written with --csv, while the test runs")
    start, end = float(history["time"].iloc[0]), float(history["time"].iloc[-1])
    rows = bins.covering(start, end + 1.0, every)
    return pd.DataFrame(_time(rows, start) | _locust(history, rows) | _hardware(samples, rows, []))


def span(run: Run, defects: list[str]) -> tuple[float, float]:
    """First and last instant: by run.json, else by the intervals, else by the rows. Rows far from it are told."""
    starts, ends = column(run.rows, "start_time"), column(run.rows, "end_time")
    of_rows = np.concatenate([starts, ends])
    told = column(run.intervals, "time") if len(run.intervals) else of_rows
    told = told[np.isfinite(told)]
    if run.info.start is None and not len(told):
        raise AnalysisError(f"{run.path}: nothing in it tells when anything was")
    start = run.info.start.time if run.info.start else float(told.min())
    end = run.info.end.time if run.info.end else float(told.max(initial=start))
    near = of_rows[(of_rows > start - NEAR_S) & (of_rows < end + NEAR_S)]
    start, end = float(near.min(initial=start)), float(near.max(initial=end))
    outside = int((((starts < start) | (starts > end)) | ((ends < start) | (ends > end))).sum())
    if outside:
        defects.append(f"{outside:,} requests are outside of the run's time, and not in its timeline.")
    return start, end


def _time(rows: Bins, start: float) -> Columns:
    digits = 0 if rows.length_us % 1_000_000 == 0 else 6
    at = [datetime.fromtimestamp(each, UTC) for each in rows.starts.tolist()]
    utc = [each.isoformat(timespec="milliseconds" if digits else "seconds").replace("+00:00", "Z") for each in at]
    return {"time": rows.starts, "utc": utc, "elapsed_s": np.round(rows.starts - start, 3)}


def _phases(run: Run, rows: Bins) -> list[str]:
    """The phase in which the middle of each row lies."""
    middles = rows.starts + rows.seconds / 2
    found = np.full(rows.count, "", dtype=object)
    for phase in phases.find(run).phases:
        found[(middles >= phase.start) & (middles < phase.end)] = phase.kind
    return [str(kind) for kind in found]


def _requests(run: Run, rows: Bins, end: float, defects: list[str]) -> Columns:
    """What the rows of requests.csv tell: counts in the row of each event, percentiles by the start."""
    starts, ends, status = column(run.rows, "start_time"), column(run.rows, "end_time"), run.rows["status"]
    ok = (status == "ok").to_numpy()
    bad = status.isin(["failed", "timeout"]).to_numpy()
    events = {
        "requests_due": phases.intended(run),
        "requests_started": starts,
        "requests_ended": ends,
        "requests_ok": ends[ok],
        "requests_failed": ends[bad],
    }
    found: Columns = {name: _whole(rows.tally(times)) for name, times in events.items()}
    flying = flow.in_flight(run, end)
    found["in_flight"] = np.zeros(rows.count) if flying is None else flying.per_bin(rows.edges)
    if missing := flow.unaccounted(run):
        defects.append(f"{missing:,} requests have no row: in_flight and the counts of requests lack them.")
    at = rows.index(starts)
    for name, use in (("ttft", slice(None)), ("tpot", ok), ("e2e", ok)):
        values = column(run.rows, f"{name}_ms")
        found |= _percentiles(name, at[use], values[use], rows)
    return found


def _percentiles(name: str, at: bins.Indexes, values: Floats, rows: Bins) -> Columns:
    use = (at != OUTSIDE) & ~np.isnan(values)
    groups = pd.Series(values[use]).groupby(at[use])
    every = pd.RangeIndex(rows.count)
    return {
        f"{name}_samples": _whole(np.bincount(at[use], minlength=rows.count).astype(np.float64)),
        **{f"{name}_p{p}_ms": groups.quantile(p / 100).reindex(every).to_numpy() for p in (50, 95)},
    }


def _flows(run: Run, rows: Bins) -> Columns:
    """Amounts per second; empty where no worker reported, unless the rows tell them."""
    covered = _covered(run, rows) if len(run.intervals) else np.zeros(rows.count, dtype=np.bool_)
    found: Columns = {}
    output, placed_by = flow.output_tokens(run)
    into = flow.input_tokens(run)
    counted = {f"{what}_per_s": flow.counted(run, what) for what in ("chunks", "characters")}
    for name, amounts in {"output_tokens_per_s": output, "input_tokens_per_s": into, **counted}.items():
        if amounts is not None:
            by_rows = name.endswith("tokens_per_s") and placed_by == "rows"
            found[name] = np.where(covered | by_rows, np.round(amounts.per_bin(rows.edges), 6), np.nan)
    return found


def _covered(run: Run, rows: Bins) -> Any:
    """Whether any worker's interval reaches into each row."""
    ends = column(run.intervals, "time")
    length = column(run.intervals, "seconds")
    return flow.Flow(ends - length, ends, length).per_bin(rows.edges) > 1e-6


def _middles(run: Run, rows: Bins) -> bins.Indexes:
    return rows.index(column(run.intervals, "time") - column(run.intervals, "seconds") / 2)


def _users(run: Run, rows: Bins) -> Any:
    """Users at the end of each row, summed over the workers."""
    told = pd.DataFrame({"at": _middles(run, rows), "worker": run.intervals["worker"], "n": run.intervals["users"]})
    table = told[told["at"] != OUTSIDE].pivot_table(index="at", columns="worker", values="n", aggfunc="last")
    late = max(1, round(LATE_S / rows.seconds))
    table = table.reindex(np.arange(rows.count)).ffill(limit=late)
    return _whole(table.sum(axis=1, min_count=1).to_numpy(dtype=np.float64))


def _client(run: Run, rows: Bins) -> Columns:
    """The busiest worker of each row."""
    at = _middles(run, rows)
    found: Columns = {}
    for name in ("cpu_percent", "loop_cpu_percent", "loop_lag_ms"):
        values = run.intervals[name].astype("float64")[at != OUTSIDE]
        if values.notna().any():
            highest = values.groupby(at[at != OUTSIDE]).max()
            found[f"client_{name}_max"] = highest.reindex(pd.RangeIndex(rows.count)).to_numpy()
    return found


def _locust(history: pd.DataFrame, rows: Bins) -> Columns:
    """Locust's own columns: its last line of each row."""
    at = rows.index(column(history, "time"))
    last = history.drop(columns="time")[at != OUTSIDE].groupby(at[at != OUTSIDE]).tail(1)
    last.index = pd.Index(at[last.index])
    table = last.reindex(pd.RangeIndex(rows.count))
    counts = ("users", "requests_total", "failures_total")
    return {
        f"{LOCUST}_{name}": _whole(column(table, name)) if name in counts else column(table, name) for name in table
    }


def _hardware(samples: pd.DataFrame, rows: Bins, sources: list[dict[str, Any]]) -> Columns:
    """The mean of the readings in each row; counters as growth per second."""
    names = hardware.names(sources)
    found: Columns = {}
    for (host, device, metric), group in samples.groupby(["host", "device", "metric"], observed=True, sort=True):
        group = group.sort_values("time", kind="stable")
        times, values, means = (column(group, name) for name in ("time", "value", "mean"))
        at = rows.index(times)
        if (at == OUTSIDE).all():
            continue
        name = names.get((str(host), str(device)), f"{host}/{device}")
        if str(metric).partition(".")[0].endswith("_total"):
            found[f"{name}/{counters.rate_name(str(metric))}"] = _rates(times, values, at, rows)
        else:
            found[f"{name}/{metric}"] = _means(np.where(np.isnan(means), values, means), at, rows)
    return found


def _server(lines: pd.DataFrame, rows: Bins) -> Columns:
    """The last page of each row: what it said, and what counters grew by since the last page before that row."""
    found: Columns = {}
    for series in server_metrics.series(lines):
        at = rows.index(series.times)
        if counters.is_counter(series.metric):
            name = f"{series.source}/{counters.rate_name(series.metric)}{series.labels}"
            found[name] = _rates(series.times, series.values, at, rows, series.failures)
        else:
            found[f"{series.source}/{series.metric}{series.labels}"] = _placed(series.values, at, rows)
    return found


def _means(values: Floats, at: bins.Indexes, rows: Bins) -> Floats:
    inside = at != OUTSIDE
    sums = np.bincount(at[inside], weights=values[inside], minlength=rows.count)
    counts = np.bincount(at[inside], minlength=rows.count)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _rates(times: Floats, values: Floats, at: bins.Indexes, rows: Bins, failures: Floats | None = None) -> Floats:
    """From the last reading of a row that has one to the last of the next that has."""
    last = np.append(at[1:] != at[:-1], True) & (at != OUTSIDE) if len(at) else np.zeros(0, dtype=np.bool_)
    longest = max(counters.LONGEST_GAP_S, 2 * rows.seconds)
    grown = counters.rates(times[last], values[last], longest, None if failures is None else failures[last])
    return _placed(grown, at[last], rows)


def _placed(values: Floats, at: bins.Indexes, rows: Bins) -> Floats:
    """Each value in its row; of several the last."""
    found = np.full(rows.count, np.nan)
    found[at[at != OUTSIDE]] = values[at != OUTSIDE]
    return found


def _whole(values: Floats) -> Any:
    """Whole numbers, some of which may be missing."""
    return pd.array(values, dtype="Float64").astype("Int64")
