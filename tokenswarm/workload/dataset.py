"""A file of prompts and conversations, read as it is needed: it may be larger than the memory.

Its records are dealt out to the workers, so that together they ask what one process would ask.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from tokenswarm.errors import DatasetError
from tokenswarm.protocols.base import Message
from tokenswarm.workload.formats import Format, format_of
from tokenswarm.workload.index import Index, spacing
from tokenswarm.workload.left_out import MOST_BAD_AT_FIRST, LeftOut
from tokenswarm.workload.order import SAMPLED, SEQUENTIAL, Share
from tokenswarm.workload.prompts import Exhausted, Prompt
from tokenswarm.workload.records import Record

_READ_BYTES: Final = 1024 * 1024
_READ_AT_MARK_BYTES: Final = 16 * 1024
_FRUITLESS_DRAWS: Final = 64
"""Times the file's length: by chance a good record is missed that often once in 10^27."""


class Contents:
    """A file that was looked into before the load: its format and, for any order but the file's own, where its records
    are. Raises DatasetError where it cannot be read, where nothing in it can be used, and on a bad record if `strict`.
    """

    def __init__(self, path: str, *, column: str | None = None, order: str = SEQUENTIAL, strict: bool = False) -> None:
        self.path = path
        self.name = Path(path).name
        self.order = order
        self.index: Index | None = None
        self._seen = self._state()
        with self.open() as file:
            self.format: Format = format_of(file, self.name, Path(path).suffix.lower(), column)
            self._check(file, strict)
            if order != SEQUENTIAL:
                self.index = Index(self.format.marks(file, spacing(self._seen[1])))

    def open(self) -> BinaryIO:
        """The file, from its beginning. Raises DatasetError."""
        try:
            return open(self.path, "rb", buffering=_READ_BYTES if self.index is None else _READ_AT_MARK_BYTES)
        except OSError as error:
            raise DatasetError(f"--dataset {self.path}: {error.strerror}") from None

    def changed(self) -> bool:
        """Whether the file is another one than the one that was looked into."""
        return self._state() != self._seen

    def read(self, record: Record) -> Prompt:
        """What a record asks. Raises ValueError, with file and line."""
        try:
            if record.wrong:
                raise ValueError(record.wrong)
            return self.format.read(record, str(record.place.line))
        except ValueError as error:
            raise ValueError(f"{self.name}, line {record.place.line}: {error}") from None

    def _state(self) -> tuple[int, int, int]:
        """Of the file as it is: inode, size in bytes, last change in ns. Raises DatasetError."""
        try:
            state = os.stat(self.path)
        except OSError as error:
            raise DatasetError(f"--dataset {self.path}: {error.strerror}") from None
        return state.st_ino, state.st_size, state.st_mtime_ns

    def _check(self, file: BinaryIO, strict: bool) -> None:
        """Raises DatasetError if there is no good record."""
        bad, first = 0, ""
        for record in self.format.records(file, self.format.first):
            if record.blank:
                continue
            try:
                self.read(record)
                return
            except ValueError as error:
                if strict:
                    raise DatasetError(f"--dataset {error}") from None
                bad, first = bad + 1, first or str(error)
                if bad == MOST_BAD_AT_FIRST:
                    raise DatasetError(f"--dataset: none of the first {bad:,} lines can be used. {first}") from None
        raise DatasetError(f"--dataset: nothing in {self.name} can be used. {first or 'It is empty.'}")


class Dataset:
    """A stream of a file's prompts, round after round in the order that its contents are for; `once`: one round.

    Workers 0 to `workers` − 1 deal the records out; one with a higher number, which came later, takes all of them, or
    none where each is asked once. Another `stream` has other orders by the same seed. Bad records are left out, and
    told to `tell` by `close`; `strict`: the first one is an error. Raises DatasetError where the file cannot be opened
    any more.
    """

    def __init__(
        self,
        contents: Contents,
        *,
        worker: int,
        workers: int = 1,
        seed: int = 0,
        stream: str = "",
        once: bool = False,
        system_prompt: str | None = None,
        strict: bool = False,
        tell: Callable[[str], None],
    ) -> None:
        self._contents = contents
        self._file = contents.open()
        self._seed, self._stream = seed, stream
        self._once, self._strict = once, strict
        self._system: Message | None = {"role": "system", "content": system_prompt} if system_prompt else None
        self._sampled = contents.order == SAMPLED
        told = "dataset (counted at each draw)" if self._sampled else "dataset"
        self._left_out = LeftOut(told, "--dataset", strict, tell)
        self._dealt = self._round = 0
        self._sit(worker, workers)
        self._records = iter(()) if once and worker >= workers else self._next_round()

    def next(self) -> Prompt:
        """The next prompt.

        Raises Exhausted where each was asked once, DatasetError on a bad record, if `strict`, and where no good one is
        left.
        """
        fruitless = 0
        while True:
            for record in self._records:
                if not record.blank and (prompt := self._read(record)) is not None:
                    return prompt
            if self._once:
                raise Exhausted(f"every prompt of {self._contents.name} has been asked once (--dataset-once)")
            self._round += 1
            fruitless += 1
            if fruitless > self._hands * (_FRUITLESS_DRAWS if self._sampled else 1):
                if self._hands == 1:  # somebody has changed it since it was opened
                    raise DatasetError(f"--dataset: nothing in {self._contents.name} can be used any more")
                self._sit(0, 1)  # every good record is always somebody else's
                fruitless = 0
            self._records = self._next_round()

    def close(self) -> None:
        """As `Source` has it; now it is told how many records were left out, and which."""
        self._file.close()
        self._left_out.close()

    def _sit(self, worker: int, workers: int) -> None:
        """Which of the records are this worker's."""
        self._hand, self._hands = (worker, workers) if worker < workers else (0, 1)
        contents = self._contents
        self._share = (
            None
            if contents.index is None
            else Share(
                contents.order,
                len(contents.index),
                seed=self._seed,
                stream=self._stream,
                worker=worker,
                workers=workers,
            )
        )

    def _next_round(self) -> Iterator[Record]:
        """This worker's records of the next round."""
        index = self._contents.index
        if self._share is None or index is None:
            return self._in_passing()
        return map(partial(index.record, file=self._file, records=self._contents.format.records), self._share.round())

    def _in_passing(self) -> Iterator[Record]:
        """This worker's, while the whole file goes by."""
        form = self._contents.format
        for record in form.records(self._file, form.first):
            if record.blank:
                continue
            mine = self._dealt % self._hands == self._hand
            self._dealt += 1
            if mine:
                yield record

    def _read(self, record: Record) -> Prompt | None:
        try:
            prompt = self._contents.read(record)
        except ValueError as error:
            if self._round == 0 or self._sampled or self._strict:  # else met again, by whoever has their turn
                self._left_out.add(str(error))
            return None
        if self._system is None or prompt.messages[0]["role"] == "system":
            return prompt
        return msgspec.structs.replace(prompt, messages=(self._system, *prompt.messages))
