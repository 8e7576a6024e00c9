"""The half of a session that keeps the book: run directory, Locust's CSVs, the live line, results and exit code."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gevent
import msgspec
from locust.runners import STATE_RUNNING

from tokenswarm import ending
from tokenswarm.embedded import EmbeddedSimulator
from tokenswarm.errors import OptionError, TargetError
from tokenswarm.options import Options, request_headers, scraped_sources
from tokenswarm.record import one_line
from tokenswarm.recording import directory
from tokenswarm.recording.book import Book
from tokenswarm.recording.ledger import Seat
from tokenswarm.recording.locust_csv import LocustCsv
from tokenswarm.recording.messages import Step
from tokenswarm.recording.scrape import Scraping
from tokenswarm.scraping.sources import addressed
from tokenswarm.session import searching
from tokenswarm.session.base import EXIT_GOAL_MISSED, EXIT_REFUSED, EXIT_ROWS_LOST
from tokenswarm.transport.origin import Origins, parse_origins
from tokenswarm.ui.console import LiveLine

LOOKS_A_SECOND: Final = 20
"""How often the asked number of users is looked at, for a locustfile whose way of sharing them out does not tell."""

QUIETLY_SECONDS: Final = 3.0
"""A report that takes longer is told of."""

_GOALS: Final = {True: "were met", False: "were missed", None: "were not measured"}

_log = logging.getLogger("tokenswarm")


class Keeping:
    """The book of the run that is on, and the results of those that are over."""

    def __init__(
        self, environment: Any, headless: bool, tell_step: Callable[[Step], None], look: Callable[[], None]
    ) -> None:
        """`tell_step`: those who have users learn by it that their asked number has changed, or is reached. `look` is
        called every second of a run."""
        self._look = look
        self.book: Book | None = None
        self._environment = environment
        self._headless = headless
        self._tell_step = tell_step
        self._simulator: EmbeddedSimulator | None = None
        self._csv: LocustCsv | None = None
        self._live: LiveLine | None = None
        self._scraping: Scraping | None = None
        self._search: searching.CapacityShape | None = None
        self._results: list[gevent.Greenlet] = []
        self._summary = ""
        self._worst_exit: int | None = None

    def prepare(self, options: Options) -> None:
        """At Locust's start. Raises OptionError and RunDirectoryError."""
        directory.check(options.run_dir)
        scraped_sources(options)
        if options.fail_on == "slo" and not (options.slo or any(map(_has_goals, self._environment.user_classes))):
            raise OptionError("--fail-on slo needs --slo: which goals?")
        if options.find_capacity:
            self._search = searching.install(self._environment, lambda: self.book, options, self._headless)
        given = self._environment.parsed_options
        if self._headless and not given.print_stats:
            given.only_summary = True

    def start_simulator(self) -> None:
        """Become the target. Raises TargetError."""
        self._simulator = EmbeddedSimulator()
        self._environment.host = self._simulator.url
        _log.warning("NO --host WAS GIVEN: the load goes to the embedded SIMULATOR, not to a real model server.")

    def is_simulator(self, origins: Origins) -> bool:
        """Whether this is the target that we started ourselves."""
        return self._simulator is not None and origins == parse_origins(self._simulator.url)

    def close(self) -> None:
        """Ends the simulator. Idempotent."""
        if self._simulator is not None:
            self._simulator.stop()
            self._simulator = None

    def begin(self, options: Options, origins: Origins, model: str, expected: list[str]) -> Book:
        """A run begins. Raises OptionError and RunDirectoryError."""
        if options.find_capacity != (self._search is not None):
            raise OptionError("--find-capacity cannot be changed here: start Locust with it, or without.")
        sources = addressed(scraped_sources(options), origins, lambda: request_headers(options))
        simulated = self.is_simulator(origins)
        target = {
            "host": origins.url,
            "simulator": simulated,
            "protocol": options.protocol,
            "model": model,
            "transport": "function" if options.query_model else options.transport,
        }
        book = self.book = Book(self._environment, options, target, expected, _log.error)
        if self._search is not None:
            book.watch = self._search.take
        kind = "the SIMULATOR at " if simulated else ""
        of = f", model {one_line(model)}" if model else ""
        _log.info("Load on %s%s%s. Run directory: %s", kind, origins.url, of, book.path)
        if options.run_dir and book.path.name != Path(options.run_dir).name:
            _log.warning("%s was there already: this run goes to %s", options.run_dir, book.path)
        self._warn_of_a_long_ramp()
        self._csv = LocustCsv(self._environment, book.path, book.problem)
        self._ticker = gevent.spawn(self._tick, book)
        if self._headless:
            self._live = LiveLine(book)
        self._scraping = None  # the run before had its own
        if sources:
            try:
                self._scraping = Scraping(book, sources)
            except OSError as error:
                book.problem(
                    f"--hardware and --server-metrics: nobody is asked, as no process could be started: {error}"
                )
        return book

    def _warn_of_a_long_ramp(self) -> None:
        """Locust's --spawn-rate is 1 a second unless it is given: nobody should learn that from an invalid run."""
        given = self._environment.parsed_options
        users = self._environment.runner.target_user_count or getattr(given, "num_users", None)
        rate, limit = getattr(given, "spawn_rate", None) or 1.0, getattr(given, "run_time", None)
        if self._environment.shape_class is None and users and limit and users / rate > limit / 2:
            _log.warning(
                "%d users at %g a second take %g s to be there, and the run ends after %g s: raise --spawn-rate, or "
                "--run-time. Only the time when all of them are there counts.", users, rate, users / rate, limit
            )  # fmt: skip

    def end_if_through(self, gone: Callable[[Seat], bool] = lambda _: False) -> None:
        """The run ends here if nobody has anything more to send and nothing is in flight. `gone`: from whom nothing is
        to be expected."""
        book, environment = self.book, self._environment
        if book is None or book.ended_by:
            return
        spawned = environment.runner.state == STATE_RUNNING and environment.shape_class is None
        why, idle = book.ledger.through(gone, spawned)
        if why:
            for seat in idle:
                book.note_idle(seat)
            self.end_run(why)

    def end_run(self, why: str) -> None:
        """The run ends by itself; `why`: of `ending.WORDS`."""
        if self.book is not None and not self.book.ended_by:
            self.book.ended_by = why
            _log.info("The load ends: %s.", ending.in_words(why))
            gevent.spawn(self._environment.runner.quit if self._headless else self._stop_in_page)

    def _stop_in_page(self) -> None:
        """As Locust does where a run time is over."""
        given, environment = self._environment.parsed_options, self._environment
        environment.runner.stop()
        if given.autostart and given.autoquit != -1:
            gevent.sleep(given.autoquit)
            environment.runner.quit()
            if environment.web_ui is not None:
                environment.web_ui.stop()

    def _who_stops(self, signalled: bool) -> str:
        """What ends a run that does not end by itself, as far as can be told."""
        book, environment = self.book, self._environment
        run_time = environment.parsed_options.run_time
        if signalled:
            return ending.SIGNAL
        if environment.runner.shape_greenlet is gevent.getcurrent():
            return ending.SHAPE if self._search is None else ending.CAPACITY
        if book is not None and run_time and time.monotonic_ns() - book.started.monotonic_ns > (run_time - 1) * 1e9:
            return ending.RUN_TIME
        return ending.CODE if self._headless else ending.PAGE

    def stopping(self, signalled: bool) -> None:
        """No new task begins; what is in flight goes on."""
        if self.book is None:
            return
        self.book.ended_by = self.book.ended_by or self._who_stops(signalled)
        if self._search is not None:
            self._search.close()
        self.book.mark("stopping", self._environment.runner.user_count)
        waiting, limit = self.book.ledger.in_flight(), self._environment.stop_timeout
        if waiting and limit:
            _log.info("Waiting up to %g s for %d requests in flight; Ctrl-C cuts them.", limit, waiting)

    def end(self, refused: bool = False) -> Book | None:
        """The run is over: close the book and begin with its results, unless it was refused. Returns it if there was
        one."""
        book, self.book = self.book, None
        if book is None:
            return None
        self._ticker.kill(block=False)
        if self._live is not None:
            self._live.stop()
        book.finish(refused)
        if self._csv is not None:
            self._csv.finish()
        if book.gave_up:
            self._worst_exit = EXIT_REFUSED
        if book.incomplete:
            self._worst_exit = EXIT_ROWS_LOST
        self._results.append(gevent.spawn(self._conclude, book, self._scraping, refused))
        return book

    def wait_for_results(self) -> None:
        """Until every report is written, or Ctrl-C has come twice; then Locust's exit code is ours, if there is none
        yet."""
        for said in ("The report is being written. Ctrl-C once more: without it.", "No report is waited for."):
            try:
                if len(gevent.joinall(self._results, timeout=QUIETLY_SECONDS)) < len(self._results):
                    _log.info("Writing the report …")
                gevent.joinall(self._results)
                break
            except KeyboardInterrupt:
                _log.warning(said)
        gevent.killall(self._results)
        if self._worst_exit is not None and self._environment.process_exit_code is None:
            self._environment.process_exit_code = self._worst_exit

    def print_summary(self) -> None:
        """After Locust's own tables."""
        if self._summary and self._headless:  # else it was printed when the run ended
            print("\nAbove: Locust's own tables, of the whole run. Below: the steady part of it, exactly.")
            print(f"\n{self._summary}", flush=True)

    def spawned(self, users: int) -> None:
        """All users that were asked for are there."""
        if self.book is not None:
            self.note_target()
            self.book.spawned(users)
            self._tell_step(self.book.step)

    def note_target(self) -> None:
        """Another number of users may have been asked for."""
        if self.book is not None and self.book.note_target():
            self._tell_step(self.book.step)

    def _tick(self, book: Book) -> None:
        while True:
            for _ in range(LOOKS_A_SECOND):
                gevent.sleep(1.0 / LOOKS_A_SECOND)
                self.note_target()
            book.tick()
            self._look()
            if book.gave_up:
                self.end_run(ending.GAVE_UP)

    def _conclude(self, book: Book, scraping: Scraping | None, refused: bool) -> None:
        if scraping is not None:
            scraping.finish()
        if not refused:
            self._write_results(book)

    def _write_results(self, book: Book) -> None:
        """Summary and report, in a process of their own: pandas has no place beside an event loop."""
        command = [sys.executable, "-m", "tokenswarm.results", str(book.path)]
        utf8 = {**os.environ, "PYTHONUTF8": "1"}
        again = f"tokenswarm report {book.path}"
        try:  # in a group of its own: Ctrl-C in a terminal is for us, and we say what becomes of it
            done = subprocess.run(
                command, capture_output=True, text=True, encoding="utf-8", env=utf8, check=False, process_group=0
            )
        except gevent.GreenletExit:
            _log.warning("No report was written. What was measured is safe; for its report: %s", again)
            self._unjudged(book)
            raise
        if done.returncode:
            _log.error(
                "No report was written: %s\nWhat was measured is safe; try again: %s", done.stderr.strip(), again
            )
            self._unjudged(book)
            return
        summary = _summary(book.path)
        verdict = summary.get("verdict")
        book.set_verdict(verdict)
        self._summary = done.stdout
        if not self._headless:
            print(f"\n{self._summary}", flush=True)
        level = (verdict or {}).get("level")
        errors = book.ledger.totals().errors
        failed = {"errors": errors > 0, "invalid": level == "invalid"}
        failed["degraded"] = level in ("degraded", "invalid")
        goals = summary.get("slo") or {}
        nothing_passed = book.options.find_capacity and _answer(summary).get("users") is None
        failed["slo"] = goals.get("attained") is not True or nothing_passed
        if failed.get(book.options.fail_on or ""):
            missed = f" and its goals {_GOALS[goals.get('attained')]}" if book.options.fail_on == "slo" else ""
            _log.error("--fail-on %s: the run is %s, with %d errors%s", book.options.fail_on, level, errors, missed)
            self._worst_exit = EXIT_GOAL_MISSED

    def _unjudged(self, book: Book) -> None:
        """Nobody knows whether it would have failed on what it was to fail on: that is no success."""
        if book.options.fail_on:
            self._worst_exit = EXIT_GOAL_MISSED


def _answer(summary: dict[str, Any]) -> dict[str, Any]:
    """Of a search for capacity; empty where there is none."""
    return (summary.get("capacity") or {}).get("answer") or {}


def _has_goals(user_class: Any) -> bool:
    """Whether a class of users has goals of its own."""
    return bool((getattr(user_class, "options", None) or {}).get("slo"))


def _summary(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode((path / "summary.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise TargetError(f"{path / 'summary.json'}: {error}") from error
