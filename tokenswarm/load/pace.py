"""When one task's next request is due: the schedule, or the end of the request before and what its user did since; not
the time that we took to turn round. Reads no clock: instants are CLOCK_MONOTONIC nanoseconds, `now` is given.
"""

from __future__ import annotations

from tokenswarm.workload.traces import TraceEntry


class Pace:
    """Of one user in the closed loop, where its tasks follow one another; of one task in the open loop."""

    def __init__(self) -> None:
        self.begins = True
        """Whether the next request is a task's first."""
        self.entry: TraceEntry | None = None
        """What the task is to send, where a trace says so and nobody has asked yet."""
        self.at_work = False
        """Whether a task is on that has sent something, or is about to."""
        self.holding = False
        """Whether it is a task that waits, and then goes on."""
        self._late = 0
        """What we are late by, so far."""
        self._due: int | None = None
        """When the next request is due if its user does nothing of its own first."""
        self._at_once = False

    def woken(self, due: int, now: int) -> None:
        """A wait is over that should have ended at `due`, and a task or a turn begins."""
        self._late += now - due
        self._due = now - self._late
        self._at_once = False
        self.begins = True

    def send_at_once(self) -> None:
        """Nothing of a user's own has happened since the wait was over, or will until the request."""
        self._at_once = True

    def intended(self, now: int) -> int:
        """When the request that starts now was due."""
        due = self._due if self._at_once and self._due is not None else now - self._late
        self._late, self._due, self._at_once, self.begins = 0, None, False, False
        return due

    def ended(self, end: int, now: int) -> None:
        """A request has ended on the wire at `end`; its user learns of it now."""
        self._late = now - end
