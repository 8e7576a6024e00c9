"""Where each record of a large file is, in some megabytes however large it is: marks, and what is between is read."""

from __future__ import annotations

import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import BinaryIO, Final

from tokenswarm.errors import DatasetError
from tokenswarm.workload.records import Mark, Place, Record

LEAST_SPACING_BYTES: Final = 4 * 1024
MOST_MARKS: Final = 1 << 18
_MARKS_A_TURN: Final = 256


def spacing(size: int) -> int:
    """How far apart marks are in a file of `size` bytes."""
    return max(LEAST_SPACING_BYTES, size // MOST_MARKS)


class Index:
    """`len` is the number of records. Made of marks, the last of which has only that number."""

    def __init__(self, marks: Iterable[Mark]) -> None:
        self._offsets, self._lines, self._numbers = array("Q"), array("Q"), array("Q")
        for turn, mark in enumerate(marks):
            self._offsets.append(mark.place.offset)
            self._lines.append(mark.place.line)
            self._numbers.append(mark.number)
            if turn % _MARKS_A_TURN == 0:
                time.sleep(0)  # a large file takes seconds, and others have something to say meanwhile
        self._count = self._numbers.pop()

    def __len__(self) -> int:
        return self._count

    def record(self, number: int, file: BinaryIO, records: Callable[[BinaryIO, Place], Iterator[Record]]) -> Record:
        """The record of this number, from 0. Raises DatasetError if the file has become shorter."""
        mark = bisect_right(self._numbers, number) - 1
        place = Place(self._offsets[mark], self._lines[mark])
        for record in islice(records(file, place), number - self._numbers[mark], None):
            return record
        raise DatasetError(f"--dataset: record {number + 1:,} is not there any more: the file was changed meanwhile")
