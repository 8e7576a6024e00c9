"""What is hooked onto Locust: options at the start, a run directory for each start of the load, results at its end.

Importing `tokenswarm.users` installs it. One `Session` an environment; it holds the run that is on, if one is.
"""

from __future__ import annotations

import gc
import inspect
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import gevent
import locust
import msgspec
from locust.event import EventHook
from locust.runners import LocalRunner

from tokenswarm import options as opts
from tokenswarm.embedded import EmbeddedSimulator
from tokenswarm.errors import OptionError, TargetError, TokenswarmError
from tokenswarm.protocols import PROTOCOLS
from tokenswarm.record import one_line
from tokenswarm.recording import directory
from tokenswarm.recording.locust_csv import LocustCsv
from tokenswarm.run import Run, make_transport
from tokenswarm.target import Target, check
from tokenswarm.transport.origin import Origin, parse_origin
from tokenswarm.ui.console import LiveLine

EXIT_REFUSED: Final = 2
EXIT_GOAL_MISSED: Final = 3
EXIT_ROWS_LOST: Final = 4

_log = logging.getLogger("tokenswarm")


def install() -> None:
    """Listen to Locust's events; once, however often it is called."""
    if hasattr(locust.events, "first_token"):
        return
    locust.events.first_token = EventHook()  # type: ignore[attr-defined]
    locust.events.output_tokens = EventHook()  # type: ignore[attr-defined]
    locust.events.init_command_line_parser.add_listener(opts.add_arguments)
    locust.events.init.add_listener(_on_init)


def current_run(environment: Any) -> Run | None:
    """The run that is on, or None where none is."""
    session: Session | None = getattr(environment, "tokenswarm", None)
    return None if session is None else session.run


def _on_init(environment: Any, **_: Any) -> None:
    session = environment.tokenswarm = Session(environment)
    try:
        session.prepare()
    except TokenswarmError as error:
        session.close()
        print(f"\ntokenswarm: the load test was not started.\n{error}\n", file=sys.stderr, flush=True)
        sys.exit(EXIT_REFUSED)


class Session:
    """Everything from Locust's start to its exit; several runs one after another, in the web UI."""

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self.run: Run | None = None
        self._given = environment.parsed_options
        self._simulator: EmbeddedSimulator | None = None
        self._checked: tuple[opts.Options, str, Target] | None = None
        self._csv: LocustCsv | None = None
        self._live: LiveLine | None = None
        self._results: list[gevent.Greenlet] = []
        self._summary = ""
        self._worst_exit: int | None = None

    @property
    def _headless(self) -> bool:
        return bool(self._given.headless)

    def prepare(self) -> None:
        """At Locust's start. Raises TokenswarmError where a run could not go well."""
        if not isinstance(self.environment.runner, LocalRunner) or getattr(self._given, "processes", None):
            raise OptionError("--master, --worker and --processes are not supported: run one process a machine.")
        options = opts.parse(self._given)
        opts.api_key()
        directory.check(options.run_dir)
        stop_timeout = self.environment.stop_timeout
        if stop_timeout == opts.DEFAULT_STOP_TIMEOUT:
            self.environment.stop_timeout = min(stop_timeout, options.request_timeout)
        if self._headless and not self._given.print_stats:
            self._given.only_summary = True
        if not self.environment.host and not any(user.host for user in self.environment.user_classes):
            self._simulator = EmbeddedSimulator()
            self.environment.host = self._simulator.url
            _log.warning("NO --host WAS GIVEN: the load goes to the embedded SIMULATOR, not to a real model server.")
        if self._headless:
            self._check(options)
        self._listen()

    def close(self) -> None:
        """Ends what runs beside us."""
        if self._simulator is not None:
            self._simulator.stop()
            self._simulator = None

    # Locust's events

    def _listen(self) -> None:
        # Python would raise KeyboardInterrupt in whatever user runs just now, and cost that user's request.
        hub = gevent.get_hub()
        self._interrupt = hub.loop.signal(signal.SIGINT, ref=False)
        self._interrupt.start(hub.parent.throw, KeyboardInterrupt)
        events = self.environment.events
        events.test_start.add_listener(self._on_start)
        events.spawning_complete.add_listener(self._on_spawned)
        events.test_stopping.add_listener(self._on_stopping)
        events.test_stop.add_listener(self._on_stop)
        events.quitting.add_listener(self._on_quitting)
        events.quit.add_listener(self._on_quit)
        inspect.stack()  # as Locust does when it stops: the first time takes 50 ms, better now than with tokens coming
        if self._headless and self.environment.shape_class:
            # Locust's own handler comes after the whole shape; until then a SIGTERM would kill us with our rows.
            gevent.signal_handler(signal.SIGTERM, self.environment.runner.quit)

    def _on_start(self, **_: Any) -> None:
        if self.run is not None:
            text = "It came while the run before was still ending: start again when that has stopped."
            self.run.recorder.problem("Locust's own tables were cleared by a start while the run was still ending.")
            self._say_refusal(text)
            gevent.spawn(self._end_refused_start)
            return
        try:
            options = opts.parse(self._given)
            origin, target = self._check(options)
            simulated = self._simulator is not None and origin == parse_origin(self._simulator.url)
            self.run = Run(self.environment, options, origin, target.model, simulated, _log.error)
        except TokenswarmError as error:
            self._refuse(str(error))
            return
        if self.environment.process_exit_code == EXIT_REFUSED:
            self.environment.process_exit_code = None  # an earlier start was refused; this one mended it
        kind = "the SIMULATOR at " if self.run.simulator else ""
        model = one_line(target.model)
        _log.info("Load on %s%s, model %s. Run directory: %s", kind, origin.url, model, self.run.path)
        if options.run_dir and self.run.path.name != Path(options.run_dir).name:
            _log.warning("%s was there already: this run goes to %s", options.run_dir, self.run.path)
        gc.freeze()  # what is there now stays, and need not be looked at while tokens arrive
        self._csv = LocustCsv(self.environment, self.run.path, self.run.recorder.problem)
        if self._headless:
            self._live = LiveLine(self.run)

    def _on_spawned(self, user_count: int, **_: Any) -> None:
        if self.run is None:
            return
        self.run.mark("spawned", user_count)
        if self._host_changed(self.run.origin):
            text = f"The host cannot change while a run is on: it stays {self.run.origin.url}. Stop, then start again."
            self.run.recorder.problem(text)
            self.environment.host = self.run.origin.url

    def _on_stopping(self, **_: Any) -> None:
        if self.run is None:
            return
        self.run.mark("stopping", self.environment.runner.user_count)
        self.run.stopping = True
        waiting, limit = self.run.recorder.in_flight, self.environment.stop_timeout
        if waiting and limit:
            _log.info("Waiting up to %g s for %d requests in flight; Ctrl-C cuts them.", limit, waiting)

    def _on_stop(self, **_: Any) -> None:
        """All users have ended. Switches no greenlet: a user that stops the run from a task dies at the next switch."""
        run, self.run = self.run, None
        if run is None:
            return
        if self._live is not None:
            self._live.stop()
        run.finish()
        if self._csv is not None:
            self._csv.finish()
        if run.recorder.rows_lost:
            self._worst_exit = EXIT_ROWS_LOST
        self._results.append(gevent.spawn(self._write_results, run))

    def _on_quitting(self, **_: Any) -> None:
        """Before Locust fixes its exit code: drain, write everything, judge."""
        runner = self.environment.runner
        try:
            runner.quit()
        except KeyboardInterrupt:
            self._cut()
        gevent.joinall(self._results)
        self.close()
        if self._worst_exit is not None and self.environment.process_exit_code is None:
            self.environment.process_exit_code = self._worst_exit

    def _on_quit(self, **_: Any) -> None:
        if self._summary:
            print("\nAbove: Locust's own tables, of the whole run. Below: the steady part of it, exactly.")
            print(f"\n{self._summary}", flush=True)

    # The steps

    def _host_changed(self, origin: Origin) -> bool:
        try:
            return parse_origin(self._host()) != origin
        except OptionError:  # what was typed is no host at all
            return True

    def _check(self, options: opts.Options) -> tuple[Origin, Target]:
        """The target, checked once for each change of host or options."""
        origin = parse_origin(self._host())
        if self._checked is None or self._checked[:2] != (options, origin.url):
            transport = make_transport(options, origin)
            try:
                target = check(transport, PROTOCOLS[options.protocol], options)
            finally:
                transport.close()
            for note in target.notes:
                _log.warning(note)
            self._checked = (options, origin.url, target)
        return origin, self._checked[2]

    def _host(self) -> str:
        if self.environment.host:
            return str(self.environment.host)
        hosts = {user.host for user in self.environment.user_classes if user.host}
        if len(hosts) != 1:
            raise OptionError(f"the user classes name {len(hosts)} hosts; one run loads one: give it with --host")
        return str(hosts.pop())

    def _refuse(self, why: str) -> None:
        """The load was started but must not go on."""
        self._say_refusal(why)
        self.environment.process_exit_code = EXIT_REFUSED
        gevent.spawn(self.environment.runner.quit if self._headless else self.environment.runner.stop)

    def _end_refused_start(self) -> None:
        """A start during a stop leaves Locust running, by its own account, with nobody to run."""
        while self.run is not None:
            gevent.sleep(0.05)
        runner = self.environment.runner
        if runner.spawning_greenlet is not None:
            runner.spawning_greenlet.kill()
        runner.stop()

    def _say_refusal(self, why: str) -> None:
        """On the console, and in the web UI's table of exceptions."""
        _log.error("The load test was not started. %s", why)
        self.environment.runner.log_exception("local", f"The load test was not started. {why}", why)

    def _cut(self) -> None:
        """A second Ctrl-C: what is in flight ends now, as incomplete rows."""
        _log.warning("Cutting what is in flight.")
        self.environment.stop_timeout = 0
        runner = self.environment.runner
        runner.user_greenlets.kill(block=True, timeout=5)
        if self.run is not None:
            self._on_stop()

    def _write_results(self, run: Run) -> None:
        """Summary and report, in a process of their own: pandas has no place beside an event loop."""
        command = [sys.executable, "-m", "tokenswarm.results", str(run.path)]
        utf8 = {**os.environ, "PYTHONUTF8": "1"}
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=utf8, check=False)
        if done.returncode:
            again = f"python -m tokenswarm.results {run.path}"
            _log.error(
                "No report was written: %s\nWhat was measured is safe; try again: %s", done.stderr.strip(), again
            )
            if run.options.fail_on:
                self._worst_exit = EXIT_GOAL_MISSED
            return
        verdict = _verdict(run.path)
        run.set_verdict(verdict)
        self._summary = done.stdout
        if not self._headless:
            print(f"\n{self._summary}", flush=True)
        level = (verdict or {}).get("level")
        failed = {"errors": run.recorder.totals.errors > 0, "invalid": level == "invalid"}
        failed["degraded"] = level in ("degraded", "invalid")
        if failed.get(run.options.fail_on or ""):
            _log.error(
                "--fail-on %s: the run is %s, with %d errors", run.options.fail_on, level, run.recorder.totals.errors
            )
            self._worst_exit = EXIT_GOAL_MISSED


def _verdict(path: Path) -> dict[str, Any] | None:
    try:
        summary = msgspec.json.decode((path / "summary.json").read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise TargetError(f"{path / 'summary.json'}: {error}") from error
    verdict = summary.get("verdict")
    return verdict if isinstance(verdict, dict) else None
