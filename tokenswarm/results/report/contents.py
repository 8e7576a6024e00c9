"""The report's sections in their order. Each is a function of what is known about the run, and returns markup, or ""
where it has nothing to say; what is added here is in the report.
"""

from __future__ import annotations

from typing import Final

from tokenswarm.results.report.against import against
from tokenswarm.results.report.by_worker import by_worker
from tokenswarm.results.report.client import client
from tokenswarm.results.report.details import details, reading
from tokenswarm.results.report.distributions import distributions
from tokenswarm.results.report.goals import capacity, goals
from tokenswarm.results.report.groups import groups
from tokenswarm.results.report.hardware import energy, hardware, together
from tokenswarm.results.report.heading import cards, defects, heading, reasons, verdict
from tokenswarm.results.report.kinds import turns, user_classes
from tokenswarm.results.report.latency import percentiles
from tokenswarm.results.report.load import over_time, steps, throughput
from tokenswarm.results.report.material import Section
from tokenswarm.results.report.requests import counts, errors
from tokenswarm.results.report.server import server
from tokenswarm.results.report.slowest import slowest
from tokenswarm.results.report.stalls import stalls
from tokenswarm.results.report.stand_out import stand_out
from tokenswarm.results.report.timeline import timeline
from tokenswarm.results.report.workers import workers

FIRST_SCREEN: Final[tuple[Section, ...]] = (heading, verdict, cards)
"""Above the table of contents."""

SECTIONS: Final[tuple[Section, ...]] = (
    *FIRST_SCREEN,
    stand_out,
    reasons,
    defects,
    capacity,
    goals,
    percentiles,
    distributions,
    over_time,
    together,
    against,
    throughput,
    steps,
    groups,
    user_classes,
    by_worker,
    turns,
    counts,
    errors,
    timeline,
    stalls,
    slowest,
    server,
    hardware,
    energy,
    client,
    workers,
    details,
    reading,
)
