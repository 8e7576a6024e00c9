"""The simulator's Prometheus page: engine figures read when scraped, so that streaming pays nothing for them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tokenswarm.simulator.pacing import EngineLoop

_TTFT_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class _EngineCollector(Collector):
    def __init__(self, loop: EngineLoop) -> None:
        self._loop = loop

    def collect(self) -> Iterator[Metric]:
        loop, engine = self._loop, self._loop.engine
        yield GaugeMetricFamily("simulator_requests_running", "Requests with a place in the batch.", engine.running)
        yield GaugeMetricFamily("simulator_requests_waiting", "Requests in the queue.", len(engine.waiting))
        used = engine.kv_used / engine.kv_cache_tokens
        yield GaugeMetricFamily("simulator_kv_cache_usage_ratio", "KV-cache slots in use, 0 to 1.", used)
        yield CounterMetricFamily("simulator_prompt_tokens", "Prompt tokens admitted.", engine.prompt_tokens)
        yield CounterMetricFamily("simulator_generation_tokens", "Output tokens made.", engine.generated_tokens)
        yield CounterMetricFamily("simulator_steps", "Steps of the engine.", loop.steps)
        yield CounterMetricFamily("simulator_late_steps", "Steps that began over 1 ms late.", loop.late_steps)


class Metrics:
    """Everything on `/metrics`, in a registry of its own."""

    def __init__(self, loop: EngineLoop) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_EngineCollector(loop))
        self._requests = Counter(
            "simulator_requests", "Requests that have ended, by outcome.", ["outcome"], registry=self._registry
        )
        self._ttft = Histogram(
            "simulator_time_to_first_token_seconds",
            "From the complete request to the first send of output.",
            buckets=_TTFT_BUCKETS,
            registry=self._registry,
        )

    def ended(self, outcome: str, ttft_ns: int | None) -> None:
        """Count a request; `ttft_ns` None if it sent no output or was not streamed."""
        self._requests.labels(outcome).inc()
        if ttft_ns is not None:
            self._ttft.observe(ttft_ns / 1e9)

    def page(self) -> bytes:
        return generate_latest(self._registry)
