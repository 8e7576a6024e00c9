"""The half of a session that has users: the target is checked, a run begins, ends, and its last rows go out."""

from __future__ import annotations

import gc
import logging
import random
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tokenswarm import options as opts
from tokenswarm import traffic
from tokenswarm.load import arrivals, open_loop, think_time
from tokenswarm.options.classes import parse_classes
from tokenswarm.record import ERROR_LENGTH, one_line
from tokenswarm.recording.messages import Assignment, Batch
from tokenswarm.recording.recorder import Recorder
from tokenswarm.run import Run, make_transport
from tokenswarm.target import Target, check
from tokenswarm.timing import Anchor
from tokenswarm.transport.origin import Origins
from tokenswarm.workload.traces import Trace

MOST_EXCEPTIONS: Final = 100
"""Different texts of exceptions that are told apart."""

_log = logging.getLogger("tokenswarm")


class Loading:
    """The run of this process's users, if one is on."""

    def __init__(self, environment: Any) -> None:
        self.run: Run | None = None
        self._environment = environment
        self._checked: tuple[opts.Options, str, Target] | None = None
        self._workloads: dict[str, traffic.Workload] = {}
        environment.events.user_error.add_listener(self._on_user_error)

    def check(self, options: opts.Options, origins: Origins) -> Target:
        """The target, checked once for each change of host, options or a dataset, which is looked through with it.
        Raises OptionError, DatasetError and TargetError."""
        changed = any(each.contents is not None and each.contents.changed() for each in self._workloads.values())
        if changed or self._checked is None or self._checked[:2] != (options, origins.url):
            kind = arrivals.parse(options.arrivals)
            open_loop.check(self._environment.user_classes, kind)
            if kind.trace:
                Trace(kind.trace, strict=options.dataset_errors == "fail", tell=_log.warning).close()
            own = parse_classes(self._environment.user_classes, self._environment.parsed_options)
            self._workloads = traffic.prepare(options, own)
            for text in traffic.notes(self._workloads):
                _log.warning(text)
            target = check(partial(make_transport, options), origins, opts.protocol_of(options), options)
            for note in target.notes:
                _log.warning(note)
            self._checked = (options, origins.url, target)
        return self._checked[2]

    def begin(
        self,
        options: opts.Options,
        target: Target,
        place: Assignment,
        anchor: Anchor,
        sink: Callable[[Batch], None],
        before_tick: Callable[[Recorder], None] | None = None,
    ) -> Run:
        """Users may run from now on."""
        self._warn_of_two_think_times(options)
        _seed_global_generators(options.seed, place.worker)
        workloads = self._workloads
        self.run = Run(
            self._environment, options, target.origins, target.model, place, anchor, sink, workloads, before_tick
        )
        gc.freeze()  # what is there now stays, and need not be looked at while tokens arrive
        return self.run

    def stop(self) -> None:
        """No new task begins; what is in flight goes on."""
        if self.run is not None:
            self.run.stop()

    def drain(self) -> None:
        """Users have ended, and the tasks that they have left open may, within the stop timeout."""
        if self.run is not None and self.run.open_loop is not None:
            self.run.open_loop.drain(self._environment.stop_timeout)

    def end(self) -> Run | None:
        """All users have ended: the last rows go out. Returns the run if there was one.

        Switches no greenlet before those are out: a user that stops the run from a task dies at the next switch.
        """
        run, self.run = self.run, None
        if run is None:
            return None
        for call in run.finish():  # last, for a listener may raise, or block
            try:
                call.tell()
            except Exception as error:
                _log.error("A listener failed for a request that the end of the run cut: %r", error)
        return run

    def cut(self) -> None:
        """What is in flight ends now, as incomplete rows."""
        if self._environment.stop_timeout:  # else it is being cut
            _log.warning("Cutting what is in flight.")
        self._environment.stop_timeout = 0
        self._environment.runner.user_greenlets.kill(block=True, timeout=5)
        if self.run is not None and self.run.open_loop is not None:
            self.run.open_loop.cut()

    def _warn_of_two_think_times(self, options: opts.Options) -> None:
        for user in self._environment.user_classes if options.think_time is not None else ():
            if think_time.thinks(user):
                _log.warning("%s has a wait_time of its own; --think-time takes its place.", user.__name__)

    def _on_user_error(self, exception: BaseException, **_: Any) -> None:
        if self.run is None:
            return
        counts = self.run.recorder.exceptions
        text = one_line(self.run.redact(str(exception)))[:ERROR_LENGTH]
        counts[text if text in counts or len(counts) < MOST_EXCEPTIONS else "others"] += 1


def _seed_global_generators(seed: int, worker: int) -> None:
    """Locust's wait times and choices of tasks, and many a locustfile, draw from these. Forked processes would draw the
    same from numpy's, and no seed would give the same load again."""
    random.seed(f"seed {seed}, worker {worker}")
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(random.Random(f"numpy, seed {seed}, worker {worker}").getrandbits(32))
