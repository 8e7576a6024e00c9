"""The load as a page for Prometheus: `/metrics` of Locust's web page, in one process or the master.

Made anew for each scrape, from what the book of the run has written down by then; nothing is counted for it meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flask import Response, request
from locust.runners import MasterRunner
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from tokenswarm.record import one_line
from tokenswarm.recording.book import Book
from tokenswarm.recording.counts import OTHER, Counts, Durations
from tokenswarm.session.base import Session

PATH: Final = "/metrics"
WORKER_STATES: Final = ("ready", "spawning", "running", "cleanup", "stopping", "stopped", "missing", OTHER)
LONGEST_LABEL: Final = 200


def serve(web_ui: Any, session: Session) -> None:
    """Put the page beside Locust's own; behind its login, if it has one."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsPage(session))

    @web_ui.app.route(PATH)  # type: ignore[untyped-decorator]
    @web_ui.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def tokenswarm_metrics() -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), content_type=content_type)


class MetricsPage(Collector):
    """What is asked, what runs, and what all runs of this process have added up to."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._runner = session.environment.runner
        self._counts = Counts()
        self._last: Book | None = None
        session.environment.events.test_start.add_listener(self._on_start)

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client wants it."""
        try:
            self._counts.catch_up()
            up = 1.0
        except OSError:
            up = 0.0
        yield GaugeMetricFamily("tokenswarm_up", "1 if the run directory can be read; else counters stand still.", up)
        yield from self._now()
        yield from self._so_far()

    def _on_start(self, **_: Any) -> None:
        book = self._session.book
        if book is not None:  # else the start was refused
            self._last = book
            self._counts.follow(book.path)

    def _now(self) -> Iterator[Metric]:
        book, runner = self._session.book, self._runner
        yield GaugeMetricFamily("tokenswarm_run_active", "1 while a run is on.", float(book is not None))
        if self._last is not None:
            yield InfoMetricFamily("tokenswarm_run", "The run that is on, or the last one.", value=_about(self._last))
        yield GaugeMetricFamily(
            "tokenswarm_users_asked", "Users that there should be.", runner.target_user_count if book else 0
        )
        yield GaugeMetricFamily("tokenswarm_users_running", "Users that there are.", runner.user_count)
        yield GaugeMetricFamily(
            "tokenswarm_requests_in_flight",
            "Requests without an end, as of each worker's last report.",
            book.ledger.in_flight() if book else 0,
        )
        if isinstance(runner, MasterRunner):
            states = Counter(
                client.state if client.state in WORKER_STATES else OTHER for client in runner.clients.values()
            )
            family = GaugeMetricFamily("tokenswarm_workers", "Workers, by what they do.", labels=["state"])
            for state in WORKER_STATES:
                family.add_metric([state], states[state])
            yield family

    def _so_far(self) -> Iterator[Metric]:
        counts = self._counts
        yield _labelled("requests", "Requests that have ended, by how.", "status", counts.requests)
        yield _labelled("errors", "Requests that ended badly, by error class.", "class", counts.errors)
        for name, help, value in (
            ("output_tokens", "Output tokens, counted when their reply ends.", counts.output_tokens),
            ("input_tokens", "Input tokens, counted when the reply ends.", counts.input_tokens),
            ("chunks", "Chunks with output, counted within a second of their arrival.", counts.chunks),
            ("unreadable_lines", "Lines of run directories that are not in these counters.", counts.unreadable),
        ):
            yield CounterMetricFamily(f"tokenswarm_{name}", help, value)
        yield _histogram("ttft", "From the start of a request to its first token, of any request.", counts.ttft)
        yield _histogram("itl", "Between successive chunks with output.", counts.itl)
        yield _histogram("tpot", "Time per output token after the first, one value a request that was ok.", counts.tpot)
        yield _histogram("e2e", "From start to end of a request that was ok.", counts.e2e)


def _about(book: Book) -> dict[str, str]:
    target = book.target
    told = {name: target[key] for name, key in (("target", "host"), ("model", "model"), ("protocol", "protocol"))}
    about = {"run": book.run_id, **told, "simulator": "yes" if target["simulator"] else "no"}
    return {name: _label(value) for name, value in about.items()}


def _label(value: object) -> str:
    """Untrusted text: on one line, and no longer than it need be."""
    return one_line(str(value or ""))[:LONGEST_LABEL]


def _labelled(name: str, help: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"tokenswarm_{name}", help, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, help: str, durations: Durations) -> Metric:
    ends = [*map(str, durations.bounds), "+Inf"]
    buckets = list(zip(ends, durations.cumulative(), strict=True))
    return HistogramMetricFamily(f"tokenswarm_{name}_seconds", help, buckets=buckets, sum_value=durations.sum)
