"""The formats of datasets: how records are found in a file, and what one asks. One more is an entry of `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, NamedTuple

from tokenswarm.errors import DatasetError
from tokenswarm.workload import arrays
from tokenswarm.workload.lines import choose, read_line, read_row, read_text
from tokenswarm.workload.prompts import Prompt
from tokenswarm.workload.records import BEGINNING, MOST_RECORD_BYTES, Mark, Place, Record, line_marks, lines, marks
from tokenswarm.workload.tables import Table


class Format(NamedTuple):
    """How one file is read.

    `records` finds those from a place on, blank ones too; `read` makes a prompt of one, with an id, or raises
    ValueError; `marks` goes through the whole file for an index, as `records.marks` does.
    """

    records: Callable[[BinaryIO, Place], Iterator[Record]]
    read: Callable[[Record, str], Prompt]
    marks: Callable[[BinaryIO, int], Iterator[Mark]]
    first: Place = BEGINNING
    """Where the first record is."""


def _text(file: BinaryIO, name: str, column: str | None) -> Format:
    if column is not None:
        raise DatasetError(f"--dataset-column {column!r}: {name} is plain text and has no columns")
    return Format(lines, lambda record, identity: read_text(record.data, identity), line_marks)


def _json(file: BinaryIO, name: str, column: str | None) -> Format:
    first = file.readline(MOST_RECORD_BYTES + 1)
    if not arrays.begins(first):
        return _lines(file, name, column)
    return _lines(file, name, column)._replace(
        records=arrays.elements, marks=lambda file, spacing: marks(arrays.elements(file), spacing)
    )


def _lines(file: BinaryIO, name: str, column: str | None) -> Format:
    return Format(lines, lambda record, identity: read_line(record.data, identity, column), line_marks)


def _table(file: BinaryIO, name: str, column: str | None) -> Format:
    try:
        table = Table(file, name)
    except ValueError as error:
        raise DatasetError(f"--dataset: {error}") from None
    try:
        choose(table.columns, column)
    except ValueError as error:
        raise DatasetError(f"--dataset {name}: {error}") from None
    return Format(
        table.records,
        lambda record, identity: read_row(table.row(record), identity, column),
        lambda file, spacing: marks(table.records(file, table.first), spacing),
        table.first,
    )


FORMATS: Final = {".txt": _text, ".json": _json, ".csv": _table, ".tsv": _table}
"""By the file's ending."""
USUAL: Final = _lines
_UNPACK: Final = "unpack it first"
_SHEET: Final = "save the sheet as CSV in UTF-8"
NOT_READ: Final = {
    ".parquet": "write it as JSONL, with pandas: read_parquet(FILE).to_json('x.jsonl', orient='records', lines=True)",
    ".xlsx": _SHEET,
    ".xls": _SHEET,
    ".ods": _SHEET,
    **dict.fromkeys((".gz", ".zip", ".zst", ".xz", ".bz2"), _UNPACK),
}
"""By the ending: what to do instead."""


def format_of(file: BinaryIO, name: str, suffix: str, column: str | None) -> Format:
    """How the file of this name is read. Raises DatasetError."""
    if suffix in NOT_READ:
        raise DatasetError(f"--dataset {name}: {suffix} files are not read; {NOT_READ[suffix]}")
    return FORMATS.get(suffix, USUAL)(file, name, column)
