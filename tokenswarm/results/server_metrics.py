"""server_metrics.csv: what the model server's own metrics page said during a run, value by value and page by page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from tokenswarm.results import long_csv, whole_lines
from tokenswarm.results.flow import Floats, column
from tokenswarm.results.long_csv import Layout, Wanted

FILE: Final = "server_metrics.csv"
LAYOUT: Final = Layout(("source", "metric", "labels"))
UP: Final = "up"

MAIN: Final = frozenset(
    {
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "vllm:num_preemptions_total",
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total",
        "sglang:num_running_reqs",
        "sglang:num_queue_reqs",
        "sglang:token_usage",
        "sglang:cache_hit_rate",
        "sglang:gen_throughput",
        "tgi_batch_current_size",
        "tgi_queue_size",
        "llamacpp:requests_processing",
        "llamacpp:requests_deferred",
        "llamacpp:kv_cache_usage_ratio",
        "llamacpp:prompt_tokens_total",
        "llamacpp:tokens_predicted_total",
        "simulator_requests_running",
        "simulator_requests_waiting",
        "simulator_kv_cache_usage_ratio",
        "simulator_prompt_tokens_total",
        "simulator_generation_tokens_total",
    }
)
"""Running, waiting, KV cache and tokens, as the servers call them."""


def read(directory: Path, defects: list[str], wanted: Wanted = MAIN.__contains__) -> pd.DataFrame:
    """The lines of the metrics that are wanted, and those of `up`; empty without the file."""
    lines = whole_lines.opened(directory / FILE, defects, needed=False)
    if lines is None:
        return LAYOUT.empty()
    return long_csv.read(lines, FILE, LAYOUT, lambda metric: metric == UP or wanted(metric), defects)


@dataclass(frozen=True)
class Series:
    """One value over the pages that came: their `times` (UTC epoch seconds) and what it was on each, NaN before it was
    first there. `failures`: how often, before each page, none came. `labels` are empty where the metric has one series.
    """

    source: str
    metric: str
    labels: str
    times: Floats
    values: Floats
    failures: Floats


def series(lines: pd.DataFrame) -> Iterator[Series]:
    """Every series but `up`. A value holds from its line on, since only what has changed has one.

    `source` is as `short` has it.
    """
    for source, of_source in lines.groupby("source", observed=True, sort=True):
        asked = of_source[of_source["metric"] == UP].sort_values("time", kind="stable")
        there = column(asked, "value") == 1
        times = column(asked, "time")[there]
        failures = np.cumsum(~there)[there].astype(np.float64)
        others = of_source[of_source["metric"] != UP]
        several = others.groupby("metric", observed=True)["labels"].nunique()
        for (metric, labels), group in others.groupby(["metric", "labels"], observed=True, sort=True):
            group = group.sort_values("time", kind="stable")
            at = np.searchsorted(column(group, "time"), times, side="right") - 1
            values = np.where(at < 0, np.nan, column(group, "value")[np.maximum(at, 0)])
            told = f"{{{labels}}}" if several[str(metric)] > 1 else ""
            yield Series(short(str(source)), str(metric), told, times, values, failures)


def short(source: str) -> str:
    """`server:8000` for http://server:8000/metrics."""
    parts = urlsplit(source)
    return (parts.netloc + parts.path.removesuffix("/metrics")) or source
