"""CSV files with one value a line (time, who, what, value), read in pieces and only as far as somebody wants them: the
samples of eight GPUs are millions of lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, TypeAlias

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from tokenswarm.results.files import skipped_lines

Wanted: TypeAlias = Callable[[str], bool]
"""Whether a metric is of interest, by its name."""
LARGEST: Final = 1e18
"""No reading is beyond."""
LATEST: Final = 1e11
"""Nor is an instant, in epoch seconds."""
_LINES_AT_ONCE: Final = 200_000


@dataclass(frozen=True)
class Layout:
    """The columns of such a file. A line without `time` and `value` is none; `more` are numbers that may be missing."""

    text: tuple[str, ...]
    more: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[str, ...]:
        return ("time", "value", *self.more)

    def empty(self) -> pd.DataFrame:
        """No lines."""
        texts = {name: pd.Series([], dtype="category") for name in self.text}
        return pd.DataFrame(texts | {name: pd.Series([], dtype="float64") for name in self.numbers})


def read(lines: BinaryIO, name: str, layout: Layout, wanted: Wanted, defects: list[str]) -> pd.DataFrame:
    """The lines whose `metric` is wanted, in the file's order: text as categories, numbers as float64 (NaN: not
    told). What is wrong with the file, which people know by `name`, is added to `defects`."""
    parts: list[pd.DataFrame] = []
    damaged = 0
    columns = {*layout.text, *layout.numbers}
    text: Any = dict.fromkeys(layout.text, "category")
    known = columns.issuperset(lines.readline().decode("utf-8-sig", "replace").rstrip().split(","))
    lines.seek(0)  # where columns are chosen, lines with too many cells are not told from others
    try:
        with (
            skipped_lines.counted() as skipped,
            pd.read_csv(
                lines,
                usecols=None if known else columns.__contains__,
                index_col=False,
                dtype=text,
                keep_default_na=False,
                na_values={column: [""] for column in layout.more},
                on_bad_lines="warn",
                chunksize=_LINES_AT_ONCE,
                encoding_errors="replace",
            ) as reader,
        ):
            for part in reader:
                needed = ("time", *layout.text, "value")
                if missing := [column for column in needed if column not in part.columns]:
                    defects.append(f"{name} lacks the columns {', '.join(missing)}.")
                    return layout.empty()
                kept, bad = _wanted(part, layout, wanted)
                damaged += bad
                parts.append(kept)
        damaged += skipped()
    except pd.errors.EmptyDataError:
        defects.append(f"{name} is empty: it has not even the names of its columns.")
    except (pd.errors.ParserError, ValueError):
        read = sum(map(len, parts))
        defects.append(
            f"{name} cannot be read any further than its first {read:,} samples: a quotation mark has no end."
        )
    if damaged:
        defects.append(f"{name}: {damaged:,} lines are damaged and were left out.")
    return _joined(parts, layout)


def _wanted(part: pd.DataFrame, layout: Layout, wanted: Wanted) -> tuple[pd.DataFrame, int]:
    metrics = [metric for metric in part["metric"].cat.categories if wanted(str(metric))]
    part = part[part["metric"].isin(metrics)].reindex(columns=[*layout.text, *layout.numbers])
    for column in layout.numbers:
        numbers = pd.to_numeric(part[column], errors="coerce").astype("float64")
        part[column] = numbers.where(numbers.abs() <= (LATEST if column == "time" else LARGEST))
    whole = part["time"].notna() & part["value"].notna() & part[list(layout.text)].notna().all(axis=1)
    kept = part[whole]
    for column in layout.text:
        kept[column] = kept[column].cat.remove_unused_categories()
    return kept, int((~whole).sum())


def _joined(parts: list[pd.DataFrame], layout: Layout) -> pd.DataFrame:
    if not parts:
        return layout.empty()
    frame: dict[str, Any] = {}
    for name in layout.text:
        frame[name] = union_categoricals([part.pop(name).array for part in parts])
    for name in layout.numbers:
        frame[name] = np.concatenate([part.pop(name).to_numpy() for part in parts])
    return pd.DataFrame(frame, copy=False)
