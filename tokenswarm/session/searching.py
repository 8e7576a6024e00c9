"""The Locust side of `--find-capacity`: a shape that does what the search says, and the rows that it learns from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from locust import LoadTestShape
from locust.runners import STATE_INIT, MasterRunner

from tokenswarm.errors import OptionError
from tokenswarm.load import arrivals
from tokenswarm.load.capacity import Search
from tokenswarm.load.observing import ended
from tokenswarm.load.words import answer_line, probe_line
from tokenswarm.options import DEFAULT_STOP_TIMEOUT, Options
from tokenswarm.options.classes import own_options
from tokenswarm.recording.book import Book
from tokenswarm.recording.messages import Batch
from tokenswarm.slo import parse_slo

MOST_USERS: Final = 1000
"""Tried from the web page where it names no number."""
FASTEST_SPAWN: Final = 100.0
"""Users a second, beyond which Locust warns."""
RAMP_SECONDS: Final = 2.0
"""To the users of a level, where no --spawn-rate is given."""
MARGIN_SECONDS: Final = 10.0

_log = logging.getLogger("tokenswarm")


class CapacityShape(LoadTestShape):
    """Asked by Locust once a second how many users there should be. A search a run."""

    abstract = True
    use_common_options = True

    def __init__(self, environment: Any, current_book: Callable[[], Book | None], options: Options) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.runner = environment.runner
        self._given = environment.parsed_options
        self._spawn_rate: float | None = self._given.spawn_rate  # Locust puts 1 here later, if there was nothing
        self._current_book = current_book
        self._options = options
        self._book: Book | None = None
        self._search: Search | None = None
        self._told = 0
        self._marked: Any = None

    def reset_time(self) -> None:
        """As Locust has it: a run begins, and its search."""
        super().reset_time()  # type: ignore[no-untyped-call]
        self._book = self._search = None

    def tick(self) -> tuple[int, float] | None:
        """(users, spawn rate); None when the search is over."""
        book = self._current_book()
        if book is None:
            if isinstance(self.runner, MasterRunner) and self.runner.state == STATE_INIT:
                self.runner.shape_last_tick = None  # no worker was there yet: it would not ask again for the same
            return (1, self._rate(1)) if self._book is None else None
        if book is not self._book:
            self._begin(book)
        search, runner = self._search, self.runner
        if search is None or runner is None:
            return None
        users = search.tick(book.now(), runner.user_count, book.ledger.in_flight())
        self._tell(book, search)
        return None if users is None else (users, self._rate(users))

    def take(self, batch: Batch) -> None:
        """Rows of a worker, or of this process itself."""
        if self._search is not None and self._book is not None and batch.run == self._book.run_id:
            self._search.feed(ended(batch.rows))

    def close(self) -> None:
        """The load ends, whatever the search had still to do."""
        if self._book is not None and self._search is not None:
            self._search.stop(self._book.now())
            self._tell(self._book, self._search)
        self._search = None

    def _begin(self, book: Book) -> None:
        options, limit = book.options, self._given.run_time
        self._book, self._told, self._marked = book, 0, None
        self._search = Search(
            parse_slo(options.slo or ""),
            rate_per_user=_rate_per_user(options),
            most=self._given.num_users or MOST_USERS,
            settling=options.warmup if isinstance(options.warmup, float) else None,
            time_limit=float(limit) if limit else None,
            drain_limit=options.request_timeout + MARGIN_SECONDS,
        )

    def _rate(self, users: int) -> float:
        if not users:
            return FASTEST_SPAWN
        return self._spawn_rate or min(FASTEST_SPAWN, max(1.0, users / RAMP_SECONDS))

    def _tell(self, book: Book, search: Search) -> None:
        """What is new goes into run.json and onto the console."""
        if search.probe is not None and search.probe is not self._marked:
            self._marked = search.probe
            book.mark("probe", search.probe.tried.level)
        new = search.probes[self._told :]
        for probe in new:
            _log.info("Capacity: %s", probe_line(probe))
        done = search.answer is not None and (book.capacity or {}).get("answer") is None
        if done:
            _log.info("Capacity: %s", answer_line(search.answer or {}))
        if new or done:
            self._told = len(search.probes)
            book.set_capacity({"probes": list(search.probes), "answer": search.answer})


def install(
    environment: Any, current_book: Callable[[], Book | None], options: Options, headless: bool
) -> CapacityShape:
    """Let the search steer. Raises OptionError where somebody else would, or where nothing limits it."""
    other = environment.shape_class
    if other is not None:
        raise OptionError(
            f"--find-capacity decides how many users there are, and so does the load shape {type(other).__name__}: "
            "leave one of them out"
        )
    if (headless or environment.parsed_options.autostart) and not environment.parsed_options.num_users:
        raise OptionError("--find-capacity needs --users: how many may it try at the most?")
    _rate_per_user(options)
    _ask_for_fresh_prompts(environment)
    if environment.stop_timeout == DEFAULT_STOP_TIMEOUT:  # an overload is to drain, not to be cut
        environment.stop_timeout = options.request_timeout
    shape = environment.shape_class = CapacityShape(environment, current_book, options)
    return shape


def _rate_per_user(options: Options) -> float | None:
    """Tasks a second of each user in the open loop; None in the closed one. Raises OptionError for a trace."""
    kind = arrivals.parse(options.arrivals)
    if kind.trace:
        raise OptionError(
            f"--find-capacity decides how much is sent, and so do the times of --arrivals {options.arrivals}"
        )
    return options.rate_per_user if kind.open else None


def _ask_for_fresh_prompts(environment: Any) -> None:
    """A level that is sent what the level before was sent would be answered from a cache. A dataset, and prefixes in
    common, are left as they are: they are meant so."""
    given = environment.parsed_options
    of_classes = [option for user in environment.user_classes for option in own_options(user)]
    if not (given.dataset or given.shared_prefix_tokens or {"dataset", "shared_prefix_tokens"} & {*of_classes}):
        given.unique_prompts = True
