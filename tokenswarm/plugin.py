"""What is hooked onto Locust: our options, and a session for each environment that Locust makes.

Importing `tokenswarm.users` installs it.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import gevent
import locust
from locust.event import EventHook
from locust.runners import MasterRunner, WorkerRunner

from tokenswarm import options as opts
from tokenswarm.errors import TokenswarmError
from tokenswarm.run import Run
from tokenswarm.session.base import EXIT_REFUSED, Session
from tokenswarm.session.local import LocalSession
from tokenswarm.session.master import MasterSession
from tokenswarm.session.worker import WorkerSession
from tokenswarm.ui import metrics_page

_INIT_SECONDS: Final = 10.0


def install() -> None:
    """Listen to Locust's events; once, however often it is called."""
    if hasattr(locust.events, "first_token"):
        return
    locust.events.first_token = EventHook()  # type: ignore[attr-defined]
    locust.events.output_tokens = EventHook()  # type: ignore[attr-defined]
    locust.events.init_command_line_parser.add_listener(opts.add_arguments)
    locust.events.init.add_listener(_on_init)


def current_run(environment: Any) -> Run | None:
    """The run that is on, or None where none is. May wait for one that begins."""
    give_up = time.monotonic() + _INIT_SECONDS
    # A worker that joins a run may be told to spawn users before Locust has come to its init event.
    while (session := getattr(environment, "tokenswarm", None)) is None and time.monotonic() < give_up:
        gevent.sleep(0.01)
    return session.current_run() if isinstance(session, Session) else None


def _on_init(environment: Any, runner: Any, web_ui: Any = None, **_: Any) -> None:
    kinds: dict[type, type[Session]] = {MasterRunner: MasterSession, WorkerRunner: WorkerSession}
    chosen = next((session for kind, session in kinds.items() if isinstance(runner, kind)), LocalSession)
    session = environment.tokenswarm = chosen(environment)
    try:
        session.prepare()
    except TokenswarmError as error:
        session.abandon()
        print(f"\ntokenswarm: the load test was not started.\n{error}\n", file=sys.stderr, flush=True)
        sys.exit(EXIT_REFUSED)
    if web_ui is not None:
        metrics_page.serve(web_ui, session)
    # What the loop takes for now is from before the imports: a run time that begins now would end by as much too early.
    gevent.get_hub().loop.update_now()
