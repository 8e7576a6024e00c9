"""What model servers call the figures of their own metrics pages: data, one entry a server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final

Alternatives = tuple[str, ...]
"""Names of one figure, the newest first: the first that a page has counts. `a+b` is the sum of two metrics."""


@dataclass(frozen=True)
class Names:
    """A server's. Shares are of 1; counters have the `_total` that server_metrics.csv gives them all."""

    server: str
    running: Alternatives = ()
    """Gauge: requests that are worked at."""
    waiting: Alternatives = ()
    """Gauge: requests in the queue."""
    kv_cache: Alternatives = ()
    """Gauge: share of the KV cache in use."""
    preemptions: Alternatives = ()
    """Counter: requests that lost their place, and are computed anew."""
    prefix_asked: Alternatives = ()
    """Counter: tokens looked for in the prefix cache."""
    prefix_found: Alternatives = ()
    """Counter: of those, the ones that were there."""
    prefix_share: Alternatives = ()
    """Gauge of the same, where there are no counters."""
    drafted: Alternatives = ()
    """Counter: tokens that speculative decoding proposed."""
    accepted: Alternatives = ()
    """Counter: of those, the ones that were taken."""
    accepted_share: Alternatives = ()
    """Gauge of the same, where there are no counters."""
    input_tokens: Alternatives = ()
    output_tokens: Alternatives = ()
    """Counters."""
    ttft: Alternatives = ()
    """Histogram of seconds, without `_sum` and `_count`."""
    at_once: bool = True
    """Whether a request's tokens are counted by the time that its reply is over."""

    def metrics(self) -> Iterator[str]:
        """Gauges and counters of a page that belong to these figures."""
        for field in fields(self):
            if field.name not in ("server", "ttft", "at_once"):
                for alternative in getattr(self, field.name):
                    yield from alternative.split("+")

    def histograms(self) -> Iterator[str]:
        """Sums and counts of its histograms."""
        for histogram in self.ttft:
            yield from (f"{histogram}_sum", f"{histogram}_count")


SIMULATOR: Final = "simulator"

SERVERS: Final = (
    Names(
        "vLLM",
        running=("vllm:num_requests_running",),
        waiting=("vllm:num_requests_waiting",),
        kv_cache=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        preemptions=("vllm:num_preemptions_total",),
        prefix_asked=("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
        prefix_found=("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
        prefix_share=("vllm:gpu_prefix_cache_hit_rate",),
        drafted=("vllm:spec_decode_num_draft_tokens_total",),
        accepted=("vllm:spec_decode_num_accepted_tokens_total",),
        accepted_share=("vllm:spec_decode_draft_acceptance_rate",),
        input_tokens=("vllm:prompt_tokens_total",),
        output_tokens=("vllm:generation_tokens_total",),
        ttft=("vllm:time_to_first_token_seconds",),
    ),
    Names(
        "SGLang",
        running=("sglang:num_running_reqs",),
        waiting=("sglang:num_queue_reqs",),
        kv_cache=("sglang:token_usage",),
        preemptions=("sglang:num_retracted_requests_total", "sglang:num_retracted_reqs_total"),
        prefix_asked=("sglang:prompt_tokens_total",),
        prefix_found=("sglang:cached_tokens_total",),
        prefix_share=("sglang:cache_hit_rate",),
        accepted_share=("sglang:spec_accept_rate",),
        input_tokens=("sglang:prompt_tokens_total",),
        output_tokens=("sglang:generation_tokens_total",),
        ttft=("sglang:time_to_first_token_seconds",),
    ),
    Names(
        "TGI",
        running=("tgi_batch_current_size",),
        waiting=("tgi_queue_size",),
        input_tokens=("tgi_request_input_length_sum",),
        output_tokens=("tgi_request_generated_tokens_sum",),
    ),
    Names(
        "llama.cpp",
        running=("llamacpp:requests_processing",),
        waiting=("llamacpp:requests_deferred",),
        kv_cache=("llamacpp:kv_cache_usage_ratio",),
        prefix_asked=("llamacpp:prompt_tokens_total+llamacpp:prompt_tokens_cached_total",),
        prefix_found=("llamacpp:prompt_tokens_cached_total",),
        drafted=("llamacpp:spec_decode_num_draft_tokens_total",),
        accepted=("llamacpp:spec_decode_num_accepted_tokens_total",),
        input_tokens=("llamacpp:prompt_tokens_total+llamacpp:prompt_tokens_cached_total",),
        output_tokens=("llamacpp:tokens_predicted_total",),
    ),
    Names(
        "Xinference",
        input_tokens=("xinference:input_tokens_total_counter_total",),
        output_tokens=("xinference:output_tokens_total_counter_total",),
        ttft=("xinference:time_to_first_token_seconds",),
        at_once=False,
    ),
    Names(
        "LiteLLM",
        running=("litellm_in_flight_requests",),
        input_tokens=("litellm_input_tokens_metric_total",),
        output_tokens=("litellm_output_tokens_metric_total",),
        ttft=("litellm_llm_api_time_to_first_token_metric",),
        at_once=False,
    ),
    Names(
        SIMULATOR,
        running=("simulator_requests_running",),
        waiting=("simulator_requests_waiting",),
        kv_cache=("simulator_kv_cache_usage_ratio",),
        input_tokens=("simulator_prompt_tokens_total",),
        output_tokens=("simulator_generation_tokens_total",),
        ttft=("simulator_time_to_first_token_seconds",),
    ),
)
"""Ollama, FastChat and transformers serve have no such page."""

LEVELS: Final = frozenset(metric for names in SERVERS for metric in names.metrics())
ALL: Final = LEVELS.union(metric for names in SERVERS for metric in names.histograms())
