"""The requests of a run told apart: by name, by user class, by server; and what became of questions that were tried
again."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from tokenswarm.results import distribution
from tokenswarm.results.flow import column

KEYS: Final = ("name", "user_class", "remote_addr")
MOST: Final = 100
"""Groups told of each kind; a locustfile may give each request a name of its own."""


def groups(cohort: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Figures by each column in which the cohort's requests differ, the largest groups first."""
    found = {}
    for key in KEYS:
        values = cohort[key].value_counts()
        if len(values) > 1:
            found[key] = [_group(str(value), cohort[cohort[key] == value]) for value in values.index[:MOST]]
    return found


def questions(rows: pd.DataFrame) -> dict[str, int] | None:
    """What was asked and answered in the end, where requests were tried again; None where none was."""
    if not (rows["parent"] != "").any():
        return None
    first = rows["parent"].where(rows["parent"] != "", rows["id"])
    answered = (rows["status"] == "ok").groupby(first).any()
    return {
        "asked": len(answered),
        "answered": int(answered.sum()),
        "at_once": int(((rows["status"] == "ok") & (rows["parent"] == "")).sum()),
        "retries": int((rows["parent"] != "").sum()),
    }


def _group(value: str, rows: pd.DataFrame) -> dict[str, Any]:
    ok = rows[rows["status"] == "ok"]
    tokens = ok["output_tokens"].sum(min_count=1)
    return {
        "value": value,
        "due": len(rows),
        "ok": len(ok),
        "failed": int(rows["status"].isin(["failed", "timeout"]).sum()),
        "output_tokens": None if pd.isna(tokens) else int(tokens),
        "ttft_ms": distribution.of(column(rows, "ttft_ms"), column(rows, "ttft_low_ms")),
        "tpot_ms": distribution.of(column(ok, "tpot_ms")),
        "e2e_ms": distribution.of(column(ok, "e2e_ms")),
    }
