"""Conversations by turn: does the first token come later the longer the history is?"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tokenswarm.results import distribution
from tokenswarm.results.cohort import Rows, ended_as
from tokenswarm.results.flow import Floats, column

COLUMNS: Final = ("ttft_ms", "ttft_low_ms", "input_tokens", "cached_tokens")
MOST: Final = 50


def figures(cohort: Rows) -> list[dict[str, Any]] | None:
    """A line for each of the first turns, from 1; None where no conversation had a second one."""
    turn = column(cohort, "turn")
    if not (turn > 1).any():
        return None
    ok = ended_as(cohort, "ok")
    ttft, low, into, cached = (column(cohort, name) for name in COLUMNS)
    numbers = np.unique(turn[turn >= 1])[:MOST]
    known = np.flatnonzero(turn >= 1)
    order = known[np.argsort(turn[known], kind="stable")]
    edges = np.searchsorted(turn[order], [*numbers, numbers[-1] + 0.5])
    found = []
    for number, begin, end in zip(numbers, edges[:-1], edges[1:], strict=True):
        mine = order[begin:end]
        good = mine[ok[mine]]
        told = good[~np.isnan(cached[good])]
        tokens = into[good][~np.isnan(into[good])]
        found.append(
            {
                "turn": int(number),
                "due": len(mine),
                "ok": len(good),
                "input_tokens": float(tokens.mean()) if len(tokens) else None,
                "cached_share": _share(cached[told], into[told]),
                "ttft_ms": distribution.of(ttft[mine], low[mine]),
            }
        )
    return found


def _share(parts: Floats, wholes: Floats) -> float | None:
    whole = float(np.nansum(wholes))
    return float(parts.sum()) / whole if whole else None
