"""The first request of each class of errors, so that it can be looked up in the server's logs."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from tokenswarm.results.phases import Phases

TOLD: Final = ("error_class", "id", "start_time", "end_time", "worker", "http_status", "error")


def added(errors: list[dict[str, Any]], rows: pd.DataFrame, phases: Phases) -> list[dict[str, Any]]:
    """`errors` of summary.json, each with `first`: id, second of the run, worker, HTTP status and message."""
    wrong = rows.loc[rows["error_class"] != "", list(TOLD)]
    at = wrong["end_time"].fillna(wrong["start_time"]).to_numpy(dtype=np.float64)
    earliest = wrong.iloc[np.argsort(at, kind="stable")].drop_duplicates("error_class")
    by_class = {str(name): index for index, name in zip(earliest.index, earliest["error_class"], strict=True)}
    return [error | {"first": _first(wrong.loc[by_class[error["class"]]], phases)} for error in errors]


def _first(row: pd.Series[Any], phases: Phases) -> dict[str, Any]:
    at = row["start_time"] if np.isnan(row["end_time"]) else row["end_time"]
    return {
        "id": str(row["id"]),
        "at_s": None if np.isnan(at) else float(at) - phases.start,
        "worker": None if np.isnan(row["worker"]) else int(row["worker"]),
        "http_status": None if np.isnan(row["http_status"]) else int(row["http_status"]),
        "message": str(row["error"]),
    }
