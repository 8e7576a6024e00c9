"""What the intervals say of the measuring side itself, over the windows: for `summary["client"]` and the verdict.

Shares are of 1; None means "not measured". A worker's figure is the mean of its intervals, weighted by their length;
the client's is that of its worst worker, since one that fell behind is enough.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np
import pandas as pd
from hdrh.histogram import HdrHistogram

from tokenswarm import histogram
from tokenswarm.results import distribution
from tokenswarm.results.cohort import Rows, tally
from tokenswarm.results.flow import Floats, column
from tokenswarm.results.phases import Phases
from tokenswarm.results.read import Run, once

STOPPED_MS: Final = 1000.0
"""A report that is later than this was held up by something."""
GAUGES: Final = ("cpu_percent", "loop_cpu_percent", "loop_wait_percent", "loop_lag_ms")


def figures(run: Run, phases: Phases, cohort: Rows, defects: list[str]) -> dict[str, Any]:
    """How the load was made, and how whoever made it fared. A damaged histogram becomes a defect."""
    inside = intervals_inside(run, phases)
    clocks = cohort["clock"][cohort["ttft_ms"].notna()]
    try:
        read_lag = distribution.of_histograms(inside["client_lag"])
    except ValueError as error:
        defects.append(f"The lag of reads could not be read from the intervals: {error}.")
        read_lag = None
    workers = [_worker(index, inside[inside["worker"] == index]) for index in sorted(set(inside["worker"]))]
    return {
        "workers": int(run.intervals["worker"].nunique()) or len(run.info.workers),
        "clocks": tally(clocks),
        "transports": {name: n for name, n in tally(cohort["transport"]).items() if name},
        "client_lag_ms": distribution.of(column(cohort, "client_lag_ms")),
        "read_lag_ms": read_lag,
        "merged_reads": int(inside["merged_reads"].sum()) if len(inside) else None,
        "late_merged_reads": int(inside["late_merged_reads"].sum()) if len(inside) else None,
        **{name: _gauge(inside, name) for name in GAUGES},
        "gc_share": _worst(workers, "gc_share"),
        "gc_pause_max_ms": _worst(workers, "gc_pause_max_ms"),
        "ring_full_share": _worst(workers, "ring_full_share"),
        "steal_share": _worst(workers, "steal_share"),
        "throttled_share": _worst(workers, "throttled_share"),
        "clock_jump_ms": _worst(workers, "clock_jump_ms"),
        "descriptors_share": _worst(workers, "descriptors_share"),
        "ports_share": _worst(workers, "ports_share"),
        "tcp_trouble": _tcp_trouble(run, inside),
        "by_worker": workers,
    }


def intervals_inside(run: Run, phases: Phases) -> pd.DataFrame:
    """Intervals whose middle lies in a window."""
    middles = column(run.intervals, "time") - column(run.intervals, "seconds") / 2
    return run.intervals[phases.contain(middles)]


@once
def gaps(run: Run, phases: Phases) -> HdrHistogram:
    """All gaps between chunks in the windows. Raises ValueError if a histogram of them is damaged."""
    return histogram.merge(intervals_inside(run, phases)["itl"])


def worst_worker(client: dict[str, Any], name: str) -> tuple[str, float] | None:
    """(who, the figure) of the worker whose figure is the highest; None where it was not measured."""
    known = [(float(worker[name]), worker["worker"]) for worker in client["by_worker"] if worker[name] is not None]
    if not known:
        return None
    value, index = max(known)
    return "the client" if client["workers"] == 1 else f"worker {index}", value


def _worker(index: int, lines: pd.DataFrame) -> dict[str, Any]:
    cpu, wait = _mean(lines, "loop_cpu_percent"), _mean(lines, "loop_wait_percent")
    whole = _mean(lines, "cpu_percent")
    busy = whole if cpu is None else cpu + (wait or 0.0)
    return {
        "worker": index,
        "cpu_percent": whole,
        "cpu_percent_max": _highest(column(lines, "cpu_percent")),
        "busy_share": _part(busy, 100),
        "wait_share": _part(wait, 100),
        "loop_lag_max_ms": _highest(_loop_lag_ms(lines)),
        "gc_share": _part(_mean(lines, "gc_pause_ms", per_second=True), 1e3),
        "gc_pause_max_ms": _highest(column(lines, "gc_pause_max_ms")),
        "ring_full_share": _part(_mean(lines, "ring_full_ms", per_second=True), 1e3),
        "steal_share": _part(_mean(lines, "steal_percent"), 100),
        "throttled_share": _part(_mean(lines, "throttled_percent"), 100),
        "clock_jump_ms": _highest(np.abs(column(lines, "clock_jump_ms"))),
        "descriptors_share": _highest(_ratio(column(lines, "descriptors"), column(lines, "descriptor_limit"))),
        "ports_share": _highest(_ratio(column(lines, "sockets"), column(lines, "ports"))),
    }


def _loop_lag_ms(lines: pd.DataFrame) -> Floats:
    """For how long the event loop looked at no socket. A process that was stopped did not see that itself, but its
    report came late."""
    seconds = column(lines, "seconds")
    late = (seconds - np.nanmedian(seconds)) * 1e3 if len(seconds) else seconds
    return np.fmax(column(lines, "loop_lag_ms"), np.where(late >= STOPPED_MS, late, np.nan))


def _mean(lines: pd.DataFrame, name: str, per_second: bool = False) -> float | None:
    """Weighted by the intervals' length; `per_second`: of amounts rather than of levels."""
    values, seconds = column(lines, name), column(lines, "seconds")
    known = ~np.isnan(values) & (seconds > 0)
    if not known.any():
        return None
    amounts = values[known] if per_second else values[known] * seconds[known]
    return float(amounts.sum() / seconds[known].sum())


def _ratio(parts: Floats, wholes: Floats) -> Floats:
    """NaN where the whole is unknown, or nothing."""
    return np.divide(parts, wholes, out=np.full_like(parts, np.nan), where=wholes > 0)


def _highest(values: Floats) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmax(values))


def _part(amount: float | None, whole: float) -> float | None:
    return None if amount is None else amount / whole


def _worst(workers: list[dict[str, Any]], name: str) -> float | None:
    return max((worker[name] for worker in workers if worker[name] is not None), default=None)


def _gauge(inside: pd.DataFrame, name: str) -> dict[str, float] | None:
    values = inside[name].dropna().astype("float64")
    return {"mean": float(values.mean()), "max": float(values.max())} if len(values) else None


def _tcp_trouble(run: Run, inside: pd.DataFrame) -> dict[str, int] | None:
    """By counter. Workers on one host read the same counters: of theirs, the highest counts."""
    known = inside[inside["tcp_trouble"].notna()]
    if known.empty:
        return None
    hosts = {worker.index: worker.hostname for worker in run.info.workers if worker.hostname}
    by_host: dict[str, Counter[str]] = {}
    for index in set(known["worker"]):
        counts: Counter[str] = Counter()
        for grown in known.loc[known["worker"] == index, "tcp_trouble"]:
            counts.update(grown)
        host = hosts.get(index, str(index))
        by_host[host] = by_host.get(host, Counter()) | counts
    return dict(sum(by_host.values(), Counter()))
