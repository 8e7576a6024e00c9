"""The open loop of one process: one greenlet sleeps to each instant of the schedule and begins the whole task then, in
a greenlet of its own, whoever still waits for a reply. Not here: which instants those are (arrivals.py), and Locust.

While users come and go, each process has a schedule of its own, at its own users' rate. Once all are there, all
processes follow the same one, each for its own users, so that together they are exactly the process that was asked for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

import gevent
from gevent.event import Event
from gevent.pool import Group

from tokenswarm.errors import OptionError
from tokenswarm.load import arrivals
from tokenswarm.load.arrivals import Arrival, Gap, Kind, Replay, Schedule, Share, Stream
from tokenswarm.load.pace import Pace
from tokenswarm.options.values import Options
from tokenswarm.recording.messages import Assignment, Step
from tokenswarm.workload.traces import TraceEntry

CUT_SECONDS: Final = 5.0

_log = logging.getLogger("tokenswarm")


class Source(Protocol):
    """A user, whose tasks the schedule begins."""

    @property
    def rests(self) -> bool:
        """Whether no more tasks are to begin, though the run is still on."""

    def next_task(self) -> Any:
        """The task whose turn it is."""

    def begin_task(self, pace: Pace) -> None:
        """It is on from now on, though `run_task` is yet to be called."""

    def run_task(self, task: Any, pace: Pace, due: int) -> None:
        """The whole of it, in the greenlet that this is called in. Raises only what stops the greenlet."""

    def shed(self, task: Any, due: int) -> None:
        """It was due and is not begun; it gets its row."""


class OpenLoop:
    """Made with the run; users `serve` until Locust ends them, and what they have begun goes on. `stop` begins nothing
    more, `drain` lets open tasks end, `cut` ends them."""

    def __init__(
        self,
        options: Options,
        place: Assignment,
        users: Callable[[], int],
        trace: Iterator[TraceEntry] | None,
        through: Callable[[], None],
        fail: Callable[[str], None],
    ) -> None:
        """`users`: how many this process has, those that have not begun included. `trace`: what is replayed, if that is
        asked for; `through` is called when all of it has begun, and `fail` if nothing more can be begun."""
        self._gap = arrivals.parse(options.arrivals).gap
        self._rate = options.rate_per_user
        self._scale = options.time_scale
        self._seed = options.seed
        self._most_open = options.max_in_flight
        self._place = place
        self._users = users
        self._trace = trace
        self._through = through
        self._fail = fail
        self._places = _share(self._most_open, place.worker, 1, place.workers)
        self._sources: list[Source] = []
        self._ramp: Stream | None = None
        """The schedule of this process alone, while it is on."""
        self._schedule: Schedule | None = None
        self._coming: tuple[int, Schedule, int | None] | None = None
        """What follows from an instant on, and how many tasks may be open then."""
        self._tasks = Group()
        self._over = Event()
        self._changed = Event()
        if self._gap is not None:
            self._follow_own(self._gap, 0)
        self._greenlet = gevent.spawn(self._dispatch)

    # Users

    def serve(self, source: Source) -> None:
        """Be one whose tasks are begun, until the greenlet that calls this is killed."""
        self._sources.append(source)
        self._rate_changed()
        try:
            Event().wait()
        finally:
            self._sources.remove(source)
            self._rate_changed()

    def ends_within(self, seconds: float) -> bool:
        """Wait so long, as a task that thinks does. Whether the run stops meanwhile."""
        return bool(self._over.wait(seconds))

    # The schedule

    def take_step(self, step: Step, at: int) -> None:
        """The asked number of users has changed, or all are there; it holds from the instant `at` on."""
        now = time.monotonic_ns()
        if not step.reached:
            if self._gap is not None:
                self._coming = None
            if self._ramp is None and self._gap is not None:
                self._begin_what_is_due(now)
                self._follow_own(self._gap, step.serial)
        elif self._gap is not None:
            # An announcement that came late: what was due before has come from this process's own schedule.
            since, own = max(at, now), self._users() if step.own is None else step.own
            seed = f"seed {self._seed}, step {step.serial}"
            everybody = Stream(self._gap, seed, step.users, step.users * self._rate, at)
            places = _share(self._most_open, step.before, own, step.users)
            self._coming = since, Share(everybody, step.before, own, since), places
        elif self._trace is not None:
            self._coming = at, self._replay(self._trace, at), self._places
            self._trace = None
        self._changed.set()

    def _follow_own(self, gap: Gap, serial: int) -> None:
        """As long as users come and go."""
        users = len(self._sources)
        seed = f"seed {self._seed}, worker {self._place.worker}, step {serial}"
        self._ramp = Stream(gap, seed, users, users * self._rate, time.monotonic_ns())
        self._schedule = self._ramp

    def _replay(self, trace: Iterator[TraceEntry], begin: int) -> Replay:
        worker, workers = self._place.worker, self._place.workers
        if worker >= workers:  # it came later: every entry is somebody's already
            return Replay(iter(()), begin, self._scale, 0, 1)
        return Replay(trace, begin, self._scale, worker, workers)

    def _rate_changed(self) -> None:
        if self._ramp is not None:
            users = len(self._sources)
            self._ramp.change(users, users * self._rate, time.monotonic_ns())
        self._changed.set()

    # Tasks

    def _dispatch(self) -> None:
        try:
            self._begin_one_after_another()
        except Exception as error:
            self._cannot_go_on(error)

    def _cannot_go_on(self, error: Exception) -> None:
        _log.error("The open loop has ended.", exc_info=error)
        self._fail(f"No more tasks can be begun: {error}")

    def _begin_one_after_another(self) -> None:
        while True:
            now = time.monotonic_ns()
            self._begin_what_is_due(now)
            wake = self._next()
            if wake is None and isinstance(self._schedule, Replay):
                self._through()
                return
            if wake is not None and wake <= now and self._sources:
                gevent.sleep(0)
                continue
            self._changed.wait(None if wake is None or wake <= now else (wake - now) / 1e9)
            self._changed.clear()

    def _next(self) -> int | None:
        due = None if self._schedule is None else self._schedule.due
        if self._coming is None:
            return due
        return self._coming[0] if due is None else min(due, self._coming[0])

    def _due(self, now: int) -> Iterator[Arrival]:
        """What is due by now and has not begun."""
        while (wake := self._next()) is not None and wake <= now:
            if self._coming is not None and wake == self._coming[0]:
                self._ramp, (_, self._schedule, self._places) = None, self._coming
                self._coming = None
            elif self._schedule is not None:
                yield self._schedule.take()

    def _begin_what_is_due(self, now: int) -> None:
        if not self._sources:  # they are on their way; what is due then begins late, and says so
            return
        for arrival in self._due(now):
            self._begin(arrival)

    def _begin(self, arrival: Arrival) -> None:
        user = self._sources[arrival.user % len(self._sources)]
        if user.rests:
            return
        task = user.next_task()
        if self._places is not None and len(self._tasks) >= self._places:
            user.shed(task, arrival.at)
            return
        pace = Pace()
        pace.entry = arrival.entry
        user.begin_task(pace)
        self._tasks.spawn(user.run_task, task, pace, arrival.at)

    # The end

    def stop(self) -> None:
        """What is due by now begins, late as it may be, and then nothing more. Who thinks has thought enough."""
        if self._over.is_set():
            return
        self._greenlet.kill(block=False)
        try:
            self._begin_what_is_due(time.monotonic_ns())
        except Exception as error:  # a trace may have a bad entry, and the run must end all the same
            self._cannot_go_on(error)
        self._over.set()

    def drain(self, seconds: float | None) -> None:
        """Open tasks may end, for so long. A task that calls this is not waited for."""
        self._tasks.discard(gevent.getcurrent())
        if seconds:
            self._tasks.join(timeout=seconds)

    def cut(self, block: bool = True) -> None:
        """Open tasks end now."""
        self.stop()
        self._tasks.discard(gevent.getcurrent())
        self._tasks.kill(block=block, timeout=CUT_SECONDS)


def check(user_classes: Iterable[type], kind: Kind) -> None:
    """Raises OptionError for a class that the open loop cannot run."""
    for user in user_classes if kind.open else ():
        if not hasattr(user, "run_task"):
            raise OptionError(
                f"--arrivals {kind.name}: {user.__name__} is none of tokenswarm's users; only those have it"
            )
        for task in getattr(user, "tasks", ()):
            if isinstance(task, type):
                raise OptionError(
                    f"--arrivals {kind.name}: {user.__name__} has the task set {task.__name__}, which loops by itself; "
                    "give the class plain tasks, or run it with --arrivals closed"
                )


def _share(most: int | None, before: int, own: int, all_of_them: int) -> int | None:
    """Of so many places those for `own`, with `before` before them: together exactly all, or one each where there
    is no telling."""
    if most is None or all_of_them <= 0 or before + own > all_of_them:
        return most if most is None else max(1, most // max(1, all_of_them))
    return most * (before + own) // all_of_them - most * before // all_of_them
