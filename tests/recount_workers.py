"""The part of the recount that is about whoever made the load: from lines of intervals.jsonl, in plain Python."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any


def worker(index: int, lines: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(name: str, each: Callable[[dict[str, Any]], float] = lambda line: line["seconds"]) -> float | None:
        told = [line for line in lines if line[name] is not None]
        return sum(line[name] * each(line) for line in told) / sum(line["seconds"] for line in told) if told else None

    def part(value: float | None, of: float) -> float | None:
        return None if value is None else value / of

    def ratio(one: str, other: str) -> float | None:
        return top(line[one] / line[other] for line in lines if line[one] is not None and line[other])

    cpu, loop, wait = mean("cpu_percent"), mean("loop_cpu_percent"), mean("loop_wait_percent")
    jumps = (line["clock_jump_ms"] for line in lines)
    return {
        "worker": index,
        "cpu_percent": cpu,
        "cpu_percent_max": top(line["cpu_percent"] for line in lines),
        "busy_share": part(cpu if loop is None else loop + (wait or 0), 100),
        "wait_share": part(wait, 100),
        "loop_lag_max_ms": top(line["loop_lag_ms"] for line in lines),
        "gc_share": part(mean("gc_pause_ms", lambda line: 1), 1000),
        "gc_pause_max_ms": top(line["gc_pause_max_ms"] for line in lines),
        "ring_full_share": part(mean("ring_full_ms", lambda line: 1), 1000),
        "steal_share": part(mean("steal_percent"), 100),
        "throttled_share": part(mean("throttled_percent"), 100),
        "clock_jump_ms": top(None if jump is None else abs(jump) for jump in jumps),
        "descriptors_share": ratio("descriptors", "descriptor_limit"),
        "ports_share": ratio("sockets", "ports"),
    }


def tcp_trouble(run: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, int] | None:
    """The workers of one machine read the same counters: the one that saw most of each counts."""
    if all(line["tcp_trouble"] is None for line in lines):
        return None
    machines = {worker["index"]: worker["hostname"] for worker in run["workers"]}
    seen: dict[tuple[str, str], Counter[int]] = {}
    for line in lines:
        for name, count in (line["tcp_trouble"] or {}).items():
            machine = machines.get(line["worker"]) or str(line["worker"])
            seen.setdefault((machine, name), Counter())[line["worker"]] += count
    found: Counter[str] = Counter()
    for (_, name), counts in seen.items():
        found[name] += max(counts.values())
    return dict(found)


def top(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def gauge(values: Iterable[float | None]) -> dict[str, float] | None:
    told = [value for value in values if value is not None]
    return {"mean": statistics.fmean(told), "max": max(told)} if told else None
