"""A file of prompts and conversations, read as it is needed: it may be larger than the memory.

Its records are dealt out to the workers one after another, so that together they ask what one process would ask. A
format is how records are found in a file, and how one is read: another is another entry of `FORMATS`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from tokenswarm.errors import DatasetError
from tokenswarm.protocols.base import Message
from tokenswarm.workload import arrays
from tokenswarm.workload.lines import read_line, read_text
from tokenswarm.workload.prompts import Prompt

MOST_RECORD_BYTES: Final = 16 * 1024 * 1024
"""A longer line is a bad one, and is never held in memory."""
_TOO_LONG: Final = f"longer than {MOST_RECORD_BYTES:,} bytes"
MOST_BAD_AT_FIRST: Final = 1000
"""So many bad records before the first good one, and it is another kind of file."""
MOST_NAMED: Final = 5
_BOM: Final = b"\xef\xbb\xbf"


_log = logging.getLogger("tokenswarm")


class Record(NamedTuple):
    """One record as it stands in the file, and the number of its (first) line; or what is wrong with it."""

    line: int
    data: bytes
    wrong: str = ""


class Format(NamedTuple):
    """`records` finds them, blank ones left out; `read` makes a prompt of one, or raises ValueError."""

    records: Callable[[BinaryIO], Iterator[Record]]
    read: Callable[[bytes, str], Prompt]


def lines(file: BinaryIO) -> Iterator[Record]:
    """One record a line."""
    number = 0
    while line := file.readline(MOST_RECORD_BYTES + 1):
        number += 1
        if len(line) > MOST_RECORD_BYTES and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(MOST_RECORD_BYTES)
            yield Record(number, b"", _TOO_LONG)
            continue
        data = line.removeprefix(_BOM) if number == 1 else line
        if data.strip():
            yield Record(number, data)


def json_records(file: BinaryIO) -> Iterator[Record]:
    """One record a line, or an element of the one array that the file is."""
    first = file.readline(MOST_RECORD_BYTES + 1)
    file.seek(0)
    if not arrays.begins(first):
        return lines(file)
    return (Record(*found) for found in arrays.elements(file, MOST_RECORD_BYTES))


FORMATS: Final = {".txt": Format(lines, read_text), ".json": Format(json_records, read_line)}
"""By the file's ending."""
USUAL: Final = Format(lines, read_line)
NOT_YET: Final = (".csv", ".tsv", ".parquet", ".gz", ".zip", ".zst", ".xz", ".bz2")


class Dataset:
    """An endless stream of a file's prompts, in its order: at its end it begins anew.

    Workers 0 to `workers` − 1 deal the records out; one with a higher number, which came later, takes all of them.
    Bad records are left out, and told to `tell` by `close`; `strict`: the first one is an error. Raises DatasetError
    where there is nothing to ask.
    """

    def __init__(
        self,
        path: str,
        *,
        worker: int,
        workers: int = 1,
        system_prompt: str | None = None,
        strict: bool = False,
        tell: Callable[[str], None],
    ) -> None:
        self._name = Path(path).name
        suffix = Path(path).suffix.lower()
        if suffix in NOT_YET:
            raise DatasetError(f"--dataset {path}: {suffix} files are not read; give lines of text or of JSON")
        self._format = FORMATS.get(suffix, USUAL)
        try:
            self._file = open(path, "rb", buffering=1024 * 1024)  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise DatasetError(f"--dataset {path}: {error.strerror}") from None
        self._system: Message | None = {"role": "system", "content": system_prompt} if system_prompt else None
        self._hand, self._hands = (worker, workers) if worker < workers else (0, 1)
        self._strict = strict
        self._tell = tell
        self._bad: list[str] = []
        self._bad_count = 0
        self._dealt = 0
        """Records of all rounds so far, whoever had them."""
        self._round = 0
        self._records = self._format.records(self._file)
        self._check()

    def next(self) -> Prompt:
        """The next prompt. Raises DatasetError on a bad record, if `strict`, and where no good one is left."""
        fruitless = 0
        while True:
            for record in self._records:
                mine = self._dealt % self._hands == self._hand
                self._dealt += 1
                if mine and (prompt := self._read(record)) is not None:
                    return prompt
            self._rewind()
            self._round += 1
            fruitless += 1
            if fruitless <= self._hands:
                continue
            if self._hands == 1:  # somebody has changed it since it was opened
                raise DatasetError(f"--dataset: nothing in {self._name} can be used any more")
            self._hand, self._hands, fruitless = 0, 1, 0  # every good record is always somebody else's

    def close(self) -> None:
        """As `Source` has it; now it is told how many records were left out, and which."""
        self._file.close()
        if self._bad_count:
            named = "; ".join(self._bad)
            more = f"; and {self._bad_count - len(self._bad):,} more" if self._bad_count > len(self._bad) else ""
            self._tell(f"Bad lines of the dataset that were left out: {self._bad_count:,}. {named}{more}")

    def _check(self) -> None:
        """Raises DatasetError if there is no good record."""
        bad, first = 0, ""
        for record in self._records:
            try:
                self._parse(record)
                break
            except ValueError as error:
                if self._strict:
                    raise DatasetError(f"--dataset {error}") from None
                first = first or str(error)
                bad += 1
                if bad == MOST_BAD_AT_FIRST:
                    raise DatasetError(f"--dataset: none of the first {bad:,} lines can be used. {first}") from None
        else:
            raise DatasetError(f"--dataset: nothing in {self._name} can be used. {first or 'It is empty.'}")
        self._rewind()

    def _rewind(self) -> None:
        self._file.seek(0)
        self._records = self._format.records(self._file)

    def _read(self, record: Record) -> Prompt | None:
        try:
            prompt = self._parse(record)
        except ValueError as error:
            if self._strict:
                raise DatasetError(f"--dataset {error} (--dataset-errors fail)") from None
            if self._round == 0:  # later they are met again, by whoever has their turn
                self._bad_count += 1
                if len(self._bad) < MOST_NAMED:
                    self._bad.append(str(error))
                    _log.warning("A bad line is left out: %s", error)
            return None
        if self._system is None or prompt.messages[0]["role"] == "system":
            return prompt
        return msgspec.structs.replace(prompt, messages=(self._system, *prompt.messages))

    def _parse(self, record: Record) -> Prompt:
        """Raises ValueError, with file and line."""
        try:
            if record.wrong:
                raise ValueError(record.wrong)
            return self._format.read(record.data, str(record.line))
        except ValueError as error:
            raise ValueError(f"{self._name}, line {record.line}: {error}") from None
