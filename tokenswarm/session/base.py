"""What all sessions share: Locust's environment, the host, refusals, Ctrl-C. Not here: users and books."""

from __future__ import annotations

import inspect
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import gevent

from tokenswarm.errors import OptionError, TokenswarmError
from tokenswarm.options import Options
from tokenswarm.recording.book import Book
from tokenswarm.run import Run
from tokenswarm.transport.origin import Origins, function_origins, parse_origins

EXIT_REFUSED: Final = 2
EXIT_GOAL_MISSED: Final = 3
EXIT_ROWS_LOST: Final = 4

_log = logging.getLogger("tokenswarm")


class Session:
    """One a Locust process; several runs one after another, in the web UI."""

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self.given = environment.parsed_options
        self.signalled = False
        """Whether a signal ends this process."""
        self._interrupts = 0

    @property
    def book(self) -> Book | None:
        """What is written of the run that is on: `book.path` is its directory. None on a worker and between runs."""
        return None

    @property
    def headless(self) -> bool:
        """Whether nobody sits before a web page."""
        return bool(self.given.headless)

    def prepare(self) -> None:
        """At Locust's start. Raises TokenswarmError where a run could not go well."""
        raise NotImplementedError

    def current_run(self) -> Run | None:
        """What this process's users run, or None where there is no run for them. May wait for a run that begins."""
        return None

    def cut(self) -> None:
        """What is in flight ends now, as incomplete rows."""

    def close(self) -> None:
        """Ends what runs beside us."""

    def abandon(self) -> None:
        """Locust ends here and now, since `prepare` refused."""
        self.close()

    @property
    def needs_host(self) -> bool:
        """Whether somebody must still say where requests go."""
        given = self.given.query_model or self.environment.host
        return not given and not any(user.host for user in self.environment.user_classes)

    def origins(self, options: Options) -> Origins:
        """Where requests go. Raises OptionError."""
        return function_origins(options.query_model) if options.query_model else parse_origins(self.host())

    def host(self) -> str:
        """The target as given. Raises OptionError if the user classes name several."""
        if self.environment.host:
            return str(self.environment.host)
        hosts = {user.host for user in self.environment.user_classes if user.host}
        if len(hosts) != 1:
            raise OptionError(f"the user classes name {len(hosts)} hosts; one run loads one: give it with --host")
        return str(hosts.pop())

    def keep_host(self, origins: Origins) -> str | None:
        """Undo a change of the host in mid-run, and say so; None if there was none."""
        try:
            if self.given.query_model or parse_origins(self.host()) == origins:
                return None
        except TokenswarmError:  # what was typed is no host at all
            pass
        self.environment.host = origins.url
        return f"The host cannot change while a run is on: it stays {origins.url}. Stop, then start again."

    def refuse(self, why: str) -> None:
        """The load was started but must not go on."""
        self.say_refusal(why)
        self.environment.process_exit_code = EXIT_REFUSED
        gevent.spawn(self.environment.runner.quit if self.headless else self.environment.runner.stop)

    def say_refusal(self, why: str) -> None:
        """On the console, and in the web UI's table of exceptions."""
        _log.error("The load test was not started. %s", why)
        self.environment.runner.log_exception("local", f"The load test was not started. {why}", why)

    def refuse_start_while_ending(self, book: Book) -> NoReturn:
        """Locust would mix both runs. Ends the greenlet that starts: all else would leave Locust running for nobody."""
        book.problem("Locust's own tables were cleared by a start while the run was still ending.")
        self.say_refusal("It came while the run before was still ending: start again when that has stopped.")
        raise gevent.GreenletExit

    def accept_after_refusal(self) -> None:
        """An earlier start was refused; this one mended it."""
        if self.environment.process_exit_code == EXIT_REFUSED:
            self.environment.process_exit_code = None

    def watch_signals(self) -> None:
        """Ctrl-C and SIGTERM end the run in good order, whatever runs when they come."""
        # Python would raise KeyboardInterrupt in whatever user runs just now, and cost that user's request.
        hub = gevent.get_hub()
        self._interrupt = hub.loop.signal(signal.SIGINT, ref=False)
        inspect.stack()  # as Locust does when it stops: the first time takes 50 ms, better now than with tokens coming
        if self.headless and self.environment.shape_class and not self.given.worker:
            # Locust's own handling begins after the whole shape; until then either would end us without our rows.
            self._interrupt.start(self._interrupted)
            gevent.signal_handler(signal.SIGTERM, self._terminated)
        else:
            self._interrupt.start(hub.parent.throw, KeyboardInterrupt)

    def wait_after_the_load(self, wait: Callable[[], None]) -> None:
        """Ctrl-C is a KeyboardInterrupt in `wait`, and nothing any more when that is over: all is written then."""
        self._interrupt.stop()
        self._interrupt.start(gevent.get_hub().parent.throw, KeyboardInterrupt)
        wait()
        self._interrupt.stop()
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _terminated(self) -> None:
        self.signalled = True
        self.environment.runner.quit()

    def _interrupted(self) -> None:
        self.signalled = True
        gevent.spawn(self.cut if self._interrupts else self.environment.runner.quit)
        self._interrupts += 1


def machine() -> str:
    """Names what process numbers refer to: this boot of this computer and this container. Empty where unknown."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
