"""requests.csv as a data frame, a million rows of it in seconds."""

from __future__ import annotations

import csv
import io
import typing
import warnings
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pandas as pd

from tokenswarm.record import COLUMNS, STATUSES, RequestRecord
from tokenswarm.results import whole_lines


def _numeric_columns() -> frozenset[str]:
    hints = typing.get_type_hints(RequestRecord)
    return frozenset(name for name, hint in hints.items() if {int, float} & set(typing.get_args(hint) or (hint,)))


NUMERIC: Final = _numeric_columns()


def read(path: Path, defects: list[str]) -> tuple[pd.DataFrame, int]:
    """All of `record.COLUMNS`, numbers as float64 and text as str, and how many rows were damaged and left out.

    What is wrong with the file is added to `defects`. A request that is there twice counts once.
    """
    lines = whole_lines.opened(path, defects)
    if lines is not None and not lines.peek(1):
        defects.append(f"{path.name} is empty: it has not even the names of its columns.")
    frame, damaged = _parsed(lines) if lines is not None else (pd.DataFrame(), 0)
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing and len(frame.columns):
        defects.append(f"{path.name} lacks the columns {', '.join(missing)}.")
    whole = frame["status"].isin(STATUSES).to_numpy() if "status" in frame else np.zeros(len(frame), dtype=np.bool_)
    damaged += int((~whole).sum())
    if not whole.all():
        frame = frame[whole].reset_index(drop=True)
    if damaged:
        defects.append(f"{path.name}: {damaged:,} rows are damaged and were left out.")
    columns: dict[str, pd.Series[Any]] = {}
    bad_cells = 0
    for name in [*frame.columns, *missing]:
        if name not in frame:
            empty: Any = np.nan if name in NUMERIC else ""
            columns[name] = pd.Series(empty, index=frame.index, dtype="float64" if name in NUMERIC else "str")
        elif name in NUMERIC:
            columns[name], bad = _numbers(frame[name])
            bad_cells += bad
        else:
            columns[name] = _text(frame[name])
    if bad_cells:
        defects.append(f"{path.name}: {bad_cells:,} cells that should be numbers are not; they count as not measured.")
    return _each_once(pd.DataFrame(columns, copy=False), path.name, defects), damaged


def _parsed(lines: BinaryIO) -> tuple[pd.DataFrame, int]:
    """The cells, numbers where all of a column are, and how many lines had too many cells to be a row."""
    header = next(csv.reader([lines.readline().decode("utf-8", "replace")]), [])
    lines.seek(0)
    if not header:
        return pd.DataFrame(), 0
    numeric = NUMERIC.intersection(header)
    text: Any = {name: str if name == "id" else "category" for name in header if name not in numeric}
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            frame = pd.read_csv(
                lines,
                dtype=text,
                keep_default_na=False,
                na_values={name: [""] for name in numeric},
                on_bad_lines="warn",
                index_col=False,
                encoding_errors="replace",
            )
        return frame, sum(str(warning.message).count("Skipping line") for warning in caught)
    except (pd.errors.ParserError, ValueError):
        lines.seek(0)
        return _line_by_line(lines.read().decode("utf-8", "replace"))


def _line_by_line(text: str) -> tuple[pd.DataFrame, int]:
    """Slower, for files on which the fast parser gives up (quotes out of step in the middle of the file)."""
    header, *rows = csv.reader(io.StringIO(text), strict=False)
    good = [row for row in rows if len(row) == len(header)]
    frame = pd.DataFrame(good, columns=header, dtype=str)
    for name in NUMERIC.intersection(header):
        frame[name] = frame[name].mask(frame[name] == "")
    return frame, len(rows) - len(good)


def _numbers(cells: pd.Series[Any]) -> tuple[pd.Series[Any], int]:
    """Finite numbers, and how many cells hold something else."""
    values = pd.to_numeric(cells, errors="coerce").astype("float64")
    values = values.where(np.isfinite(values)) if np.isinf(values.to_numpy()).any() else values
    return values, int((values.isna() & cells.notna()).sum())


def _text(cells: pd.Series[Any]) -> pd.Series[Any]:
    """Text as it was before `record.guard` put an apostrophe before what a spreadsheet takes for a formula."""
    if isinstance(cells.dtype, pd.CategoricalDtype):
        words = pd.Series(cells.cat.categories.astype(str), dtype="str")
        codes = cells.cat.codes.to_numpy()
        plain = pd.concat([_unguarded(words), pd.Series([""], dtype="str")], ignore_index=True)
        return plain.take(np.where(codes < 0, len(words), codes)).reset_index(drop=True)
    return _unguarded(cells.fillna("").astype("str"))


def _unguarded(cells: pd.Series[Any]) -> pd.Series[Any]:
    guarded = cells.str.startswith("'")
    return cells.str.replace(r"^'(?=[=+\-@\t\r])", "", regex=True) if guarded.any() else cells


def _each_once(frame: pd.DataFrame, name: str, defects: list[str]) -> pd.DataFrame:
    again = frame.duplicated(["id", "start_time", "end_time"]) & (frame["id"] != "")
    if not again.any():
        return frame
    defects.append(f"{name}: {int(again.sum()):,} rows are there twice, and count once.")
    return frame[~again].reset_index(drop=True)
