"""Tables: files of CSV or TSV, whose first line names the columns. A quoted cell may go over several lines."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import BinaryIO, Final

from tokenswarm.workload.records import BEGINNING, BOM, MOST_RECORD_BYTES, TOO_LONG, Place, Record

SUFFIXES: Final = (".csv", ".tsv")
_DELIMITERS: Final = (b",", b";", b"\t")
_READ_BYTES: Final = 32 * 1024
_NOT_CLOSED: Final = "a quotation mark opens a cell in this line, and none closes it"

csv.field_size_limit(MOST_RECORD_BYTES)  # else 128 KiB; the module knows no other way


class Table:
    """The columns of a table, its records and the cells of each. `name` is for messages.

    Raises ValueError if the first line cannot be one of column names.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        beginning = Place(len(BOM), 1) if file.read(len(BOM)) == BOM else BEGINNING
        file.seek(beginning.offset)
        first_line = file.readline(MOST_RECORD_BYTES)
        self._delimiter = max(_DELIMITERS, key=first_line.count)
        cell = rb'(?:"(?:[^"]++|"")*+"[^%b\n]*+|[^"%b\n][^%b\n]*+)?+'.replace(b"%b", self._delimiter)
        self._record = re.compile(cell + b"(?:" + self._delimiter + cell + rb")*+\n")
        header = next((record for record in self.records(file, beginning) if not record.blank), None)
        if header is None:
            raise ValueError(f"nothing in {name} can be used. It is empty.")
        place = header.place
        try:
            self.columns = tuple(cell.strip() for cell in self._cells(header))
        except ValueError as error:
            raise ValueError(f"{name}, line {place.line}: {error}; it must name the columns") from None
        twice = {column for column in self.columns if self.columns.count(column) > 1}
        if twice:
            raise ValueError(f"{name}: two columns have the name {', '.join(map(repr, sorted(twice)))}")
        self.first = Place(place.offset + len(header.data), place.line + header.data.count(b"\n"))
        """Where the first row is."""

    def records(self, file: BinaryIO, start: Place) -> Iterator[Record]:
        """Its rows, blank lines too, from the one that begins at `start`."""
        offset, line = start
        file.seek(offset)
        rest = b""
        while True:
            # As much again as there is, so that a long row is not read over and over.
            more = file.read(max(_READ_BYTES, len(rest)))
            block = rest + (more or (b"\n" if rest and not rest.endswith(b"\n") else b""))
            begin = 0
            while end := self._end(block, begin):
                data = block[begin:end]
                yield Record(Place(offset + begin, line), data)
                line += data.count(b"\n")
                begin = end
            offset, rest = offset + begin, block[begin:]
            if not more and not rest:
                return
            if not more or len(rest) > MOST_RECORD_BYTES:  # this line is given up, and the next one may be better
                end = rest.find(b"\n") + 1
                yield Record(Place(offset, line), b"", _NOT_CLOSED if end else TOO_LONG)
                offset, line, rest = offset + (end or len(rest)), line + 1, rest[end:] if end else b""
                while not end and (more := file.readline(MOST_RECORD_BYTES)):
                    offset += len(more)
                    end = more.endswith(b"\n")

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
            return next(csv.reader([text], delimiter=self._delimiter.decode(), strict=True))
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 ({error.reason} at byte {error.start})") from None
        except csv.Error as error:
            raise ValueError(f"not CSV: {error}") from None

    def _end(self, block: bytes, begin: int) -> int:
        """Where the row that begins there ends; 0: not in this block."""
        newline = block.find(b"\n", begin)
        if newline < 0 or block.find(b'"', begin, newline) < 0:
            return newline + 1
        row = self._record.match(block, begin)
        return row.end() if row else 0
