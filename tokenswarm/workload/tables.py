"""Tables: files of CSV or TSV, whose first line names the columns. A quoted cell may go over several lines."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO, Final

from tokenswarm.errors import DatasetError
from tokenswarm.workload.records import MOST_RECORD_BYTES, Place, Record, lines

SUFFIXES: Final = (".csv", ".tsv")
_DELIMITERS: Final = ",;\t"
_REST_OF_CELL: Final = re.compile(rb'(?:[^"]++|"")*+"')
_NOT_CLOSED: Final = (
    f"a cell is opened by a quotation mark and not closed within {MOST_RECORD_BYTES:,} bytes; all of them are left out"
)

csv.field_size_limit(MOST_RECORD_BYTES)  # else 128 KiB; the module knows no other way


class Table:
    """The columns of a table, its records and the cells of each. `name` is for messages.

    Raises DatasetError if the first line cannot be one of column names.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        header = next((record for record in lines(file) if not record.blank), None)
        if header is None:
            raise DatasetError(f"nothing in {name} can be used. It is empty.")
        self._delimiter = max(_DELIMITERS, key=lambda delimiter: header.data.count(delimiter.encode()))
        self._cell = re.compile(rb'(?<![^%b\r\n])"(?:[^"]++|"")*+("?)' % self._delimiter.encode())
        """A quoted cell; its group is empty where the cell goes on in the next line."""
        (header,) = islice(self._joined(lines(file, header.place)), 1)
        self.columns: tuple[str, ...] = ()
        try:
            self.columns = tuple(cell.strip() for cell in self._cells(header))
        except ValueError as error:
            raise DatasetError(f"{name}, line {header.place.line}: {error}; it must name the columns") from None
        twice = {column for column in self.columns if self.columns.count(column) > 1}
        if twice:
            raise DatasetError(f"{name}: two columns have the name {', '.join(map(repr, sorted(twice)))}")
        self._first = Place(file.tell(), header.place.line + header.data.count(b"\n"))

    def records(self, file: BinaryIO, start: Place | None = None) -> Iterator[Record]:
        """Its rows, blank lines too, from the one that begins at `start`; left out: the first one."""
        return self._joined(lines(file, start or self._first))

    def row(self, record: Record) -> dict[str, str]:
        """Its cells by column. Raises ValueError."""
        cells = self._cells(record)
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells, where there are {len(self.columns)} columns")
        return dict(zip(self.columns, cells, strict=True))

    def _cells(self, record: Record) -> list[str]:
        if record.wrong:
            raise ValueError(record.wrong)
        try:
            text = record.data.decode()
            return next(csv.reader([text], delimiter=self._delimiter, strict=True))
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 ({error.reason} at byte {error.start})") from None
        except csv.Error as error:
            raise ValueError(f"not CSV: {error}") from None

    def _joined(self, found: Iterator[Record]) -> Iterator[Record]:
        """Lines that are one row, for a quoted cell goes on in the next."""
        for record in found:
            if b'"' not in record.data or not self._open_after(record.data, False):
                yield record
                continue
            parts, size, wrong = [record.data], len(record.data), _NOT_CLOSED
            for more in found:
                size += len(more.data)
                if more.wrong or size > MOST_RECORD_BYTES:
                    break
                parts.append(more.data)
                if b'"' in more.data and not self._open_after(more.data, True):
                    wrong = ""
                    break
            yield Record(record.place, b"" if wrong else b"".join(parts), wrong)

    def _open_after(self, line: bytes, is_open: bool) -> bool:
        """Whether a quoted cell goes on after this line; `is_open`: one did before it."""
        place = 0
        if is_open:
            closed = _REST_OF_CELL.match(line)
            if closed is None:
                return True
            place = closed.end()
        closings = self._cell.findall(line, place)
        return bool(closings) and not closings[-1]
