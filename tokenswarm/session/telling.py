"""What the workers are told of the load's steps: each its own part, and again until it has heard. Knows no Locust."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from tokenswarm.recording.ledger import Seat
from tokenswarm.recording.messages import Step

HEARD_SECONDS: Final = 3.0
"""A worker whose reports do not know of a step for so long is told again: the message was lost."""


@dataclass
class _Told:
    step: Step
    at: float


class Telling:
    """Of one master. Clients are those that are there, by Locust's id, each with its number of users."""

    def __init__(self, send: Callable[[str, Step], None], clients: Callable[[], Mapping[str, int]]) -> None:
        """`send` may lose what it is given, and does not raise."""
        self._send = send
        self._clients = clients
        self._everybody: dict[str, tuple[int, int]] = {}
        """As `_parts` were when all were last told."""
        self._told: dict[str, _Told] = {}

    def tell(self, step: Step, seats: Iterable[Seat], now: float, only: str = "") -> None:
        """All who are there, or the one that has just taken its seat. `now` in seconds of any clock."""
        parts = self._parts(seats)
        if not only:
            self._everybody = parts
        for client in parts.keys() & {only} if only else parts:
            before, own = parts[client]
            self._tell(client, msgspec.structs.replace(step, before=before, own=own), now)

    def is_outdated(self, seats: Iterable[Seat]) -> bool:
        """Whether users came, went or moved since all were told, be it slowly, when their tasks let them."""
        return self._parts(seats) != self._everybody

    def repeat(self, run: str, seats: Iterable[Seat], now: float) -> None:
        """Those who have reported since, and do not know of the step that they were told of."""
        clients = self._clients()
        for seat in seats:
            client = seat.worker.client_id
            told = self._told.get(client)
            if told is None or told.step.run != run or client not in clients or not seat.worker.batches:
                continue
            if seat.step < told.step.serial and now > told.at + HEARD_SECONDS:
                self._tell(client, told.step, now)

    def _tell(self, client: str, step: Step, now: float) -> None:
        self._told[client] = _Told(step, now)
        self._send(client, step)

    def _parts(self, seats: Iterable[Seat]) -> dict[str, tuple[int, int]]:
        """Of each worker that is there: users of the workers in the seats before its own, and its own, as far as they
        have told."""
        clients, found, before = self._clients(), dict[str, tuple[int, int]](), 0
        for seat in seats:
            client = seat.worker.client_id
            if client in clients and client not in found:
                found[client] = before, clients[client]
                before += clients[client]
        return found
