"""One side of a comparison: a run, or several repeated ones. What comparing needs of a run is taken out of it at once,
so that the rows of many runs need not be in memory together."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from tokenswarm import histogram
from tokenswarm.errors import OptionError, RunDirectoryError
from tokenswarm.record import CANCELLED, FAILED, INCOMPLETE, SHED, TIMEOUT
from tokenswarm.results import flow, phases, read, summarise
from tokenswarm.results.compare import bootstrap, metrics
from tokenswarm.results.compare.bootstrap import Floats, Ints, Ratio, Sample
from tokenswarm.results.figures import goals
from tokenswarm.results.flow import column
from tokenswarm.results.phases import Phases
from tokenswarm.slo import Limit

MOST_BATCHES: Final = 20
"""In each window."""
BATCH_SECONDS: Final = 1.0
BATCH_ROWS: Final = 5
_FAILED: Final = (FAILED, TIMEOUT, SHED)
_NOT_COUNTED: Final = (CANCELLED, INCOMPLETE)


@dataclass(frozen=True)
class Observed:
    """What comparing needs of one run. `samples` by latency, `ratios` by rate or share; `over_time`: for each latency
    (seconds since the window's start, milliseconds), and output tokens as (seconds, tokens a second); `limits` are
    those of goodput."""

    path: Path
    name: str
    summary: dict[str, Any]
    samples: dict[str, Sample]
    ratios: dict[str, Ratio]
    over_time: dict[str, tuple[Floats, Floats]] = field(repr=False)
    limits: tuple[Limit, ...] = ()

    @property
    def held_to(self) -> frozenset[tuple[str, float]]:
        """Its limits, however they are written."""
        return frozenset((limit.metric, limit.bound) for limit in self.limits)


@dataclass(frozen=True)
class Side:
    """`problems` are sentences on directories that were left out."""

    role: str
    runs: tuple[Observed, ...]
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called: its run, or its runs' label."""
        if len(self.runs) == 1:
            return self.runs[0].name
        labels = dict.fromkeys(str(run.summary["run"]["label"] or run.name) for run in self.runs)
        return f"{len(self.runs)} runs of {', '.join(labels)}"


def directories(patterns: Sequence[str]) -> list[Path]:
    """The directories that paths and wildcards name, in order. Raises RunDirectoryError for a wildcard without any."""
    found: list[Path] = []
    for pattern in patterns:
        if Path(pattern).exists() or not glob.has_magic(pattern):
            found.append(Path(pattern))
            continue
        matches = [Path(match) for match in sorted(glob.glob(pattern)) if Path(match).is_dir()]
        if not matches:
            raise RunDirectoryError(f"no directory matches {pattern}")
        found += matches
    return found


def side(role: str, paths: Sequence[Path], limits: tuple[Limit, ...] = ()) -> Side:
    """All that can be read of these runs; a directory that is there twice counts once. `limits` are goodput's, in place
    of those that the runs had. Raises RunDirectoryError, with what is wrong with each directory, where none can be
    read."""
    runs: list[Observed] = []
    problems: list[str] = []
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            problems.append(f"{path} is named twice and counts once.")
            continue
        seen.add(path.resolve())
        try:
            runs.append(observe(path, limits))
        except RunDirectoryError as error:
            problems.append(f"{error}.")
    if not runs:
        raise RunDirectoryError(f"{role}: {' '.join(problems).rstrip('.')}")
    return Side(role, tuple(runs), tuple(problems))


def observe(path: str | Path, limits: tuple[Limit, ...] = ()) -> Observed:
    """Read a run directory; `limits` as for a side. Raises RunDirectoryError if there is none, or no request in it."""
    run = read.load(path)
    found = phases.find(run)
    due = phases.intended(run)
    inside = found.contain(due)
    if not inside.any():
        why = f": {run.defects[0]}" if run.defects else ""
        raise RunDirectoryError(f"{run.path} holds no request{why}".rstrip("."))
    batches = _Batches(run, found, due)
    samples = dict(_samples(run, inside, batches.of(due)[inside], batches.strata))
    itl = _itl(run, batches)
    limits = limits or _own_limits(run)
    return Observed(
        Path(path),
        run.name,
        summarise.summarise(run),
        samples | ({metrics.ITL: itl} if itl else {}),
        {**dict(_ratios(run, inside, batches, due)), **dict(_goodput(run, inside, batches, due, limits))},
        _over_time(run, found, inside, due),
        limits,
    )


class _Batches:
    """The windows of a run cut into stretches of time that are longer than a request, so that what is alike in
    neighbouring requests is mostly within one of them."""

    def __init__(self, run: read.Run, found: Phases, due: Floats) -> None:
        e2e = run.rows.loc[run.rows["status"] == "ok", "e2e_ms"].median() / 1e3
        shortest = max(BATCH_SECONDS, 0.0 if np.isnan(e2e) else float(e2e))
        self.edges: list[Floats] = []
        for window in found.windows:
            rows = int(((due >= window.start) & (due < window.end)).sum())
            number = int(max(1, min(MOST_BATCHES, window.seconds / shortest, rows / BATCH_ROWS)))
            self.edges.append(np.linspace(window.start, window.end, number + 1))
        self.strata: Ints = np.repeat(np.arange(len(self.edges)), [len(edges) - 1 for edges in self.edges])
        self.seconds: Floats = np.concatenate([np.diff(edges) for edges in self.edges])

    def of(self, times: Floats) -> Ints:
        """The batch of each instant; -1 for one outside all windows."""
        found = np.full(len(times), -1, dtype=np.int64)
        offset = 0
        for edges in self.edges:
            inside = (times >= edges[0]) & (times < edges[-1])
            found[inside] = np.searchsorted(edges, times[inside], "right") - 1 + offset
            offset += len(edges) - 1
        return found

    def amounts(self, of: flow.Flow) -> Floats:
        return np.concatenate([np.diff(of.until(edges)) for edges in self.edges])


def _samples(run: read.Run, inside: phases.Mask, batch: Ints, strata: Ints) -> Iterator[tuple[str, Sample]]:
    cohort = run.rows[inside]
    ok = (cohort["status"] == "ok").to_numpy()
    for name, of in metrics.COLUMNS.items():
        values = column(cohort, of)
        if name not in metrics.FROM_FIRST_TOKEN:
            values = np.where(ok, values, np.nan)
        if not np.isnan(values).all():
            yield name, bootstrap.sample(values, batch, strata)


def _itl(run: read.Run, batches: _Batches) -> Sample | None:
    """Gaps between chunks, from the histograms of the intervals; None without any, or with a damaged one (which the
    summary tells as a defect)."""
    batch = batches.of(column(run.intervals, "time") - column(run.intervals, "seconds") / 2)
    values, counts, which = [], [], []
    for index in range(len(batches.strata)):
        try:
            merged = histogram.merge(run.intervals["itl"][batch == index])
        except ValueError:
            return None
        micros, times = histogram.recorded(merged)
        values.append(micros / 1e3)
        counts.append(times.astype(np.float64))
        which.append(np.full(len(micros), index, dtype=np.int64))
    if not sum(len(one) for one in values):
        return None
    return bootstrap.sample(np.concatenate(values), np.concatenate(which), batches.strata, np.concatenate(counts))


def _ratios(run: read.Run, inside: phases.Mask, batches: _Batches, due: Floats) -> Iterator[tuple[str, Ratio]]:
    number = len(batches.strata)
    status = run.rows["status"]
    ended = batches.of(column(run.rows, "end_time"))[(status == "ok").to_numpy()]
    ok = np.bincount(ended[ended >= 0], minlength=number).astype(np.float64)
    yield "requests_per_s", Ratio(ok, batches.seconds, batches.strata)
    output, _ = flow.output_tokens(run)
    into = flow.input_tokens(run)
    if output is not None:
        yield "output_tokens_per_s", Ratio(batches.amounts(output), batches.seconds, batches.strata)
    if into is not None:
        yield "input_tokens_per_s", Ratio(batches.amounts(into), batches.seconds, batches.strata)
    if output is not None and into is not None:
        both = batches.amounts(output) + batches.amounts(into)
        yield "total_tokens_per_s", Ratio(both, batches.seconds, batches.strata)
    counted = inside & ~status.isin(_NOT_COUNTED).to_numpy()
    batch = batches.of(due)
    failed = np.bincount(batch[counted & status.isin(_FAILED).to_numpy()], minlength=number).astype(np.float64)
    due_rows = np.bincount(batch[counted], minlength=number).astype(np.float64)
    if due_rows.any():
        yield metrics.ERROR_RATE, Ratio(failed, due_rows, batches.strata)


def _own_limits(run: read.Run) -> tuple[Limit, ...]:
    try:
        return goals.goodput_limits(run)
    except OptionError:  # which the summary tells as a defect
        return ()


def _goodput(
    run: read.Run, inside: phases.Mask, batches: _Batches, due: Floats, limits: Sequence[Limit]
) -> Iterator[tuple[str, Ratio]]:
    held = goals.held_to(limits, run.rows[inside], run) if limits else None
    if held is None or not held.known:
        return
    number, batch = len(batches.strata), batches.of(due)[inside]
    good, counted = (np.bincount(batch[mask], minlength=number).astype(np.float64) for mask in (held.good, held.due))
    yield metrics.GOODPUT, Ratio(good, batches.seconds, batches.strata)
    yield metrics.GOOD_SHARE, Ratio(good, counted, batches.strata)


def _over_time(run: read.Run, found: Phases, inside: phases.Mask, due: Floats) -> dict[str, tuple[Floats, Floats]]:
    start = found.windows[0].start
    cohort = run.rows[inside]
    series = {name: (due[inside] - start, column(cohort, metrics.COLUMNS[name])) for name in ("ttft", "e2e")}
    tokens, _ = flow.output_tokens(run)
    edges = np.arange(start, found.windows[-1].end, max(1.0, (found.windows[-1].end - start) // 300))
    if tokens is not None and len(edges) > 2:
        series["output_tokens_per_s"] = ((edges[:-1] + edges[1:]) / 2 - start, tokens.per_bin(edges))
    return series
