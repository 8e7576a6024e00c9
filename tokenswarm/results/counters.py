"""What counters that only ever grow grew by, per second: Prometheus's `_total` and its like."""

from __future__ import annotations

from typing import Final

import numpy as np

from tokenswarm.results.flow import Floats

_ENDINGS: Final = ("_total", "_sum", "_count", "_bucket")
LONGEST_GAP_S: Final = 5.0
"""Beyond it a rate would be about another time than the row that it stands in."""


def is_counter(metric: str) -> bool:
    """By the name, without a label behind a dot."""
    return metric.partition(".")[0].endswith(_ENDINGS)


def rate_name(metric: str) -> str:
    """`tokens_total` becomes `tokens_per_s`, `ttft_sum` `ttft_sum_per_s`; a label behind a dot stays there."""
    name, dot, label = metric.partition(".")
    return f"{name.removesuffix('_total')}_per_s{dot}{label}"


def rates(times: Floats, values: Floats, longest_gap: float, failures: Floats | None = None) -> Floats:
    """Growth per second since the reading before, for readings in order of time. NaN for the first, after a gap longer
    than `longest_gap` seconds or in which `failures` (so far) went up, and where the counter began anew."""
    found = np.full(len(times), np.nan)
    if len(times) > 1:
        seconds, grown = np.diff(times), np.diff(values)
        known = (seconds > 0) & (seconds <= longest_gap) & (grown >= 0)
        if failures is not None:
            known &= np.diff(failures) == 0
        found[1:][known] = grown[known] / seconds[known]
    return found
