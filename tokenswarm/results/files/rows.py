"""requests.csv as a data frame, a million rows of it in seconds."""

from __future__ import annotations

import csv
import io
import typing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from tokenswarm.record import COLUMNS, STATUSES, RequestRecord
from tokenswarm.results.files import skipped_lines, whole_lines


def _numeric_columns() -> frozenset[str]:
    hints = typing.get_type_hints(RequestRecord)
    return frozenset(name for name, hint in hints.items() if {int, float} & set(typing.get_args(hint) or (hint,)))


NUMERIC: Final = _numeric_columns()
LARGEST: Final = 1e15
"""No figure of a run is beyond: a square of one still is a number."""
LATEST: Final = 1e11
"""Nor is an instant, in epoch seconds."""
_PIECE: Final = 32 << 20
"""Bytes that are parsed at once: what a parser needs meanwhile is several times as much."""
_THREADS: Final = 2


def read(path: Path, defects: list[str]) -> tuple[pd.DataFrame, int]:
    """All of `record.COLUMNS`, numbers as float64, `id` as str and other text as categories (of str, with ""), and how
    many rows were damaged and left out.

    What is wrong with the file is added to `defects`. A request that is there twice counts once.
    """
    lines = whole_lines.opened(path, defects)
    if lines is not None and not lines.peek(1):
        defects.append(f"{path.name} is empty: it has not even the names of its columns.")
    parts = _parts(lines) if lines is not None else []
    header = list(parts[0].columns) if parts else []
    missing = [column for column in COLUMNS if column not in header]
    if missing and header:
        defects.append(f"{path.name} lacks the columns {', '.join(missing)}.")
    if damaged := sum(part.damaged for part in parts):
        defects.append(f"{path.name}: {damaged:,} rows are damaged and were left out.")
    if bad_cells := sum(part.bad_cells for part in parts):
        defects.append(f"{path.name}: {bad_cells:,} cells that should be numbers are not; they count as not measured.")
    count = sum(part.rows for part in parts)
    columns: dict[str, Any] = {}
    for name in [*header, *missing]:
        if name in header:
            columns[name] = _joined([part.columns.pop(name) for part in parts])
        else:
            empty: Any = np.nan if name in NUMERIC else ""
            columns[name] = pd.Series(empty, index=range(count), dtype=_dtype(name))
    return _each_once(pd.DataFrame(columns, copy=False), path.name, defects), damaged


def _parts(lines: io.BufferedReader) -> list[_Part]:
    """The whole file, several pieces of it at a time: most of the work is done without Python's lock."""
    pieces = enumerate(whole_lines.pieces(lines, _PIECE))
    turn = Lock()

    def work() -> list[tuple[int, _Part]]:
        done: list[tuple[int, _Part]] = []
        while True:
            with turn:
                number, piece = next(pieces, (-1, b""))
            if number < 0:
                return done
            done.append((number, _part(piece)))

    with ThreadPoolExecutor(_THREADS) as pool:
        workers = [pool.submit(work) for _ in range(_THREADS)]
        numbered = sorted((pair for worker in workers for pair in worker.result()), key=itemgetter(0))
    return [part for _, part in numbered]


@dataclass
class _Part:
    """Rows that follow each other, by column; `damaged` ones are left out."""

    columns: dict[str, pd.Series[Any]]
    rows: int
    damaged: int
    bad_cells: int


def _part(piece: bytes) -> _Part:
    frame, damaged = _parsed(piece)
    whole = frame["status"].isin(STATUSES).to_numpy() if "status" in frame else np.zeros(len(frame), dtype=np.bool_)
    damaged += int((~whole).sum())
    if not whole.all():
        frame = frame[whole].reset_index(drop=True)
    part = _Part({}, len(frame), damaged, 0)
    for name in frame.columns:
        if name in NUMERIC:
            part.columns[name], bad = _numbers(name, frame[name])
            part.bad_cells += bad
        else:
            part.columns[name] = _plain(frame[name]) if name == "id" else _words(frame[name])
    return part


def _dtype(name: str) -> Any:
    """Of a column. Nearly all text is one of a few words, but for the id."""
    return "float64" if name in NUMERIC else "str" if name == "id" else "category"


def _joined(parts: list[pd.Series[Any]]) -> pd.Series[Any]:
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0].dtype, pd.CategoricalDtype):
        return pd.Series(union_categoricals(parts), copy=False)
    return pd.concat(parts, ignore_index=True)


def _parsed(piece: bytes) -> tuple[pd.DataFrame, int]:
    """The cells, numbers where all of a column are, and how many lines had too many cells to be a row."""
    header = _cells(piece[: piece.find(b"\n")].decode("utf-8", "replace"))
    if not header:
        return pd.DataFrame(), 0
    numeric = NUMERIC.intersection(header)
    text: Any = {name: _dtype(name) for name in header if name not in numeric}
    try:
        with skipped_lines.counted() as skipped:
            frame = pd.read_csv(
                io.BytesIO(piece),
                dtype=text,
                keep_default_na=False,
                na_values={name: [""] for name in numeric},
                on_bad_lines="warn",
                index_col=False,
                encoding_errors="replace",
            )
    except (pd.errors.ParserError, ValueError):
        return _line_by_line(piece)
    # A quotation mark out of step makes one cell of many lines, and of a blank line nothing at all.
    every_line = len(frame) + skipped() == piece.count(b"\n") - 1
    return (frame, skipped()) if every_line else _line_by_line(piece)


def _line_by_line(piece: bytes) -> tuple[pd.DataFrame, int]:
    """Slower, for a piece in which quotation marks are out of step. No cell of ours holds the end of a line."""
    header, *rows = (_cells(line) for line in piece.decode("utf-8", "replace").split("\n") if line.strip("\r"))
    good = [row for row in rows if len(row) == len(header)]
    frame = pd.DataFrame(good, columns=header, dtype=str)
    for name in NUMERIC.intersection(header):
        frame[name] = frame[name].mask(frame[name] == "")
    return frame, len(rows) - len(good)


def _cells(line: str) -> list[str]:
    """Of one line; none if it is not CSV."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _numbers(name: str, cells: pd.Series[Any]) -> tuple[pd.Series[Any], int]:
    """Numbers that can have been measured, and how many cells hold something else."""
    values = pd.to_numeric(cells, errors="coerce").astype("float64")
    beyond = np.abs(values.to_numpy()) > (LATEST if name.endswith("_time") else LARGEST)
    if beyond.any():
        values = values.mask(beyond)
    elif values.dtype == cells.dtype:
        return values, 0
    return values, int((values.isna() & cells.notna()).sum())


def _words(cells: pd.Series[Any]) -> pd.Series[Any]:
    """Text as categories, one of which is "", for cells that are not there."""
    cells = cells.astype("category")
    written = _unguarded(pd.Series(cells.cat.categories, dtype="str"))
    places, words = pd.factorize(pd.Series([*written, ""], dtype="str"))  # guarded and not, two may be the same word
    return pd.Series(pd.Categorical.from_codes(places[cells.cat.codes.to_numpy()], words), copy=False)


def _plain(cells: pd.Series[Any]) -> pd.Series[Any]:
    return _unguarded(cells.fillna("").astype("str"))


def _unguarded(cells: pd.Series[Any]) -> pd.Series[Any]:
    """Text as it was before `record.guard` put an apostrophe before what a spreadsheet takes for a formula."""
    guarded = cells.str.startswith("'")
    return cells.str.replace(r"^'(?=[=+\-@\t\r])", "", regex=True) if guarded.any() else cells


def _each_once(frame: pd.DataFrame, name: str, defects: list[str]) -> pd.DataFrame:
    maybe = frame.index[frame["end_time"].duplicated(keep=False)]  # few: to compare each row in full takes long
    known = frame.loc[maybe, ["id", "start_time", "end_time"]]
    again = known.index[known.duplicated() & (known["id"] != "")]
    if not len(again):
        return frame
    defects.append(f"{name}: {len(again):,} rows are there twice, and count once.")
    return frame.drop(index=again).reset_index(drop=True)
