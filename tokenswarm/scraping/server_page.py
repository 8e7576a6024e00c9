"""A server's own page of metrics, in Prometheus's text format, as lines of server_metrics.csv. Does no I/O."""

from __future__ import annotations

import csv
import io
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from tokenswarm.record import guard

COLUMNS: Final = ("time", "source", "metric", "labels", "value")


def header() -> str:
    """The first line of the file, with its line end."""
    return ",".join(COLUMNS) + "\n"


class ServerPage:
    """Turns pages of one server into lines: only what has changed since the page before, and an `up` for each page.

    A value holds from its line on until the next line of the same metric and labels, as long as `up` is 1: pages have
    hundreds of buckets, of which few move in a second.
    """

    def __init__(self, source: str) -> None:
        self._source = guard(source)
        self._last: dict[tuple[str, str], float] = {}

    def lines(self, time: float, text: str) -> str:
        """`time`: when the page was made, UTC epoch seconds. Raises ValueError on what is no such page, and on a page
        without a metric."""
        values: dict[tuple[str, str], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                values[sample.name, _labels(sample.labels)] = float(sample.value)
        if not values:
            raise ValueError("there is no metric in it")
        new = {key: value for key, value in values.items() if not _same(self._last.get(key), value)}
        self._last = values
        return self._rows(time, {("up", ""): 1.0, **new})

    def no_answer(self, time: float) -> str:
        """The line that says so."""
        return self._rows(time, {("up", ""): 0.0})

    def _rows(self, time: float, values: dict[tuple[str, str], float]) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        for (metric, labels), value in values.items():
            writer.writerow((f"{time:.6f}", self._source, guard(metric), guard(labels), f"{value:.17g}"))
        return out.getvalue()


def _same(last: float | None, value: float) -> bool:
    return last is not None and (last == value or (last != last and value != value))


def _labels(labels: dict[str, str]) -> str:
    """As the page has them, sorted by name."""
    escaped = ((name, value.replace("\\", "\\\\").replace('"', '\\"')) for name, value in sorted(labels.items()))
    return ",".join(f'{name}="{value}"' for name, value in escaped)
