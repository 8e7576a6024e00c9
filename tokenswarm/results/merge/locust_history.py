"""Locust's own `…_stats_history.csv`, of any Locust run with --csv: what its table showed, second by second."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from tokenswarm.errors import AnalysisError
from tokenswarm.results.files import whole_lines

HISTORY: Final = "_stats_history.csv"
STATS: Final = "_stats.csv"
ENDINGS: Final = (HISTORY, STATS, "_failures.csv", "_exceptions.csv")

_NAMES: Final = {
    "User Count": "users",
    "Requests/s": "requests_per_s",
    "Failures/s": "failures_per_s",
    "Total Request Count": "requests_total",
    "Total Failure Count": "failures_total",
    "Total Median Response Time": "median_ms_so_far",
    "Total Average Response Time": "mean_ms_so_far",
    "Total Min Response Time": "min_ms_so_far",
    "Total Max Response Time": "max_ms_so_far",
    "Total Average Content Size": "mean_bytes_so_far",
}
_PERCENTILE: Final = re.compile(r"^([\d.]+)%$")


def prefix_of(given: str) -> Path | None:
    """What Locust's --csv was given, from that or from one of its files; None if there is no history by that name."""
    for ending in ENDINGS:
        given = given.removesuffix(ending)
    return Path(given) if Path(given + HISTORY).is_file() else None


def read(prefix: Path, defects: list[str]) -> pd.DataFrame:
    """Of the Aggregated lines: `time` (UTC epoch seconds) and numbers as float64, NaN for Locust's N/A.

    Columns: users, requests_per_s, failures_per_s, p50_ms and so on (of the last ten seconds), and what Locust counts
    from the start. Empty, and said in `defects`, where there is none. Raises AnalysisError for a file of another kind.
    """
    path = prefix.with_name(prefix.name + HISTORY)
    lines = whole_lines.opened(path, defects)
    empty = pd.DataFrame({"time": pd.Series([], dtype="float64")})
    if lines is None:
        return empty
    try:
        table = pd.read_csv(lines, dtype=str, keep_default_na=False, on_bad_lines="skip", index_col=False)
    except pd.errors.EmptyDataError:
        defects.append(f"{path.name} is empty.")
        return empty
    except (pd.errors.ParserError, ValueError) as error:
        raise AnalysisError(f"{path}: this cannot be read as a CSV file: {error}") from error
    if missing := [name for name in ("Timestamp", "Name") if name not in table.columns]:
        raise AnalysisError(f"{path} is not Locust's: it lacks the columns {', '.join(missing)}")
    table = table[table["Name"] == "Aggregated"]
    found: dict[str, Any] = {"time": _numbers(table["Timestamp"])}
    for name in table.columns:
        percentile = _PERCENTILE.match(name)
        if name in _NAMES or percentile:
            found[f"p{percentile[1]}_ms" if percentile else _NAMES[name]] = _numbers(table[name])
    frame = pd.DataFrame(found)
    damaged = frame["time"].isna()
    if damaged.any():
        defects.append(f"{path.name}: {int(damaged.sum()):,} lines have no time and were left out.")
    return frame[~damaged].sort_values("time", kind="stable").reset_index(drop=True)


def check_total(prefix: Path, history: pd.DataFrame, defects: list[str]) -> None:
    """Tell by how many requests Locust's history ends before its final table does."""
    path = prefix.with_name(prefix.name + STATS)
    lines = whole_lines.opened(path, defects)
    if lines is None or "requests_total" not in history or history.empty:
        return
    table = pd.read_csv(lines, dtype=str, keep_default_na=False, on_bad_lines="skip", index_col=False)
    if not {"Name", "Request Count"} <= {*table.columns}:
        defects.append(f"{path.name} is not as Locust writes it, and was left out.")
        return
    final = _numbers(table.loc[table["Name"] == "Aggregated", "Request Count"]).max()
    last = history["requests_total"].max()
    if final > last:
        defects.append(f"{path.name} counts {final:,.0f} requests, the history only {last:,.0f}: its end is missing.")


def _numbers(cells: pd.Series[Any]) -> pd.Series[Any]:
    numbers = pd.to_numeric(cells, errors="coerce").astype("float64")
    return numbers.where(np.isfinite(numbers))
