"""The report's section on the client itself: whether the measuring side kept up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tokenswarm.results import page
from tokenswarm.results.charts import client as charts
from tokenswarm.results.page import escape, facts, figure
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import count, number, share, statistic

SHOWN_JUMP_MS: Final = 0.1
MOST_WORKERS: Final = 8
"""Drawn and listed: the busiest."""


def client(material: Material) -> str:
    """Nothing if nothing is known."""
    found = material.summary["client"]
    busiest = sorted(found["by_worker"], key=lambda worker: -(worker["busy_share"] or 0))[:MOST_WORKERS]
    busiest.sort(key=lambda worker: int(worker["worker"]))
    chart = charts.over_time(material.run, material.phases, [worker["worker"] for worker in busiest])
    known = len(found["by_worker"])
    caption = f"The {len(busiest)} busiest of {count(known)} workers" if known > len(busiest) else "The client"
    note = "Whether the measuring side kept up; the verdict judges it."
    drawn = figure("chart-client", chart, f"{caption}: CPU, and the longest time in each second that the loop was busy")
    return page.section("The client itself", facts(_facts(found)), _table(busiest), drawn, note=note)


def _facts(client: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Arrival stamps", ", ".join(f"{escape(name)} clock: {count(n)}" for name, n in client["clocks"].items())
    for name, label in (("client_lag_ms", "Client lag"), ("read_lag_ms", "Lag of a read")):
        if lag := client[name]:
            yield label, f"p50 {statistic(lag, 'p50')} ms, p99 {statistic(lag, 'p99')} ms"
    if client["merged_reads"] is not None:
        late = count(client["late_merged_reads"])
        yield "Merged reads", f"{count(client['merged_reads'])}, of which {late} while the client was late"
    if client["workers"]:
        yield "Workers", count(client["workers"])
    if client["steal_share"] is not None:
        yield "Taken by the hypervisor", share(client["steal_share"])
    if client["throttled_share"]:
        yield "Held back by a CPU limit", share(client["throttled_share"])
    if (jump := client["clock_jump_ms"]) is not None and jump >= SHOWN_JUMP_MS:
        yield "Wall clock set", f"by up to {number(jump)} ms a second"
    if trouble := client["tcp_trouble"]:
        yield "TCP of the machine", ", ".join(f"{escape(name)} {count(n)}" for name, n in trouble.items())
    for name, label in (("descriptors_share", "Descriptors used"), ("ports_share", "Local ports used")):
        if client[name] is not None:
            yield label, f"at most {share(client[name])}"


def _table(workers: list[dict[str, Any]]) -> str:
    heads = ["Worker", "CPU, mean", "CPU, most", "loop busy", "waiting for CPU", "longest busy", "GC", "longest GC"]
    heads += ["ring full"]
    rows = [
        [
            str(worker["worker"]),
            _percent(worker["cpu_percent"]),
            _percent(worker["cpu_percent_max"]),
            share(worker["busy_share"]),
            share(worker["wait_share"]),
            _milliseconds(worker["loop_lag_max_ms"]),
            share(worker["gc_share"]),
            _milliseconds(worker["gc_pause_max_ms"]),
            share(worker["ring_full_share"]),
        ]
        for worker in workers
    ]
    return page.table(heads, rows) if rows else ""


def _percent(value: float | None) -> str:
    return number(value) if value is None else f"{number(value)} %"


def _milliseconds(value: float | None) -> str:
    return number(value) if value is None else f"{number(value)} ms"
