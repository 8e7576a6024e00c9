"""One process's part of a run: what its users may still send, who waits for that, and when none of it is left.

Not here: how much that is (allowance.py), and what the others' parts do (session/).
"""

from __future__ import annotations

from collections.abc import Callable

from gevent.event import Event
from gevent.lock import BoundedSemaphore

from tokenswarm.ending import TOKEN_BUDGET
from tokenswarm.load.allowance import Allowance, Reserved


class Part:
    """Requests are let through by `take` and told to have ended by `settle`; tasks by `begin` and `end`."""

    def __init__(self, allowance: Allowance, changed: Callable[[], None]) -> None:
        """`changed` is called whenever `through` or `drained` has changed."""
        self.allowance = allowance
        self.through = ""
        """Why this process does not send all that its users would any more, or nothing at all; empty while it does."""
        self.drained = False
        """Whether nothing of its part is going on or still to come."""
        self.stopped = Event()
        """The run is over, here at least: nobody waits for anything."""
        self._changed = changed
        self._used_up = ""
        self._tasks = 0
        self._turn = BoundedSemaphore()
        self._settled = Event()
        self._look()

    @property
    def spent(self) -> bool:
        """Whether no request at all may begin."""
        return bool(self.allowance.over)

    @property
    def used_up(self) -> bool:
        """Whether no task may begin; those that are on go on to their end, if they may send."""
        return bool(self._used_up or self.allowance.over)

    def take(self, size: int, most_output: int | None) -> Reserved | None:
        """Let a request through, its prompt of `size` bytes, its reply of at most so many tokens; waits in line while
        it is too dear, for what others may not need. None: there is nothing left, or the run ends before there
        is; a task that is on when it ends still sends what it need not wait for."""
        with self._turn:
            while True:
                reserved = self.allowance.take(size, most_output)
                self._look()
                if reserved is not None or self.allowance.over or self.stopped.is_set():
                    return reserved
                self._settled.clear()
                self._settled.wait()

    def shed(self) -> None:
        """A request was due and is not sent."""
        self.allowance.shed()
        self._look()

    def settle(self, reserved: Reserved, cost: tuple[int | None, int | None] | None) -> None:
        """A request has ended, all its attempts: input and output tokens, where told; None: it cost nothing."""
        if cost is None:
            self.allowance.refund(reserved)
        else:
            self.allowance.settle(reserved, *cost)
        self._settled.set()
        self._look()

    def begin(self) -> None:
        """A task begins that will send something."""
        self._tasks += 1

    def end(self) -> None:
        """One has ended."""
        self._tasks -= 1
        self._look()

    def use_up(self, why: str) -> None:
        """No new task may begin."""
        self._used_up = self._used_up or why
        self._look()

    def stop(self) -> None:
        """The run ends: nobody waits any more."""
        self.stopped.set()
        self._settled.set()

    def _look(self) -> None:
        allowance = self.allowance
        through = self.through or allowance.over or self._used_up or (TOKEN_BUDGET if allowance.short else "")
        drained = allowance.open == 0 and (bool(allowance.over) or (bool(self._used_up) and self._tasks == 0))
        if (through, drained) != (self.through, self.drained):
            self.through, self.drained = through, drained
            self._changed()
