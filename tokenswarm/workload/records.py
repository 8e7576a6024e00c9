"""Records of a file as they stand in it, found without a look inside: here one a line. Tables: tables.py; arrays.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

MOST_RECORD_BYTES: Final = 16 * 1024 * 1024
"""A longer record is a bad one, and is never held in memory."""
TOO_LONG: Final = f"longer than {MOST_RECORD_BYTES:,} bytes"
BOM: Final = b"\xef\xbb\xbf"


class Place(NamedTuple):
    """Where a record begins: bytes from the file's beginning, and its line, counted from 1."""

    offset: int
    line: int


BEGINNING: Final = Place(0, 1)


class Record(NamedTuple):
    """One record, or what is wrong with it."""

    place: Place
    data: bytes
    wrong: str = ""

    @property
    def blank(self) -> bool:
        """Nothing stands there, and nobody misses it."""
        return not self.wrong and not self.data.strip()


def lines(file: BinaryIO, start: Place = BEGINNING) -> Iterator[Record]:
    """One record a line, blank ones too, from the line that begins at `start`."""
    offset, number = start
    file.seek(offset)
    while data := file.readline(MOST_RECORD_BYTES + 1):
        place = Place(offset, number)
        offset, number = offset + len(data), number + 1
        if len(data) > MOST_RECORD_BYTES and not data.endswith(b"\n"):
            while data and not data.endswith(b"\n"):
                data = file.readline(MOST_RECORD_BYTES)
                offset += len(data)
            yield Record(place, b"", TOO_LONG)
            continue
        yield Record(place, data.removeprefix(BOM) if place == BEGINNING else data)
