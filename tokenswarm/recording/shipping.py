"""The worker's end of the way to the master: what was not confirmed is kept, sent again, and at last written here.

Not here: what is in a batch, and what the master does with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tokenswarm.errors import RunDirectoryError
from tokenswarm.record import csv_header
from tokenswarm.recording import directory
from tokenswarm.recording.directory import INTERVALS, REQUESTS, RESPONSES
from tokenswarm.recording.messages import Batch, Done, Message, encode, kind

RESEND_SECONDS: Final = 5.0


class Shipper:
    """Sends batches in order and holds each until the master has confirmed it."""

    def __init__(self, worker: int, send: Callable[[str, bytes], None]) -> None:
        """`send` takes a message's type and its one bytes value; whether that arrives is what we find out."""
        self.worker = worker
        self._send = send
        self._held: dict[int, tuple[Message, float]] = {}

    @property
    def delivered(self) -> bool:
        """Whether the master has confirmed everything."""
        return not self._held

    def ship(self, batch: Batch) -> None:
        """Send a batch."""
        self._ship(batch.seq, batch)

    def done(self, message: Done) -> None:
        """Say that there will be no more."""
        self._ship(message.batches, message)

    def taken(self, seq: int) -> None:
        """The master has it."""
        self._held.pop(seq, None)

    def send_again(self) -> None:
        """What was sent long ago and not confirmed: a connection that broke may have lost what was on its way."""
        due = time.monotonic() - RESEND_SECONDS
        for seq, (message, sent) in list(self._held.items()):
            if sent <= due:
                self._ship(seq, message)

    def rescue(self, wanted: Path) -> tuple[Path, int] | None:
        """Write what the master never confirmed into a run directory here. (where, rows), or None if nothing is held.

        Raises RunDirectoryError if that fails.
        """
        batches = [message for message, _ in self._held.values() if isinstance(message, Batch)]
        self._held.clear()
        if not batches:
            return None
        place = directory.create(str(wanted), None, time.time())
        names = (REQUESTS, INTERVALS, RESPONSES if any(batch.responses for batch in batches) else None)
        place.open(*names)
        place.append(REQUESTS, csv_header().encode())
        for batch in batches:
            place.append(REQUESTS, batch.rows)
            place.append(INTERVALS, batch.interval)
            if batch.responses:
                place.append(RESPONSES, batch.responses)
        _, losses = place.close()
        if losses:
            raise RunDirectoryError(" ".join(losses))
        return place.path, sum(batch.row_count for batch in batches)

    def _ship(self, seq: int, message: Message) -> None:
        data = encode(message)
        self._held[seq] = message, time.monotonic()
        self._send(kind(message), data)
