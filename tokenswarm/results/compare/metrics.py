"""What is compared: every metric's name, title, unit, population, and which way is better."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Final

from tokenswarm.errors import OptionError
from tokenswarm.results.wording import LATENCIES

QUANTILE: Final = "quantile"
MEAN: Final = "mean"
RATE: Final = "rate"
SHARE: Final = "share"

COLUMNS: Final = {
    "ttft": "ttft_ms",
    "ttft_sent": "ttft_sent_ms",
    "ttft_due": "ttft_due_ms",
    "ttfo": "ttfo_ms",
    "tpot": "tpot_ms",
    "e2e": "e2e_ms",
}
"""The latencies that requests.csv has a column for."""
FROM_FIRST_TOKEN: Final = frozenset(("ttft", "ttft_sent", "ttft_due"))
"""Of every request whose first token came; the other latencies are of those that succeeded."""
ITL: Final = "itl"
"""From the workers' histograms, merged; these are within so much of the truth:"""
ITL_RESOLUTION: Final = 0.005
LEVELS: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
RATES: Final = {
    "requests_per_s": "Requests/s",
    "output_tokens_per_s": "Output tokens/s",
    "input_tokens_per_s": "Input tokens/s",
    "total_tokens_per_s": "All tokens/s",
}
ERROR_RATE: Final = "error_rate"
GOODPUT: Final = "goodput"
GOOD_SHARE: Final = "goodput_share"
"""Of the requests that were due; both where there are limits on each request."""

_STANDARD: Final = ("p50", "p95", "p99")
_STANDARD_LATENCIES: Final = ("ttft", "tpot", ITL, "e2e")
_STANDARD_RATES: Final = ("requests_per_s", "output_tokens_per_s")


@dataclass(frozen=True)
class Metric:
    """`of` is the latency, rate or share that it is a statistic of; `unit` is ms, /s or "" (a share of 1)."""

    name: str
    title: str
    kind: str
    of: str
    statistic: str = ""

    @property
    def lower_is_better(self) -> bool:
        return self.kind != RATE and self.of != GOOD_SHARE

    @property
    def unit(self) -> str:
        return {RATE: "/s", SHARE: ""}.get(self.kind, "ms")

    @property
    def level(self) -> float:
        """Of a percentile, of 1."""
        return LEVELS[self.statistic]


def title_of(latency: str) -> str:
    return LATENCIES[f"{latency}_ms"]


def _all() -> dict[str, Metric]:
    found = []
    for latency in (*COLUMNS, ITL):
        found += [
            Metric(f"{latency}_{name}", f"{title_of(latency)} {name}", QUANTILE, latency, name) for name in LEVELS
        ]
        found.append(Metric(f"{latency}_mean", f"{title_of(latency)} mean", MEAN, latency, "mean"))
    found += [Metric(name, title, RATE, name) for name, title in RATES.items()]
    found.append(Metric(ERROR_RATE, "Error rate", SHARE, ERROR_RATE))
    found.append(Metric(GOODPUT, "Goodput, requests/s", RATE, GOODPUT))
    found.append(Metric(GOOD_SHARE, "Goodput, of all due", SHARE, GOOD_SHARE))
    return {metric.name: metric for metric in found}


METRICS: Final = _all()


def shown(*, open_loop: bool) -> list[Metric]:
    """What is compared without being asked for. An open loop's headline is TTFT from when the request was due."""
    latencies = ("ttft_due", *_STANDARD_LATENCIES) if open_loop else _STANDARD_LATENCIES
    names = [f"{latency}_{statistic}" for latency in latencies for statistic in _STANDARD]
    return [METRICS[name] for name in (*names, *_STANDARD_RATES, GOODPUT, GOOD_SHARE, ERROR_RATE)]


def known(name: str) -> Metric:
    """The metric of that name. Raises OptionError that says what there is."""
    if name in METRICS:
        return METRICS[name]
    close = difflib.get_close_matches(name, METRICS, n=1)
    meant = f"; did you mean {close[0]}?" if close else "."
    latencies = f"{', '.join((*COLUMNS, ITL))} with _{', _'.join(LEVELS)} or _mean"
    others = f"{', '.join((*RATES, GOODPUT))}; {ERROR_RATE}, {GOOD_SHARE}"
    raise OptionError(f"there is no metric {name!r}{meant} There are {latencies}; {others}")
