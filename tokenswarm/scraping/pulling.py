"""One source, asked once a second for as long as the run lasts. What goes wrong is said once, and asked again."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Final, Protocol

import msgspec

from tokenswarm.record import one_line
from tokenswarm.scraping.asking import Asker, NoAnswer
from tokenswarm.scraping.exporter import Exporter
from tokenswarm.scraping.messages import HARDWARE, Scraped, Source, State, Task
from tokenswarm.scraping.server_page import ServerPage

PERIOD: Final = 1.0
STALLED_WINDOWS: Final = 3.0
"""So many windows, and seconds, without a new sample, and an exporter that answers has stopped to look."""
MOST_GAPS_TOLD: Final = 5
"""A server that is late every other second would fill the console; `failures` counts the others."""


class Asked(Protocol):
    """What is done with one kind of source."""

    def ask(self) -> str:
        """New lines. Raises NoAnswer."""
        ...

    def missed(self) -> str:
        """Lines that say that there was no answer; none where a gap says it."""
        ...


class Hardware:
    """An exporter: its clock, then its samples."""

    def __init__(self, source: Source, task: Task, state: State) -> None:
        self._asker = Asker(source, task)
        self._url = (source.at or source.url).rstrip("/")
        self._exporter = Exporter(task.anchor, state)
        self._fresh = time.monotonic()

    def ask(self) -> str:
        """As `Asked` has it."""
        try:
            body, sent, heard = self._asker.ask(f"{self._url}/clock")
            self._exporter.heard_clock(sent, body, heard)
            body, _, heard = self._asker.ask(f"{self._url}/samples?since={self._exporter.since}")
            lines = self._exporter.lines(body, heard)
        except msgspec.DecodeError as error:
            raise NoAnswer(f"that is no answer of an exporter of ours ({one_line(str(error))})") from None
        now = time.monotonic()
        if lines:
            self._fresh = now
        elif now - self._fresh > STALLED_WINDOWS * max(1.0, self._exporter.window_s):
            raise NoAnswer(f"it has taken no sample for {now - self._fresh:.0f} s")
        return lines

    def missed(self) -> str:
        """As `Asked` has it."""
        return ""


class ServerMetrics:
    """A model server's page."""

    def __init__(self, source: Source, task: Task, state: State) -> None:
        self._asker = Asker(source, task)
        self._url = source.url
        self._anchor = task.anchor
        self._page = ServerPage(source.url)

    def ask(self) -> str:
        """As `Asked` has it."""
        body, sent, heard = self._asker.ask(self._url)
        try:
            return self._page.lines(self._anchor.wall((sent + heard) // 2), body.decode())
        except ValueError as error:
            raise NoAnswer(f"that is no page of metrics ({one_line(str(error))[:100]})") from None

    def missed(self) -> str:
        """As `Asked` has it."""
        return self._page.no_answer(self._anchor.wall(time.monotonic_ns()))


class Puller:
    """Asks until it is told that the run is over, and once more then."""

    def __init__(self, source: Source, task: Task, tell: Callable[[Scraped], None]) -> None:
        self._source = source
        self._tell = tell
        self._state = State(file=source.file, url=source.url)
        kind = Hardware if source.file == HARDWARE else ServerMetrics
        self._asked: Asked = kind(source, task, self._state)
        self._failing_since: float | None = None
        self._gaps = 0

    def run(self, over: Event) -> None:
        """Until `over` is set."""
        due = time.monotonic()
        while not over.is_set():
            self._once()
            due = max(due + PERIOD, time.monotonic())
            over.wait(due - time.monotonic())
        self._once()

    def _once(self) -> None:
        lines, problem = "", ""
        try:
            lines = self._asked.ask()
        except NoAnswer as why:
            self._state.failures += 1
            lines = self._asked.missed()
            if self._failing_since is None:
                self._failing_since = time.monotonic()
                self._gaps += 1
                problem = (
                    f"{self._name}: {why}. It is asked again every second; {self._source.file} has a gap meanwhile."
                )
                if self._gaps == MOST_GAPS_TOLD:
                    problem += " Further gaps are not told here."
        else:
            self._state.answers += 1
            if self._failing_since is not None:
                problem = f"{self._name} answers again, after {time.monotonic() - self._failing_since:.0f} s."
                self._failing_since = None
        if self._gaps > MOST_GAPS_TOLD:
            problem = ""
        self._state.lines += lines.count("\n")
        self._tell(Scraped(file=self._source.file, lines=lines, problem=problem, state=self._state))

    @property
    def _name(self) -> str:
        option = "--hardware" if self._source.file == HARDWARE else "--server-metrics"
        return f"{option} {one_line(self._source.url)}"
