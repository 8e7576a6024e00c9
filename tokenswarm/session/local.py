"""A session in one process: users and the book side by side."""

from __future__ import annotations

import os
import socket
from typing import Any

from tokenswarm import options as opts
from tokenswarm.errors import TokenswarmError
from tokenswarm.load import shapes
from tokenswarm.options.classes import parse_classes
from tokenswarm.recording.book import Book
from tokenswarm.recording.messages import Assignment, Batch, Done, Step
from tokenswarm.run import Run
from tokenswarm.session import dispatch
from tokenswarm.session.base import Session
from tokenswarm.session.keeping import Keeping
from tokenswarm.session.loading import Loading
from tokenswarm.transport.origin import Origins


class LocalSession(Session):
    """Locust without workers."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._loading = Loading(environment)
        self._keeping = Keeping(environment, self.headless, self._take_step, self._look)
        self._origins: Origins | None = None

    @property
    def book(self) -> Book | None:
        """As `Session` has it."""
        return self._keeping.book

    def current_run(self) -> Run | None:
        """As `Session` has it."""
        return self._loading.run

    def prepare(self) -> None:
        """As `Session` has it."""
        options = opts.parse(self.given)
        opts.api_key()
        shapes.install(self.environment, options)
        dispatch.install(self.environment, self._keeping.note_target)
        parse_classes(self.environment.user_classes, self.given)
        self._keeping.prepare(options)
        limit_stop_timeout(self.environment, options)
        if self.needs_host:
            self._keeping.start_simulator()
        if self.headless:
            self._loading.check(options, self.origins(options))
        self.watch_signals()
        events = self.environment.events
        events.test_start.add_listener(self._on_start)
        events.spawning_complete.add_listener(self._on_spawned)
        events.test_stopping.add_listener(self._on_stopping)
        events.test_stop.add_listener(self._on_stop)
        events.quitting.add_listener(self._on_quitting)
        events.quit.add_listener(self._on_quit)

    def cut(self) -> None:
        """As `Session` has it."""
        self._loading.cut()

    def close(self) -> None:
        """As `Session` has it."""
        self._keeping.close()

    def _on_start(self, **_: Any) -> None:
        if self.book is not None:
            self.refuse_start_while_ending(self.book)
        try:
            options = opts.parse(self.given)
            shapes.check(self.environment, options)
            origins = self.origins(options)
            target = self._loading.check(options, origins)
            book = self._keeping.begin(options, origins, target.model, [""])
            run = self._loading.begin(options, target, Assignment(run=book.run_id), book.started, self._take)
            self._origins = origins
        except TokenswarmError as error:
            self._keeping.end()
            self.refuse(str(error))
            return
        self.accept_after_refusal()
        seat = book.join(hostname=socket.gethostname(), pid=os.getpid())
        book.ready(seat, target.model, "kernel" if run.transport.kernel_clock else "user")
        run.take_step(book.step)

    def _take(self, batch: Batch) -> None:
        if self.book is not None:
            self.book.take(batch)
            self._look()

    def _look(self) -> None:
        self._keeping.end_if_through()

    def _on_spawned(self, user_count: int, **_: Any) -> None:
        book, origins = self.book, self._origins
        if book is None or origins is None:
            return
        self._keeping.spawned(user_count)
        if text := self.keep_host(origins):
            book.problem(text)

    def _take_step(self, step: Step) -> None:
        if self._loading.run is not None:
            self._loading.run.take_step(step)

    def _on_stopping(self, **_: Any) -> None:
        self._keeping.stopping(self.signalled)
        self._loading.stop()

    def _on_stop(self, **_: Any) -> None:
        self._loading.drain()
        run, book = self._loading.run, self.book
        if run is None or book is None:
            return
        self._loading.end()
        book.done(Done(run=book.run_id, worker=0, batches=run.recorder.batches))
        self._keeping.end()

    def _on_quitting(self, **_: Any) -> None:
        """Before Locust fixes its exit code: drain, write everything, judge."""
        self.signalled = True  # if it has not stopped before
        try:
            self.environment.runner.quit()
            self._on_stop()  # what another greenlet is about to end
        except KeyboardInterrupt:
            self.cut()
            self._on_stop()
        self.wait_after_the_load(self._keeping.wait_for_results)
        self.close()

    def _on_quit(self, **_: Any) -> None:
        self._keeping.print_summary()


def limit_stop_timeout(environment: Any, options: opts.Options) -> None:
    """Nothing in flight can last longer than a request may."""
    if environment.stop_timeout == opts.DEFAULT_STOP_TIMEOUT:
        environment.stop_timeout = min(environment.stop_timeout, options.request_timeout)
