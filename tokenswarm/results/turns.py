"""Conversations by turn: does the first token come later the longer the history is?"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from tokenswarm.results import distribution
from tokenswarm.results.flow import column

MOST: Final = 50


def figures(cohort: pd.DataFrame) -> list[dict[str, Any]] | None:
    """A line for each of the first turns, from 1; None where no conversation had a second one."""
    turn = column(cohort, "turn")
    if not (turn > 1).any():
        return None
    found = []
    for number in np.unique(turn[turn >= 1])[:MOST]:
        rows = cohort[turn == number]
        ok = rows[rows["status"] == "ok"]
        into, cached = ok["input_tokens"], ok["cached_tokens"]
        told = into[cached.notna()].sum()
        found.append(
            {
                "turn": int(number),
                "due": len(rows),
                "ok": len(ok),
                "input_tokens": float(into.mean()) if into.notna().any() else None,
                "cached_share": float(cached.sum() / told) if told else None,
                "ttft_ms": distribution.of(column(rows, "ttft_ms"), column(rows, "ttft_low_ms")),
            }
        )
    return found
