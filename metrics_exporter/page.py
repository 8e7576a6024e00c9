"""The Prometheus page, made anew for each scrape from what was read last. Nothing is read for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from metrics_exporter import __version__
from metrics_exporter.csv_file import CsvFile
from metrics_exporter.metric import Device
from metrics_exporter.watch import Latest, Watch

PREFIX: Final = "tokenswarm_"


class Page(Collector):
    """Metrics of all devices of all sources, then the exporter's own."""

    def __init__(self, watches: Sequence[Watch], csv: CsvFile | None) -> None:
        self._watches = watches
        self._csv = csv

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for watch in self._watches:
            latest = watch.fresh()
            if latest is not None:
                for device in latest.devices:
                    _add(families, device, latest)
        yield from families.values()
        yield from self._own()

    def _own(self) -> Iterator[Metric]:
        yield InfoMetricFamily(f"{PREFIX}exporter", "The exporter.", {"version": __version__})
        latest = {watch: watch.latest for watch in self._watches}
        yield self._each(
            GaugeMetricFamily, "source_up", "1 if there is a recent reading.", lambda w: float(w.fresh() is not None)
        )
        yield self._each(CounterMetricFamily, "readings_total", "Readings.", lambda w: float(w.readings))
        yield self._each(
            CounterMetricFamily,
            "missed_readings_total",
            "Readings left out because the one before took too long.",
            lambda w: float(w.missed),
        )
        yield self._each(
            CounterMetricFamily, "failed_readings_total", "Readings that broke off.", lambda w: float(w.failures)
        )
        yield self._each(
            GaugeMetricFamily,
            "last_reading_timestamp_seconds",
            "When the last reading was made.",
            lambda w: None if (seen := latest[w]) is None else seen.wall_ns / 1e9,
        )
        if self._csv is not None:
            yield GaugeMetricFamily(f"{PREFIX}exporter_csv_up", "1 if the last write worked.", float(self._csv.up))
            yield CounterMetricFamily(
                f"{PREFIX}exporter_csv_lost_samples_total", "Samples that are not in the file.", self._csv.lost
            )

    def _each(
        self,
        family: type[GaugeMetricFamily] | type[CounterMetricFamily],
        name: str,
        help: str,
        value: Callable[[Watch], float | None],
    ) -> Metric:
        """A metric with one value for each source that has it."""
        made = family(f"{PREFIX}exporter_{name}", help, labels=["source"])
        for watch in self._watches:
            told = value(watch)
            if told is not None:
                made.add_metric([watch.source.name], told)
        return made


def registry(collectors: Iterable[Collector]) -> CollectorRegistry:
    """Of these, and of what the exporter itself costs (`process_cpu_seconds_total` and its siblings)."""
    made = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        made.register(collector)
    ProcessCollector(registry=made)
    return made


def _add(families: dict[str, Metric], device: Device, latest: Latest) -> None:
    kind = device.kind
    if device.info:
        name = f"{PREFIX}{kind.prefix.rstrip('_')}"
        about = families.get(name)
        if about is None:
            about = families[name] = InfoMetricFamily(name, f"What each {kind.name} is.", labels=kind.labels)
        about.add_metric(device.labels, dict(device.info))  # type: ignore[attr-defined]
    for key, value in latest.values(device).items():
        name, _, label = key.partition(".")
        metric = kind.metrics[name]
        if not metric.page:
            continue
        family = families.get(kind.prefix + name)
        if family is None:
            made = CounterMetricFamily if metric.counter else GaugeMetricFamily
            labels = (*kind.labels, metric.label) if metric.label else kind.labels
            family = families[kind.prefix + name] = made(f"{PREFIX}{kind.prefix}{name}", metric.help, labels=labels)
        family.add_metric((*device.labels, label) if metric.label else device.labels, value)  # type: ignore[attr-defined]
