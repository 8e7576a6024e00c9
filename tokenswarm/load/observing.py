"""What a capacity search wants to know of requests, out of lines of requests.csv as workers send them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Final

from tokenswarm.load.probe import Ended
from tokenswarm.record import COLUMNS
from tokenswarm.slo import COLUMNS as METRIC_COLUMNS

FIGURES: Final = (*METRIC_COLUMNS.values(), "ttft_low_ms", "queue_ms")
_BEFORE_SENT: Final = ("pool_ms", "dns_ms", "tcp_ms", "tls_ms", "send_ms")
_AT: Final = {name: index for index, name in enumerate(COLUMNS)}
_FIGURES_AT: Final = tuple((name, _AT[name]) for name in FIGURES)
_BEFORE_SENT_AT: Final = tuple(_AT[name] for name in _BEFORE_SENT)


def ended(rows: bytes) -> Iterator[Ended]:
    """The requests of these rows; one that was never started ended when it was due."""
    for cells in csv.reader(rows.decode("utf-8", "replace").splitlines()):
        start = cells[_AT["start_time"]] or cells[_AT["intended_time"]]
        if not start:
            continue
        before = [cells[at] for at in _BEFORE_SENT_AT if cells[at]]
        figures = {name: float(cells[at]) for name, at in _FIGURES_AT if cells[at]}
        if cells[_AT["parent"]]:  # a retry is due when its request was: what it waited for is no lateness of ours
            figures.pop("queue_ms", None)
        yield Ended(
            status=cells[_AT["status"]],
            start=float(start),
            end=float(cells[_AT["end_time"]] or start),
            figures=figures,
            before_sent_ms=sum(map(float, before)) if before else None,
        )
