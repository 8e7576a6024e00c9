"""A session in the master: the book of the run here, users on the workers. What is said: recording/messages.py."""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final, TypeVar

import gevent
import psutil
from locust.exception import RPCError
from locust.runners import STATE_CLEANUP, STATE_STOPPED, STATE_STOPPING

import tokenswarm
from tokenswarm import ending
from tokenswarm import options as opts
from tokenswarm.errors import MessageError, OptionError, RunDirectoryError, TokenswarmError
from tokenswarm.load import shapes
from tokenswarm.options.classes import parse_classes
from tokenswarm.record import one_line
from tokenswarm.recording.book import Book
from tokenswarm.recording.ledger import Seat
from tokenswarm.recording.messages import (
    Assignment,
    Batch,
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
from tokenswarm.session import dispatch
from tokenswarm.session.base import Session, machine
from tokenswarm.session.keeping import Keeping
from tokenswarm.session.listener import hears_now, keep_listening
from tokenswarm.session.local import limit_stop_timeout
from tokenswarm.session.telling import Telling
from tokenswarm.transport.origin import Origins

WORKERS_PORT: Final = 5557
"""Where Locust's workers look for a master if nothing is said."""
SILENT_SECONDS: Final = 40.0
"""A worker that said nothing for so long is not waited for any more."""
STOP_MARGIN_SECONDS: Final = 60.0
"""What stopping may take beyond the stop timeout."""
REPEAT_SECONDS: Final = 3.0
"""How often a worker is asked again to finish: a connection that breaks may take what was on its way along."""
READY_SECONDS: Final = 30.0
"""What it may take until the users of all workers run."""
LEAVE_SECONDS: Final = 5.0
"""What it may take to hear that users have left, beyond the stop timeout."""
CUT_SECONDS: Final = 15.0
TELL_SECONDS: Final = 5.0
HEARING_SECONDS: Final = 5.0
"""How long nobody counts as silent: if it was this process that slept, what they said is still to be heard."""

_log = logging.getLogger("tokenswarm")
M = TypeVar("M", bound=Message)


class MasterSession(Session):
    """Locust started with --master, or the parent of --processes."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._keeping = Keeping(environment, self.headless, self._tell_step, self._look)
        self._origins: Origins | None = None
        self._books: dict[str, Book] = {}
        self._telling = Telling(self._send_step, self._users)
        self._drain: gevent.Greenlet | None = None
        self._drains_unheard = False
        self._cut_by: float | None = None
        self._refused = False

    @property
    def book(self) -> Book | None:
        """As `Session` has it."""
        return self._keeping.book

    def prepare(self) -> None:
        """As `Session` has it."""
        keep_listening(self.environment.runner)
        self._hear(Ping, self._on_ping)
        self._hear(Hello, self._on_hello)
        self._hear(Ready, self._on_ready)
        self._hear(Batch, self._on_batch)
        self._hear(Done, self._on_done)
        options = opts.parse(self.given, sends=False)
        shapes.install(self.environment, options)
        parse_classes(self.environment.user_classes, self.given, sends=False)
        self._check_ports()
        self._keeping.prepare(options)
        limit_stop_timeout(self.environment, options)
        if self.needs_host:
            if not _is_loopback(self.given.master_bind_host):
                raise OptionError(
                    "--host is missing. The embedded simulator serves this machine only, and workers of other machines "
                    f"may come to {self.given.master_bind_host}: name a server that all of them reach."
                )
            self._keeping.start_simulator()
        dispatch.install(self.environment, self._keeping.note_target)
        self._keep_quit_waiting()
        self.watch_signals()
        events = self.environment.events
        events.test_start.add_listener(self._on_start)
        events.spawning_complete.add_listener(self._on_spawned)
        events.test_stopping.add_listener(self._on_stopping)
        events.test_stop.add_listener(self._on_stop)
        events.quitting.add_listener(self._on_quitting)
        events.quit.add_listener(self._on_quit)

    def _check_ports(self) -> None:
        own, theirs = self.given.master_bind_port, self.given.master_port
        if own != theirs and (self.given.processes or theirs != WORKERS_PORT):
            raise OptionError(
                f"--master-port {theirs} is where workers look for a master, and this master listens on {own}: give it "
                f"--master-bind-port {theirs}"
            )
        _log.info("Waiting for workers on %s, port %d", self.given.master_bind_host, own)

    def close(self) -> None:
        """As `Session` has it."""
        self._keeping.close()

    def abandon(self) -> None:
        """As `Session` has it. Locust forgets workers that it forked and that still run; they would wait for a master,
        and come to the next one at this port."""
        super().abandon()
        for worker in psutil.Process().children() if self.given.processes else ():
            with suppress(psutil.Error):
                worker.terminate()

    # The start

    def _on_start(self, **_: Any) -> None:
        if self.book is not None:
            self.refuse_start_while_ending(self.book)
        try:
            options = opts.parse(self.given, sends=False)
            shapes.check(self.environment, options)
            parse_classes(self.environment.user_classes, self.given, sends=False)
            origins = self.origins(options)
            book = self._keeping.begin(options, origins, options.model or "", self._workers())
        except TokenswarmError as error:
            self.refuse(str(error))
            return
        self.accept_after_refusal()
        self._origins, self._drain, self._cut_by, self._refused = origins, None, None, False
        self._books[book.run_id] = book

    def _workers(self) -> list[str]:
        runner = self.environment.runner
        there = [client.id for client in runner.clients.all if client.state != "missing"]
        return sorted(there, key=runner.get_worker_index)

    def _on_hello(self, msg: Any, **_: Any) -> None:
        hello = self._read(msg, Hello)
        if hello is None:
            return
        book, origins = self.book, self._origins
        if msg.node_id not in self.environment.runner.clients:
            self._refuse_message(msg, MessageError("it is nobody's who is a worker"))
            return
        if book is None or origins is None or self._drain is not None:
            self._send(msg.node_id, Assignment(refused="no run is on"))
            return
        if hello.version != tokenswarm.__version__:
            book.problem(
                f"A worker on {one_line(hello.hostname)} has tokenswarm {one_line(hello.version)}, "
                f"the master {tokenswarm.__version__}; install the same on every machine."
            )
        seat = book.join(msg.node_id, hostname=hello.hostname, pid=hello.pid)
        if hello.machine and hello.machine == machine():
            seat.pid_here = hello.pid
        if hello.hostname != socket.gethostname() and any(_is_loopback(origin.host) for origin in origins.each):
            text = f"{origins.url} means its own machine to a worker on {one_line(hello.hostname)}"
            if self._keeping.is_simulator(origins):
                self._send(msg.node_id, Assignment(refused=f"{text}, and the simulator is here: name a --host."))
                return
            book.problem(f"{text}, not the master's.")
        place = Assignment(run=book.run_id, worker=seat.worker.index, workers=max(1, book.ledger.expected))
        self._send(msg.node_id, place)
        self._tell_step(book.step, msg.node_id)  # before its users begin

    def _on_ready(self, msg: Any, **_: Any) -> None:
        ready = self._read(msg, Ready)
        if ready is None:
            return
        book = self._books.get(ready.run, self.book)
        if book is None or book.ended:
            return
        try:
            seat = book.ledger.seat(ready.worker, msg.node_id)
        except MessageError as error:
            if not ready.refused or msg.node_id not in self.environment.runner.clients:
                self._refuse_message(msg, error)
                return
            seat = None
        if ready.refused:
            self._on_refused(book, seat, ready.refused)
            return
        if seat is not None:
            book.ready(seat, ready.model, ready.clock)
            self._tell_step(book.step, msg.node_id)

    def _on_refused(self, book: Book, seat: Seat | None, why: str) -> None:
        if seat is not None and not seat.worker.batches:
            seat.done(Done(run=book.run_id, worker=seat.worker.index, batches=0))
        if self._drain is not None:
            return
        who = one_line(f"worker {seat.worker.index} on {seat.worker.hostname}" if seat else "a worker")
        if any(other.worker.batches for other in book.ledger):  # it came later: its share goes to the others
            book.problem(f"The run goes on without {who}: {one_line(why)}")
            if seat is not None:
                self.environment.runner.send_message("quit", client_id=seat.worker.client_id)
            return
        text = f"By {who}: {one_line(why)}"
        book.problem(text)
        if not self._refused:
            self._refused = True
            self.refuse(text)

    # While it lasts

    def _on_ping(self, msg: Any, **_: Any) -> None:
        ping = self._read(msg, Ping)
        if ping is not None:
            started = None if self.book is None else self.book.started
            now = time.monotonic_ns()
            wall = time.time_ns() if started is None else started.wall_ns + now - started.monotonic_ns
            self._send(msg.node_id, Pong(sent=ping.sent, wall=wall))

    def _on_batch(self, msg: Any, **_: Any) -> None:
        batch = self._read(msg, Batch)
        if batch is None:
            return
        try:
            self._named_book(batch.run).take(batch, msg.node_id)
        except (MessageError, RunDirectoryError) as error:
            self._refuse_message(msg, error)
            return
        self._send(msg.node_id, Taken(run=batch.run, seq=batch.seq))
        self._end_if_through()

    def _end_if_through(self) -> None:
        """Unless somebody who was there at the start is still to come."""
        book, clients = self.book, self.environment.runner.clients
        if book is None or self._drain is not None:
            return
        patient = time.monotonic_ns() - book.started.monotonic_ns < SILENT_SECONDS * 1e9
        if not (patient and any(client_id in clients for client_id in book.ledger.absent())):
            self._keeping.end_if_through(lambda seat: not self._may_report(seat))

    def _on_done(self, msg: Any, **_: Any) -> None:
        done = self._read(msg, Done)
        if done is None:
            return
        try:
            self._named_book(done.run).done(done, msg.node_id)
        except MessageError as error:
            self._refuse_message(msg, error)
            return
        self._send(msg.node_id, Taken(run=done.run, seq=done.batches))

    def _named_book(self, run_id: str) -> Book:
        if run_id not in self._books:
            raise MessageError(f"it is of a run {run_id!r} that this master does not know")
        return self._books[run_id]

    def _tell_step(self, step: Step, only: str = "") -> None:
        """To all workers, or to the one that has just taken its seat."""
        if self.book is not None:
            self._telling.tell(step, self.book.ledger, time.monotonic(), only)

    def _send_step(self, client_id: str, step: Step) -> None:
        with suppress(RPCError):  # it is told again
            self._send(client_id, step)

    def _users(self) -> dict[str, int]:
        return {client.id: client.user_count for client in self.environment.runner.clients.all}

    def _look(self) -> None:
        """Once a second."""
        book = self.book
        if book is not None and self._drain is None:
            if book.step.reached and self._telling.is_outdated(book.ledger):
                self._tell_step(book.tell_again())
            self._telling.repeat(book.run_id, book.ledger, time.monotonic())
        self._end_if_through()

    def _on_spawned(self, user_count: int, **_: Any) -> None:
        book, origins = self.book, self._origins
        if book is None or origins is None or self._drain is not None:
            # A start that was stopped on its way goes on to here, and Locust calls itself running from now on.
            drained = self._drain is None or self._drain.ready()
            ending = STATE_STOPPING if drained else STATE_CLEANUP
            self.environment.runner.update_state(STATE_STOPPED if book is None else ending)
            return
        self._wait_for_users(book, user_count)
        if book is not self.book or self._drain is not None:
            raise gevent.GreenletExit  # stopped meanwhile: Locust would tell the workers that they run
        self._keeping.spawned(user_count)
        if text := self.keep_host(origins):
            book.problem(text)

    def _wait_for_users(self, book: Book, users: int) -> None:
        """Until the load is what was asked for. Locust counts users of workers that still check the target, and waits
        only a second for those that are to leave and finish their requests first."""
        runner, now = self.environment.runner, time.monotonic()
        ready_by, left_by = now + READY_SECONDS, now + (self.environment.stop_timeout or 0.0) + LEAVE_SECONDS
        while book is self.book and self._drain is None and not hears_now():
            starting = book.ledger.starting() and now < ready_by
            if not starting and (runner.user_count <= users or now > left_by):
                return
            gevent.sleep(0.02)
            now = time.monotonic()

    # The stop

    def _on_stopping(self, **_: Any) -> None:
        """Ask the workers to drain, and wait for their last rows, unless nothing could be heard meanwhile."""
        book = self.book
        if book is None:
            return
        runner = self.environment.runner
        if self._drain is None:
            if not runner.worker_count:
                book.ended_by = book.ended_by or ending.NO_WORKERS
            elif self._refused:
                book.ended_by = ending.REFUSED
            self._keeping.stopping(self.signalled)
            runner.update_state(STATE_CLEANUP)  # or shapes, edits and redistribution would go on meanwhile
            if not runner.worker_count:
                book.problem("No worker was left, so the run ended.")
            self._drains_unheard = hears_now()
            self._drain = gevent.spawn(self._await_workers, book)
        if not hears_now():
            self._drain.join()

    def _on_stop(self, **_: Any) -> None:
        if self._drain is None or self._drain.ready():
            self._end()
        else:
            gevent.spawn(self._end_when_drained)
        runner = self.environment.runner
        if self.headless and not self.given.run_time and not runner.worker_count:
            gevent.spawn(runner.quit)  # Locust would wait for a run time that nobody has set

    def _keep_quit_waiting(self) -> None:
        """Locust quits where the run time is over or a shape has ended, also in the middle of a drain. Its listener
        would be gone, and the workers told to leave, before their last rows were here."""
        runner = self.environment.runner
        quit_now = runner.quit

        def quit_when_drained() -> None:
            if self._drain is not None and not hears_now():
                self._drain.join()
            quit_now()

        runner.quit = quit_when_drained

    def _await_workers(self, book: Book) -> None:
        began = time.monotonic()
        give_up = began + (self.environment.stop_timeout or 0.0) + STOP_MARGIN_SECONDS
        ask, tell = 0.0, began + TELL_SECONDS
        while waiting := self._waited_for(book, began + HEARING_SECONDS - SILENT_SECONDS):
            now = time.monotonic()
            if now > min(give_up, self._cut_by or give_up):
                return
            if now > ask:
                ask = now + REPEAT_SECONDS
                self._tell_finish(book, waiting, cut=self._cut_by is not None)
            if now > tell:
                tell = now + TELL_SECONDS
                named = ", ".join(f"{seat.worker.index} (heard {now - seat.heard:.0f} s ago)" for seat in waiting)
                _log.info("Still waiting for the last rows of worker %s", named)
            gevent.sleep(0.05)

    def _waited_for(self, book: Book, heard: float) -> list[Seat]:
        """Workers whose last rows may still come; each counts as heard at that time at least."""
        runner = self.environment.runner
        if not len(runner.greenlet):  # nobody listens any more
            return []
        return [seat for seat in book.ledger if self._may_report(seat, heard)]

    def _may_report(self, seat: Seat, heard: float = 0.0) -> bool:
        """Whether anything may still come from it, which counts as heard at that time at least."""
        return (
            not seat.complete
            and seat.worker.client_id in self.environment.runner.clients
            and time.monotonic() - max(seat.heard, heard) < SILENT_SECONDS
            and not _is_dead(seat.pid_here)
        )

    def _tell_finish(self, book: Book, seats: Iterable[Seat], cut: bool) -> None:
        for seat in seats:
            try:
                self._send(seat.worker.client_id, Finish(run=book.run_id, cut=cut))
            except RPCError:  # it is asked again
                continue

    def _on_quitting(self, **_: Any) -> None:
        """Before Locust fixes its exit code: drain, write everything, judge. A stop during a stop cuts."""
        self.signalled = True  # if it has not stopped before
        try:
            if self._drain is not None and not self._drain.ready() and not self._drains_unheard:
                self.cut()
            self.environment.runner.quit()
        except KeyboardInterrupt:
            self.cut()
            self.environment.runner.quit()
        self._end_when_drained()
        self.wait_after_the_load(self._keeping.wait_for_results)
        self.close()

    def _end_when_drained(self) -> None:
        if self._drain is not None:
            self._drain.join()
        self._end()

    def _end(self) -> None:
        self._keeping.end(self._refused)

    def cut(self) -> None:
        """As `Session` has it."""
        book = self.book
        if book is not None and self._drain is not None:
            _log.warning("Cutting what is in flight.")
            self._cut_by = time.monotonic() + CUT_SECONDS
            self._tell_finish(book, book.ledger, cut=True)
            self._drain.join()

    def _on_quit(self, **_: Any) -> None:
        self._keeping.print_summary()

    # The workers

    def _hear(self, expected: type[Message], listener: Any) -> None:
        self.environment.runner.register_message(kind(expected), listener)

    def _read(self, msg: Any, expected: type[M]) -> M | None:
        try:
            return decode(msg.data, expected)
        except MessageError as error:
            self._refuse_message(msg, error)
            return None

    def _refuse_message(self, msg: Any, error: Exception) -> None:
        _log.error("A message of %s (%s) was refused: %s", one_line(str(msg.node_id)), msg.type, one_line(str(error)))

    def _send(self, client_id: str, message: Message) -> None:
        self.environment.runner.send_message(kind(message), encode(message), client_id=client_id)


def _is_dead(pid: int | None) -> bool:
    """Whether this is the number of a process that has ended, be it that nobody took note of that yet."""
    if pid is None:
        return False
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, OSError):
        return False


def _is_loopback(host: str) -> bool:
    """Whether only this machine is meant."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
