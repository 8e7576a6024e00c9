"""Traces: files that say when requests came, and how long they and their replies were. Read as needed, in their order.

    with Trace("mooncake.jsonl", tell=print) as trace:
        for entry in trace:
            ...  # entry.at, entry.prompt, entry.input_tokens, entry.output_tokens, entry.hash_ids

Four kinds, told apart by their columns: Mooncake's JSONL, BurstGPT's and Azure's CSV, and our own, which may be either.
Not here: when anything is sent, and what is sent for an entry that has lengths and no text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

import msgspec

from tokenswarm.errors import DatasetError
from tokenswarm.workload.left_out import MOST_BAD_AT_FIRST, LeftOut
from tokenswarm.workload.lines import COLUMNS, length, listed, read_fields, read_row
from tokenswarm.workload.prompts import Prompt
from tokenswarm.workload.records import Record, lines
from tokenswarm.workload.tables import SUFFIXES, Table

HASH_BLOCK_TOKENS: Final = 512
"""Tokens of the prompt that one of Mooncake's hash ids stands for."""
TOLERATED_BACK_SECONDS: Final = 1.0
"""Servers that write one log are not quite in order: who is behind by less came together with the one before."""


_LATEST: Final = 1e15
"""No time of any unit is later, and an infinite one is none."""


class TraceEntry(msgspec.Struct, frozen=True):
    """One request of a trace."""

    at: float
    """Seconds since the first entry; never less than the entry before."""
    prompt: Prompt | None = None
    """Where the trace has a text. Its id is the line's number, and it has the lengths too."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    hash_ids: tuple[int, ...] = ()
    """Of its prompt's blocks of `HASH_BLOCK_TOKENS`: equal ids at the beginning are an equal beginning."""
    line: int = 0
    """Of the file, counted from 1."""


class _Kind(NamedTuple):
    """The columns of one kind of trace, and how many seconds one of its time is; a time may be a date too."""

    name: str
    time: str
    input: str
    output: str
    seconds: float = 1.0


_OURS: Final = _Kind("ours", "timestamp", "input_tokens", "output_tokens")
_KINDS: Final = (
    _Kind("Mooncake", "timestamp", "input_length", "output_length", 1e-3),
    _Kind("BurstGPT", "Timestamp", "Request tokens", "Response tokens"),
    _Kind("Azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens"),
)


class Trace:
    """The entries of a trace file, one after another; iterate once, then `close`.

    A bad line is left out, and `close` tells `tell` how many were; `strict`: the first one is an error. Raises
    DatasetError, here where the file cannot be read or is no trace, and while it is iterated where `strict` says so
    or a line's time is before the one above it.
    """

    def __init__(self, path: str, *, strict: bool = False, tell: Callable[[str], None]) -> None:
        self._name = Path(path).name
        self._left_out = LeftOut("trace", "the trace", strict, tell)
        self._first: float | None = None
        self._at = 0.0
        self._kind: _Kind | None = None
        try:
            self._file = open(path, "rb")  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise DatasetError(f"the trace {path}: {error.strerror}") from None
        try:
            self._table = self._open_table() if Path(path).suffix.lower() in SUFFIXES else None
            self._entries = self._read()
            self._head = next(self._entries, None)  # so that what is no trace is said before any load
        except DatasetError:
            self._file.close()
            raise

    def __iter__(self) -> Iterator[TraceEntry]:
        return self

    def __next__(self) -> TraceEntry:
        entry, self._head = self._head, None
        return next(self._entries) if entry is None else entry

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing more is read; now it is told what was left out."""
        self._entries.close()
        self._file.close()
        self._left_out.close()

    def _open_table(self) -> Table:
        try:
            table = Table(self._file, self._name)
        except ValueError as error:
            raise DatasetError(f"the trace: {error}") from None
        try:
            self._kind = _kind_of(table.columns)
        except ValueError as error:
            raise DatasetError(f"the trace {self._name}: {error}") from None
        return table

    def _read(self) -> Generator[TraceEntry]:
        bad, first = 0, ""
        table, file = self._table, self._file
        for record in lines(file) if table is None else table.records(file, table.first):
            if record.blank:
                continue
            try:
                yield self._entry(record)
            except ValueError as error:
                wrong = f"{self._name}, line {record.place.line}: {error}"
                self._left_out.add(wrong)
                bad, first = bad + 1, first or wrong
                if self._first is None and bad == MOST_BAD_AT_FIRST:
                    raise DatasetError(f"the trace: none of its first {bad:,} lines can be used. {first}") from None
        if self._first is None:
            raise DatasetError(f"the trace: nothing in {self._name} can be used. {first or 'It is empty.'}")

    def _entry(self, record: Record) -> TraceEntry:
        """Raises ValueError for this line, and DatasetError where the file is not in order."""
        line = record.place.line
        fields = self._fields(record)
        if self._kind is None:
            self._kind = _kind_of(fields)
        kind = self._kind
        time = _seconds(fields.get(kind.time), kind)
        input_tokens = length(fields.get(kind.input), kind.input)
        if str(fields.get(kind.output)) == "0":
            raise ValueError(f"{kind.output} is 0: this request failed when it was recorded")
        output_tokens = length(fields.get(kind.output), kind.output)
        hash_ids = _hash_ids(fields.get("hash_ids"))
        prompt = self._prompt(fields, str(line))
        if prompt is not None:
            output_tokens = output_tokens or prompt.output_tokens
            prompt = msgspec.structs.replace(prompt, input_tokens=input_tokens, output_tokens=output_tokens)
        return TraceEntry(self._since_first(time, line), prompt, input_tokens, output_tokens, hash_ids, line)

    def _fields(self, record: Record) -> Mapping[str, Any]:
        if self._table is not None:
            return self._table.row(record)
        if record.wrong:
            raise ValueError(record.wrong)
        try:
            value = msgspec.json.decode(record.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"not JSON: {error}") from None
        if not isinstance(value, dict):
            raise ValueError("no JSON object")
        return value

    def _prompt(self, fields: Mapping[str, Any], identity: str) -> Prompt | None:
        """What it asks, if there is a text."""
        column = next((name for name in COLUMNS if fields.get(name)), None)
        if column is None:
            return None
        return (read_fields if self._table is None else read_row)(fields, identity, column)

    def _since_first(self, time: float, line: int) -> float:
        """Seconds. Raises DatasetError if time has gone back."""
        if self._first is None:
            self._first = time
        at = time - self._first
        if at < self._at - TOLERATED_BACK_SECONDS:
            raise DatasetError(
                f"the trace {self._name}, line {line}: {self._at - at:,.3f} s before the request above it; a trace is "
                "replayed in its own order: sort it by its time first"
            )
        self._at = max(self._at, at)
        return self._at


def _kind_of(columns: Collection[str]) -> _Kind:
    """Raises ValueError where there is no time."""
    found = next((kind for kind in _KINDS if kind.time in columns and kind.input in columns), None)
    if found is not None:
        return found
    if _OURS.time in columns:
        return _OURS
    known = "; ".join(f"{kind.time} and {kind.input} ({kind.name})" for kind in _KINDS)
    raise ValueError(f"no trace: there is neither {known}, nor a timestamp in seconds, but {listed(columns)}")


def _seconds(value: Any, kind: _Kind) -> float:
    """A time in the trace's unit, or a date and time, UTC if it does not say. Raises ValueError."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            try:
                when = datetime.fromisoformat(value.strip())
            except ValueError:
                raise ValueError(f"{kind.time} is {value[:40]!r}, and neither a number nor a date and time") from None
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _LATEST:
        raise ValueError(f"{kind.time} is {str(value)[:40]}, and no number of a time")
    return value * kind.seconds


def _hash_ids(value: Any) -> tuple[int, ...]:
    """Raises ValueError."""
    if value is None or value == "":
        return ()
    try:
        return msgspec.convert(msgspec.json.decode(value) if isinstance(value, str) else value, tuple[int, ...])
    except msgspec.ValidationError as error:
        raise ValueError(f"hash_ids is no list of whole numbers: {error}") from None
    except msgspec.DecodeError as error:
        raise ValueError(f"hash_ids is not JSON: {error}") from None
