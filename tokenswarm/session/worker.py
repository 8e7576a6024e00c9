"""A session in a worker: users here, the book at the master. What is said between them: recording/messages.py."""

from __future__ import annotations

import logging
import os
import socket
import time
from pathlib import Path
from typing import Any, Final, TypeVar

import gevent
from gevent.event import Event
from gevent.lock import RLock
from locust.exception import RPCError

import tokenswarm
from tokenswarm import options as opts
from tokenswarm.errors import MessageError, RunDirectoryError, TargetError, TokenswarmError
from tokenswarm.offset import OtherClock
from tokenswarm.record import one_line
from tokenswarm.recording.messages import (
    Assignment,
    Done,
    Finish,
    Hello,
    Message,
    Ping,
    Pong,
    Ready,
    Step,
    Taken,
    decode,
    encode,
    kind,
)
from tokenswarm.recording.recorder import Recorder
from tokenswarm.recording.shipping import Shipper
from tokenswarm.run import Run
from tokenswarm.session.base import Session, machine
from tokenswarm.session.loading import Loading

ANSWER_SECONDS: Final = 15.0
"""How long the master may take to say which run a start belongs to."""
FIRST_PINGS: Final = 8
PING_SECONDS: Final = 1.0
DELIVERY_SECONDS: Final = 15.0
"""How long a worker that ends waits for the master to confirm its last rows."""

_log = logging.getLogger("tokenswarm")
M = TypeVar("M", bound=Message)


class WorkerSession(Session):
    """Locust started with --worker, or forked by --processes."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._loading = Loading(environment)
        self._clock = OtherClock()
        self._place = Assignment()
        self._step: Step | None = None
        """The latest of the run."""
        self._assigned = Event()
        self._begun = Event()
        self._starting: gevent.Greenlet | None = None
        self._answered = True
        """Whether the master knows if this worker's load has begun."""
        self._finishing = ""
        """The run that the master has asked to finish."""
        self._resender: gevent.Greenlet | None = None
        self._pinger: gevent.Greenlet | None = None
        self._shippers: dict[str, Shipper] = {}
        """By run; those of earlier runs only until the master has everything."""

    def current_run(self) -> Run | None:
        """As `Session` has it: users are spawned before the run's seat is known and the target checked."""
        self._begun.wait()
        return self._loading.run

    def prepare(self) -> None:
        """As `Session` has it."""
        self.watch_signals()
        self._stop_one_at_a_time()
        runner = self.environment.runner
        self._hear(Pong, self._on_pong)
        self._hear(Assignment, self._on_assignment)
        self._hear(Taken, self._on_taken)
        self._hear(Finish, self._on_finish, concurrent=True)
        self._hear(Step, self._on_step)
        events = self.environment.events
        events.test_start.add_listener(self._on_start)
        events.test_stopping.add_listener(self._on_stopping)
        events.test_stop.add_listener(self._on_stop)
        events.quitting.add_listener(self._on_quitting)
        if runner.worker_state in ("spawning", "running"):  # the start was quicker than Locust's own
            self._on_start()

    # The start

    def _on_start(self, **_: Any) -> None:
        """In the greenlet that hears the master, so whatever needs an answer is done in another one."""
        self._answered = False
        self._begun.clear()
        self._assigned.clear()
        self._stop_pinging()
        self._starting = gevent.spawn(self._start)

    def _start(self) -> None:
        try:
            self._clock = OtherClock()
            self._pinger = gevent.spawn(self._ping)
            self._take_place()
            self._begin()
        except Exception as error:
            if not isinstance(error, TokenswarmError):
                _log.exception("The load could not be started here.")
            why = str(error) if isinstance(error, TokenswarmError) else repr(error)
            _log.error("The load was not started here. %s", why)
            self._send(Ready(run=self._place.run, worker=self._place.worker, refused=one_line(why)))
            self._answered = True
        finally:
            self._begun.set()

    def _take_place(self) -> None:
        hello = Hello(version=tokenswarm.__version__, hostname=socket.gethostname(), pid=os.getpid(), machine=machine())
        self._place = Assignment()
        self._send(hello)
        if not self._assigned.wait(ANSWER_SECONDS):
            raise TargetError("The master does not answer; does it run the same tokenswarm and locustfile?")
        if self._place.refused:
            raise TargetError(self._place.refused)

    def _begin(self) -> None:
        options = opts.parse(self.given)
        target = self._loading.check(options, self.origins(options))
        with gevent.Timeout(ANSWER_SECONDS, TargetError("The master does not answer, so its clock is not known.")):
            while len(self._clock) < FIRST_PINGS:
                gevent.sleep(0.01)
        place = self._place
        self._shippers = {run_id: shipper for run_id, shipper in self._shippers.items() if not shipper.delivered}
        if self._resender is None:
            self._resender = gevent.spawn(self._resend)
        shipper = self._shippers[place.run] = Shipper(place.worker, self._send_bytes)
        anchor = self._clock.anchor(time.monotonic_ns())
        run = self._loading.begin(options, target, place, anchor, shipper.ship, self._correct_clock)
        if self._step is not None and self._step.run == place.run:
            run.take_step(self._step)
        self._correct_clock(run.recorder)
        clock = "kernel" if run.transport.kernel_clock else "user"
        self._send(Ready(run=place.run, worker=place.worker, model=target.model, clock=clock))
        self._answered = True
        _log.info("Load on %s, as worker %d of run %s", target.origins.url, place.worker, place.run)

    # The stop

    def _stop_one_at_a_time(self) -> None:
        """The master's word, Locust's and Ctrl-C may all come at once, and Locust's own stop is not made for that: who
        comes second waits for the first."""
        runner, stopping = self.environment.runner, RLock()
        stop_now = runner.stop

        def stop() -> None:
            with stopping:
                stop_now()

        runner.stop = stop

    def _on_finish(self, msg: Any, **_: Any) -> None:
        message = self._read(msg, Finish)
        if message is None or message.run != self._place.run:
            return
        if message.cut:
            self._loading.cut()
        if message.run == self._finishing:  # it is asked again until it has said that it is done
            return
        self._finishing = message.run
        self.environment.runner.stop()

    def _on_stopping(self, **_: Any) -> None:
        if self._starting is not None and not self._starting.ready():
            self._starting.kill(block=False)
            self._begun.set()
        self._loading.stop()

    def _on_stop(self, **_: Any) -> None:
        self._loading.drain()
        # Locust would let this worker rest for so long before the next start; but nothing is left to wait for.
        self.environment.stop_timeout = 0.0
        self._stop_pinging()
        run = self._loading.end()
        if run is None:
            if not self._answered:
                self._answered = True
                self._send(Ready(run=self._place.run, worker=self._place.worker, refused="it was stopped before"))
            return
        try:
            self.environment.runner._send_stats()  # before Done, at which the master writes Locust's tables
        except RPCError:
            _log.warning("The last of Locust's own statistics did not reach the master.")
        done = Done(run=self._place.run, worker=self._place.worker, batches=run.recorder.batches)
        self._shippers[done.run].done(done)

    def _on_quitting(self, **_: Any) -> None:
        runner = self.environment.runner
        try:
            runner.stop()
        except KeyboardInterrupt:
            self.cut()
        if self._loading.run is not None:
            self._on_stop()
        # Where a task has called runner.quit(), nobody hears the master any more.
        listener = gevent.spawn(runner.worker) if not len(runner.greenlet) else None
        give_up = time.monotonic() + DELIVERY_SECONDS
        while not self._delivered and time.monotonic() < give_up:
            try:
                gevent.sleep(0.05)
            except KeyboardInterrupt:  # what it would cut has ended
                continue
        if listener is not None:
            listener.kill(block=False)
        for run_id, shipper in self._shippers.items():
            self._rescue(run_id, shipper)

    def cut(self) -> None:
        """As `Session` has it."""
        self._loading.cut()

    @property
    def _delivered(self) -> bool:
        return all(shipper.delivered for shipper in self._shippers.values())

    def _rescue(self, run_id: str, shipper: Shipper) -> None:
        base = Path(getattr(self.given, "run_dir", "") or Path("runs") / run_id)
        wanted = base.with_name(f"{run_id}-worker-{shipper.worker}")
        try:
            rescued = shipper.rescue(wanted)
        except RunDirectoryError as error:
            _log.error("What the master did not confirm could not be written here either: %s", error)
            return
        if rescued is not None:
            path, rows = rescued
            _log.error("The master did not confirm the last %d rows of %s; they are in %s", rows, run_id, path)

    def _resend(self) -> None:
        while True:
            gevent.sleep(1.0)
            for shipper in list(self._shippers.values()):
                shipper.send_again()

    # The clock

    def _ping(self) -> None:
        while True:
            self._send(Ping(sent=time.monotonic_ns()))
            gevent.sleep(0.02 if len(self._clock) < FIRST_PINGS else PING_SECONDS)

    def _stop_pinging(self) -> None:
        if self._pinger is not None:
            self._pinger.kill(block=False)

    def _on_pong(self, msg: Any, **_: Any) -> None:
        received = time.monotonic_ns()
        message = self._read(msg, Pong)
        if message is None:
            return
        jump = self._clock.heard(message.sent, message.wall, received)
        if jump and self._loading.run is not None:
            text = f"its clock jumped by {jump / 1e9:+.3f} s against the master's: one of the machines was suspended"
            self._loading.run.recorder.problem(text)

    def _correct_clock(self, recorder: Recorder) -> None:
        now = time.monotonic_ns()
        anchor = self._clock.anchor(now)
        recorder.anchor = anchor
        recorder.offset_ns = time.time_ns() - int(anchor.wall(time.monotonic_ns()) * 1e9)
        recorder.uncertainty_ns = self._clock.best(now).uncertainty_ns(now)

    # The master

    def _on_assignment(self, msg: Any, **_: Any) -> None:
        message = self._read(msg, Assignment)
        if message is not None and not self._assigned.is_set():
            self._place = message
            self._assigned.set()

    def _on_taken(self, msg: Any, **_: Any) -> None:
        message = self._read(msg, Taken)
        if message is not None and message.run in self._shippers:
            self._shippers[message.run].taken(message.seq)

    def _on_step(self, msg: Any, **_: Any) -> None:
        step, run = self._read(msg, Step), self._loading.run
        if step is None or step.run != self._place.run or step == self._step:
            return
        if self._step is not None and self._step.run == step.run and self._step.serial > step.serial:
            return  # told again, and overtaken
        self._step = step
        if run is not None:
            run.take_step(step)

    def _hear(self, expected: type[Message], listener: Any, concurrent: bool = False) -> None:
        self.environment.runner.register_message(kind(expected), listener, concurrent)

    def _read(self, msg: Any, expected: type[M]) -> M | None:
        try:
            return decode(msg.data, expected)
        except MessageError as error:
            _log.error("A message of the master (%s) was refused: %s", msg.type, error)
            return None

    def _send(self, message: Message) -> None:
        self._send_bytes(kind(message), encode(message))

    def _send_bytes(self, name: str, data: bytes) -> None:
        try:
            self.environment.runner.send_message(name, data)
        except RPCError:  # Locust makes the connection anew, and what matters is sent again
            return
