"""Who takes part in a run and what has come of each worker: seats, numbered batches, gaps, last words. Does no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from tokenswarm.errors import MessageError
from tokenswarm.recording.messages import Batch, Done, Totals

RUNNING: Final = "running"
FINISHED: Final = "finished"
LATE: Final = "late"
LOST: Final = "lost"

FARTHEST_AHEAD: Final = 100_000
"""A batch numbered so far past the last one is nonsense: more than a day of silence."""


class Worker(msgspec.Struct, kw_only=True):
    """One seat, as run.json tells of it. Times are UTC epoch seconds on the master's clock."""

    index: int
    hostname: str = ""
    pid: int = 0
    client_id: str = ""
    """Locust's name for it; empty in a run without workers."""
    clock: str = "user"
    """Whose clock stamps its arrivals: `kernel` or `user`."""
    clock_offset_ms: float = 0.0
    """Its wall clock − the master's, at its last report. Its times in the run directory are corrected by this."""
    clock_uncertainty_ms: float = 0.0
    """The largest of the run."""
    joined: float = 0.0
    last_report: float | None = None
    batches: int = 0
    missing_batches: int = 0
    rows: int = 0
    in_flight: int = 0
    """Requests without a row as of its last report."""
    status: str = RUNNING
    """`finished`; `late`: its last report came when nobody waited any more; `lost`: it never came."""


class Seat:
    """A worker and the bookkeeping of its batches."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.totals = Totals()
        self.exceptions: dict[str, int] = {}
        self.heard = 0.0
        """When anything came from it, on whatever clock the caller uses."""
        self.ready = False
        """Whether its users run."""
        self.said_to_be_silent = False
        self.users = 0
        self.through = ""
        self.drained = False
        self.step = -1
        """As its last batch has them."""
        self.pid_here: int | None = None
        """Its process, if that is one of this machine."""
        self._next = 0
        self._missing: set[int] = set()
        self._announced: int | None = None

    @property
    def complete(self) -> bool:
        """Whether its last batch is here and none is missing."""
        return self._announced is not None and self._next >= self._announced and not self._missing

    @property
    def missing(self) -> int:
        """Batches that must exist and are not here."""
        return len(self._missing) + max(0, (self._announced or 0) - self._next)

    def take(self, batch: Batch) -> bool:
        """Count a batch; False if it was here before. Raises MessageError on a number that cannot be."""
        if batch.seq < self._next and batch.seq not in self._missing:
            return False
        if batch.seq > self._next + FARTHEST_AHEAD:
            raise MessageError(f"its number {batch.seq} is far past {self._next}, the next one")
        self._missing.update(range(self._next, batch.seq))
        self._missing.discard(batch.seq)
        worker = self.worker
        if batch.seq >= self._next:
            self._next = batch.seq + 1
            self.totals, self.exceptions = batch.totals, batch.exceptions
            worker.in_flight = batch.in_flight
            self.users, self.through, self.drained = batch.users, batch.through, batch.drained
            self.step = batch.step
            worker.clock_offset_ms = batch.offset_ns / 1e6
        worker.clock_uncertainty_ms = max(worker.clock_uncertainty_ms, batch.uncertainty_ns / 1e6)
        worker.batches += 1
        worker.rows += batch.row_count
        worker.missing_batches = self.missing
        return True

    def done(self, message: Done) -> None:
        """Its load has ended. Raises MessageError if it claims fewer batches than came, or absurdly many."""
        if not self._next <= message.batches <= self._next + FARTHEST_AHEAD:
            raise MessageError(f"it says that it sent {message.batches} batches, and {self._next} are here")
        self._announced = message.batches
        self.worker.missing_batches = self.missing


class Ledger:
    """The seats of a run, by index and by Locust's client id."""

    def __init__(self, expected: list[str]) -> None:
        """`expected`: the workers that are there at the start, in order of their seats."""
        self.expected = len(expected)
        self._order = {client_id: index for index, client_id in enumerate(expected)}
        self._seats: dict[int, Seat] = {}

    def __iter__(self) -> Iterator[Seat]:
        return iter(sorted(self._seats.values(), key=lambda seat: seat.worker.index))

    def __len__(self) -> int:
        return len(self._seats)

    def join(self, client_id: str, **known: Any) -> Seat:
        """Give a worker its seat: the one kept for it, or the next one after all those. One that asks again before it
        has sent anything keeps it."""
        mine = [seat.worker.index for seat in self._seats.values() if seat.worker.client_id == client_id]
        index = mine[-1] if mine else self._order.get(client_id, -1)
        if index < 0 or (index in self._seats and self._seats[index].worker.batches):
            index = max(self.expected, *(seat + 1 for seat in self._seats), 0)
        seat = self._seats[index] = Seat(Worker(index=index, client_id=client_id, **known))
        return seat

    def seat(self, index: int, client_id: str) -> Seat:
        """The seat of that number. Raises MessageError if it is not this client's."""
        seat = self._seats.get(index)
        if seat is None or seat.worker.client_id != client_id:
            raise MessageError(f"it claims to be worker {index}, and that is not who sent it")
        return seat

    def absent(self) -> list[str]:
        """Clients that were there at the start and never took their seat."""
        return [client_id for client_id, index in self._order.items() if index not in self._seats]

    def through(self, gone: Callable[[Seat], bool], spawned: bool) -> tuple[str, list[Seat]]:
        """Why nobody has anything more to send, with nothing in flight, and empty while somebody has; and who never
        had users, though there would have been something to send.

        `gone`: whether nothing is to be expected from that seat. `spawned`: all users that were asked for are there, so
        that whoever has none gets none.
        """
        ended = [seat for seat in self if seat.drained]
        if not ended:  # as nearly always: then nobody need be looked for
            return "", []
        here = [seat for seat in self if not gone(seat)]
        at_work = [seat for seat in here if not seat.drained]
        idle = [
            seat for seat in at_work if spawned and seat.worker.batches and not seat.users and not seat.totals.started
        ]
        if len(at_work) > len(idle):
            return "", []
        return max(ended, key=lambda seat: seat.totals.started).through, idle

    def starting(self) -> bool:
        """Whether users of a worker do not run yet."""
        return bool(self.absent()) or any(not (seat.ready or seat.complete) for seat in self)

    def totals(self) -> Totals:
        """Of all workers together."""
        return sum((seat.totals for seat in self._seats.values()), Totals())

    def in_flight(self) -> int:
        """Requests in flight, as of each worker's last report."""
        return sum(seat.worker.in_flight for seat in self._seats.values())

    def exceptions(self) -> dict[str, int]:
        """What the locustfile's own code raised, and how often, the most frequent first."""
        counts: dict[str, int] = {}
        for seat in self._seats.values():
            for text, count in seat.exceptions.items():
                counts[text] = counts.get(text, 0) + count
        return dict(sorted(counts.items(), key=lambda item: -item[1]))
