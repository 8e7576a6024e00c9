"""What every transport is to its callers, and what all of them share: time limits, and when a request is tried again.

A `Transport` is a run's, a `Client` one user's, a `Call` one request's. No socket here.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from tokenswarm.errors import RequestError
from tokenswarm.protocols.base import WireRequest
from tokenswarm.transport.clock import LoopClock
from tokenswarm.transport.origin import Origin
from tokenswarm.transport.reply import ReplyState
from tokenswarm.transport.request import Request

GRACE_NS: Final = 1_000_000_000
"""How long a body may stay open after the reply's own end mark before the connection is given up."""
LEFT: Final = "left"
"""In the place of an error class: the user's own time has come, which is no error."""
EARLY_NS: Final = 100_000_000
"""A timer may fire early by what the event loop's own clock is behind."""
RETRY_NS: Final = 1_000_000_000
"""A reused connection that dies later than this after the request was sent has died of the request."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Time limits in seconds, all but `connect` and `stall` from the start of the request; None: no limit."""

    connect: float = 10.0
    total: float = 300.0
    first_token: float | None = None
    stall: float | None = None
    """Between two output chunks."""


StateT = TypeVar("StateT", bound=ReplyState, covariant=True)


class Call(Generic[StateT]):
    """One request, all attempts included. Its attributes are true at any moment, also when its greenlet is killed.

    A transport's own gives `_new_exchange`, and `_attempt`, which leaves `exchange` finished unless it raises what
    stops the greenlet.
    """

    def __init__(self, request: Request, limits: Limits) -> None:
        self.timeline = request.timeline
        self.attempts = 0
        self.connection_reused: bool | None = None
        self.remote_addr: str | None = None
        self.request_bytes = 0
        self._request = request
        self._limits = limits
        self.exchange = self._new_exchange()

    def run(self) -> None:
        """Send and receive; afterwards `exchange.finished` is true and `exchange.error` says how it went."""
        while True:
            self.attempts += 1
            self._attempt(fresh=self.attempts > 1)
            error = self.exchange.error
            broke = error is not None and error.error_class in ("truncated", "connect")
            if not (self.connection_reused and broke and not self.exchange.answered and self._died_at_once()):
                del self._request  # holds our owner's method: no cycles for the garbage collector
                return
            # The server had given up the idle connection just as we took it. Later it would have been a failure.
            self.timeline.forget_response()
            self.exchange = self._new_exchange()

    def _died_at_once(self) -> bool:
        line = self.timeline
        return line.sent is None or (line.end or 0) - line.sent < RETRY_NS

    def _new_exchange(self) -> StateT:
        """For one attempt's reply."""
        raise NotImplementedError

    def _attempt(self, fresh: bool) -> None:
        """One attempt; `fresh`: on a connection of its own, whatever is idle."""
        raise NotImplementedError

    def _deadline(self) -> tuple[int, str, float]:
        """(instant, error class or `LEFT`, limit in seconds) of what is due next."""
        line, limits, done_at = self.timeline, self._limits, self.exchange.done_at
        if done_at is not None:
            return done_at + GRACE_NS, "", 0.0
        due = line.start + int(limits.total * 1e9), "total_timeout", limits.total
        if not line.at and limits.first_token is not None:
            due = min(due, (line.start + int(limits.first_token * 1e9), "first_token_timeout", limits.first_token))
        elif line.at and limits.stall is not None:
            due = min(due, (line.at[-1] + int(limits.stall * 1e9), "stall_timeout", limits.stall))
        leaves_at = self.exchange.leaves_at
        return due if leaves_at is None else min(due, (leaves_at, LEFT, 0.0))

    def _expire(self, now: int) -> None:
        """The time is up for what was due."""
        due, error_class, limit = self._deadline()
        if error_class == LEFT:
            self.exchange.leave(due)
        else:
            self.exchange.fail(self._missed(error_class, limit), now)

    def _fail(self, error: RequestError) -> None:
        """The attempt has failed; but not if its user had left by then."""
        exchange, now = self.exchange, time.monotonic_ns()
        leaves_at = exchange.leaves_at
        early = EARLY_NS if error.error_class in ("connect_timeout", "total_timeout") else 0
        if leaves_at is not None and now >= leaves_at - early:
            exchange.leave(leaves_at)
        else:
            exchange.fail(error, now)

    def _remaining(self) -> float:
        """Seconds left of the whole request's time, or until its user leaves, more than 0. Raises RequestError
        (`total_timeout`)."""
        start, leaves_at = self.timeline.start, self.exchange.leaves_at
        most = self._limits.total if leaves_at is None else min(self._limits.total, (leaves_at - start) / 1e9)
        left = most - (time.monotonic_ns() - start) / 1e9
        if left <= 0:
            raise self._missed("total_timeout", self._limits.total)
        return left

    def _missed(self, error_class: str, limit: float) -> RequestError:
        what = {
            "total_timeout": f"not finished within {limit:g} s",
            "first_token_timeout": f"no output within {limit:g} s",
            "stall_timeout": f"no further output for {limit:g} s",
        }[error_class]
        return RequestError(error_class, what, self.exchange.status)


def own_headers(request: WireRequest, given: Collection[str]) -> list[tuple[str, str]]:
    """The headers that the protocol wants, but for those that the user gives; `given`: their names in lower case."""
    return [(name, value) for name, value in request.headers if name.lower() not in given]


class Client(Protocol):
    """One user's connections: as many as it has requests in flight, kept alive between them."""

    @property
    def transport(self) -> Transport:
        """What it is a client of."""

    def call(self, request: Request) -> Call[ReplyState]:
        """A request, ready to `run`."""

    @property
    def busy(self) -> Collection[object]:
        """What is in flight."""

    def retire(self) -> None:
        """Keep no connection any more; those in use go on to the end of their request."""

    def close(self) -> None:
        """Close every connection; a request in flight ends now, as a failure."""


class Transport(Protocol):
    """What all users of a run share: the target, the limits, TLS, the headers, the loop's clock."""

    name: str
    """As --transport has it."""
    origin: Origin
    clock: LoopClock
    kernel_clock: bool
    """Whether arrivals are stamped by the kernel, where it can."""

    def client(self) -> Client:
        """Connections for one user."""

    def close(self) -> None:
        """Stop watching the loop."""
