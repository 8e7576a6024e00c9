"""The requests of a run told apart: by name, by user class, by server; and what became of questions that were tried
again."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tokenswarm.results import distribution
from tokenswarm.results.cohort import Rows, ended_as
from tokenswarm.results.flow import column

KEYS: Final = ("name", "user_class", "remote_addr")
FIGURES: Final = ("ttft_ms", "ttft_low_ms", "tpot_ms", "e2e_ms", "output_tokens")
MOST: Final = 100
"""Groups told of each kind; a locustfile may give each request a name of its own."""


def groups(cohort: Rows) -> dict[str, list[dict[str, Any]]]:
    """Figures by each column in which the cohort's requests differ, the largest groups first."""
    found = {}
    figures: dict[str, npt.NDArray[Any]] = {name: column(cohort, name) for name in FIGURES}
    figures |= {"ok": ended_as(cohort, "ok"), "failed": ended_as(cohort, "failed", "timeout")}
    for key in KEYS:
        codes, values = pd.factorize(cohort[key])
        if len(values) > 1:
            sizes = np.bincount(codes)
            largest = np.argsort(-sizes, kind="stable")[:MOST]
            short = codes.astype(np.uint16) if len(values) < 1 << 16 else codes  # by radix, in no time
            order, ends = np.argsort(short, kind="stable"), np.cumsum(sizes)
            places = {code: order[ends[code] - sizes[code] : ends[code]] for code in largest.tolist()}
            found[key] = [
                _group(str(values[code]), {name: every[place] for name, every in figures.items()})
                for code, place in places.items()
            ]
    return found


def questions(rows: pd.DataFrame) -> dict[str, int] | None:
    """What was asked and answered in the end, where requests were tried again; None where none was."""
    if not (rows["parent"] != "").any():
        return None
    parents = rows["parent"].astype("str")
    first = parents.where(parents != "", rows["id"])
    answered = (rows["status"] == "ok").groupby(first).any()
    return {
        "asked": len(answered),
        "answered": int(answered.sum()),
        "at_once": int(((rows["status"] == "ok") & (rows["parent"] == "")).sum()),
        "retries": int((rows["parent"] != "").sum()),
    }


def _group(value: str, rows: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    ok = rows["ok"]
    tokens = rows["output_tokens"][ok]
    told = tokens[~np.isnan(tokens)]
    return {
        "value": value,
        "due": len(ok),
        "ok": int(ok.sum()),
        "failed": int(rows["failed"].sum()),
        "output_tokens": int(told.sum()) if len(told) else None,
        "ttft_ms": distribution.of(rows["ttft_ms"], rows["ttft_low_ms"]),
        "tpot_ms": distribution.of(rows["tpot_ms"][ok]),
        "e2e_ms": distribution.of(rows["e2e_ms"][ok]),
    }
