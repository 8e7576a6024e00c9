"""server_metrics.csv: what the model server's own metrics page said during a run, value by value and page by page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from tokenswarm.results.distribution import Floats
from tokenswarm.results.figures import server_names
from tokenswarm.results.files import long_csv, whole_lines
from tokenswarm.results.files.long_csv import Layout, Wanted

FILE: Final = "server_metrics.csv"
LAYOUT: Final = Layout(("source", "metric", "labels"))
UP: Final = "up"

MAIN: Final = server_names.LEVELS | {"sglang:gen_throughput"}
"""Running, waiting, KV cache, tokens and the like, as the servers call them."""


def read(directory: Path, defects: list[str], wanted: Wanted = server_names.ALL.__contains__) -> pd.DataFrame:
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
        there = _numbers(asked, "value") == 1
        times = _numbers(asked, "time")[there]
        failures = np.cumsum(~there)[there].astype(np.float64)
        others = of_source[of_source["metric"] != UP]
        several = others.groupby("metric", observed=True)["labels"].nunique()
        for (metric, labels), group in others.groupby(["metric", "labels"], observed=True, sort=True):
            group = group.sort_values("time", kind="stable")
            at = np.searchsorted(_numbers(group, "time"), times, side="right") - 1
            values = np.where(at < 0, np.nan, _numbers(group, "value")[np.maximum(at, 0)])
            told = f"{{{labels}}}" if several[str(metric)] > 1 else ""
            yield Series(short(str(source)), str(metric), told, times, values, failures)


def short(source: str) -> str:
    """`server:8000` for http://server:8000/metrics; what asks one address for several servers stays."""
    parts = urlsplit(source)
    asked = f"?{parts.query}" if parts.query else ""
    return (parts.netloc + parts.path.removesuffix("/metrics") + asked) or source


def _numbers(lines: pd.DataFrame, name: str) -> Floats:
    found: Floats = lines[name].to_numpy(dtype=np.float64)
    return found
