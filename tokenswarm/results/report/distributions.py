"""The report's small multiples: how TTFT, TPOT, ITL and end to end are spread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tokenswarm.results import wording
from tokenswarm.results.charts import distributions as charts
from tokenswarm.results.charts.axes import BLUE, ORANGE, TEAL, VIOLET
from tokenswarm.results.charts.distributions import Spread
from tokenswarm.results.cohort import Cohort, ended_as
from tokenswarm.results.figures import client
from tokenswarm.results.flow import column
from tokenswarm.results.page import figure, section
from tokenswarm.results.phases import intended
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import count

COLOURS: Final = {"ttft_ms": BLUE, "tpot_ms": TEAL, "itl_ms": ORANGE, "e2e_ms": VIOLET}


def distributions(material: Material) -> str:
    """Of each what was measured of it."""
    say = material.say
    drawn = []
    for name, spread in _spreads(material):
        found = material.summary["latency"][name]
        if spread is None or found is None:
            continue
        label = say(wording.LATENCIES[name])
        if name == "itl_ms":
            what, caption = (
                say("gaps"),
                say("{latency}: {n} gaps between chunks", latency=label, n=count(found["count"])),
            )
        else:
            what, caption = say("requests"), say("{latency}: {n} requests", latency=label, n=count(found["count"]))
        drawn.append(figure(f"chart-{name}", charts.chart(spread, found, label, what, COLOURS[name], say), caption))
    inside = "".join(drawn)
    note = say("How often each value was measured, and, in grey, the share that was no longer than it.")
    return section(say("Distributions"), f'<div class="pair">{inside}</div>' if inside else "", note=note)


def _spreads(material: Material) -> Iterator[tuple[str, Spread | None]]:
    cohort = Cohort(material.run.rows, material.phases.contain(intended(material.run)))
    ok = ended_as(cohort, "ok")
    yield "ttft_ms", charts.of_rows(column(cohort, "ttft_ms"))
    yield "tpot_ms", charts.of_rows(column(cohort, "tpot_ms")[ok])
    yield "itl_ms", _gaps(material)
    yield "e2e_ms", charts.of_rows(column(cohort, "e2e_ms")[ok])


def _gaps(material: Material) -> Spread | None:
    if material.summary["latency"]["itl_ms"] is None:
        return None
    return charts.of_histogram(client.gaps(material.run, material.phases))
