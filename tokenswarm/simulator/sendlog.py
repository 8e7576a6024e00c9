"""The send log: what the simulator really sent, and when. One JSON line a request, written when it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec


class SendRecord(msgspec.Struct, kw_only=True):
    """One request. Instants are nanoseconds of CLOCK_MONOTONIC; the lists run parallel, one entry an output event.

    An output event is one that carries text or reasoning (not role-only, empty, finish or usage ones). A reply
    that is not streamed has one entry.
    """

    id: str
    received_ns: int
    """When the request had been read completely."""
    stream: bool = False
    status: int = 200
    outcome: str = "cancelled"
    """`ok`, `cancelled` (by the client), `rejected` (4xx), or the kind of the fault."""
    input_tokens: int = 0
    output_tokens: int = 0
    """Tokens sent, which is what `usage` says if the reply is complete and no fault bends it."""
    sent_ns: list[int] = msgspec.field(default_factory=list)
    """Immediately before the send that completes the event."""
    done_ns: list[int] = msgspec.field(default_factory=list)
    """Immediately after it returned."""
    tokens: list[int] = msgspec.field(default_factory=list)
    chars: list[int] = msgspec.field(default_factory=list)
    reasoning: list[bool] = msgspec.field(default_factory=list)
    batched: list[int] = msgspec.field(default_factory=list)
    """Events, this one and any others, in the send that carried it."""
    inexact: list[int] = msgspec.field(default_factory=list)
    """Indices of the events whose real send came later than `done_ns`: the socket was full, or TLS is used."""
    end_ns: int | None = None
    """Immediately before the send of the end of the response; None if it was never sent."""


class SendLog:
    """Appends to a file, each line in one unbuffered write, so that it survives a kill. Raises OSError on opening."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._failed = False

    def write(self, record: SendRecord) -> None:
        line = memoryview(msgspec.json.encode(record) + b"\n")
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            if not self._failed:  # the load must go on, and one line of complaint is enough
                print(f"simulator: cannot write to {self._path}: {error.strerror}", file=sys.stderr)
            self._failed = True

    def close(self) -> None:
        os.close(self._file)
