"""The report's section on the client itself: whether the measuring side kept up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tokenswarm.results import page
from tokenswarm.results.charts import client as charts
from tokenswarm.results.language import Language
from tokenswarm.results.page import escape, facts, figure
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import count, number, share, statistic

SHOWN_JUMP_MS: Final = 0.1
MOST_WORKERS: Final = 8
"""Drawn and listed: the busiest."""


def client(material: Material) -> str:
    """Nothing if nothing is known."""
    found, say = material.summary["client"], material.say
    busiest = sorted(found["by_worker"], key=lambda worker: -(worker["busy_share"] or 0))[:MOST_WORKERS]
    busiest.sort(key=lambda worker: int(worker["worker"]))
    chart = charts.over_time(material.run, material.phases, [worker["worker"] for worker in busiest], say)
    known = len(found["by_worker"])
    of = say("The client")
    if known > len(busiest):
        of = say("The {n} busiest of {all} workers", n=count(len(busiest)), all=count(known))
    caption = say("{of}: CPU, and the longest time in each second that the loop was busy", of=of)
    return page.section(
        say("The client itself"),
        facts(_facts(found, say)),
        _table(busiest, say),
        figure("chart-client", chart, caption),
        note=say("Whether the measuring side kept up; the verdict judges it."),
    )


def _facts(client: dict[str, Any], say: Language) -> Iterator[tuple[str, str]]:
    clocks = (say("{name} clock: {n}", name=say(name), n=count(n)) for name, n in client["clocks"].items())
    yield say("Arrival stamps"), escape(", ".join(clocks))
    for name, label in (("client_lag_ms", say("Client lag")), ("read_lag_ms", say("Lag of a read"))):
        if lag := client[name]:
            yield label, f"p50 {statistic(lag, 'p50')} ms, p99 {statistic(lag, 'p99')} ms"
    if client["merged_reads"] is not None:
        merged, late = count(client["merged_reads"]), count(client["late_merged_reads"])
        yield say("Merged reads"), say("{n}, of which {late} while the client was late", n=merged, late=late)
    if client["workers"]:
        yield say("Workers"), count(client["workers"])
    if client["steal_share"] is not None:
        yield say("Taken by the hypervisor"), share(client["steal_share"])
    if client["throttled_share"]:
        yield say("Held back by a CPU limit"), share(client["throttled_share"])
    if (jump := client["clock_jump_ms"]) is not None and jump >= SHOWN_JUMP_MS:
        yield say("Wall clock set"), say("by up to {ms} ms a second", ms=number(jump))
    if trouble := client["tcp_trouble"]:
        yield say("TCP of the machine"), ", ".join(f"{escape(name)} {count(n)}" for name, n in trouble.items())
    for name, label in (("descriptors_share", say("Descriptors used")), ("ports_share", say("Local ports used"))):
        if client[name] is not None:
            yield label, say("at most {share}", share=share(client[name]))


def _table(workers: list[dict[str, Any]], say: Language) -> str:
    heads = [say("Worker"), say("CPU, mean"), say("CPU, most"), say("loop busy"), say("waiting for CPU")]
    heads += [say("longest busy"), say("GC"), say("longest GC"), say("ring full")]
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
