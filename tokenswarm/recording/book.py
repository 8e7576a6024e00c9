"""The book of a run: what goes into its directory from the start of the load to the verdict. Formats no rows.

Kept once a run, by the process that Locust is started or the master in; what it is given to write comes from workers'
batches, or from this process's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from tokenswarm.errors import RunDirectoryError
from tokenswarm.load import arrivals
from tokenswarm.load.think_time import thinks
from tokenswarm.options import Options, redact, secret_values
from tokenswarm.options.classes import own_options
from tokenswarm.options.ends import dealt
from tokenswarm.record import ERROR_LENGTH, csv_header, one_line
from tokenswarm.recording import directory, manifest
from tokenswarm.recording.directory import INTERVALS, REQUESTS, RESPONSES
from tokenswarm.recording.ledger import FINISHED, LATE, LOST, Ledger, Seat
from tokenswarm.recording.messages import Batch, Done, Step
from tokenswarm.scraping import exporter, server_page
from tokenswarm.scraping.messages import HARDWARE, SERVER_METRICS, Scraped, State
from tokenswarm.timing import Anchor

SCRAPED_HEADERS: Final = {HARDWARE: exporter.header, SERVER_METRICS: server_page.header}

SILENT_SECONDS: Final = 5.0
"""A worker reports once a second; after so long somebody should know."""
AHEAD_SECONDS: Final = 0.25
"""What all workers do at one instant is announced so long before."""


class Book:
    """Made at the start of the load; `finish` at its end. Raises RunDirectoryError."""

    def __init__(
        self,
        environment: Any,
        options: Options,
        target: dict[str, Any],
        expected: list[str],
        say: Callable[[str], None],
    ) -> None:
        """`target`: what run.json says of it. `expected`: Locust's names of the workers that are there now. `say` takes
        a sentence for the console about something that went wrong."""
        self.environment = environment
        self.options = options
        self.target = target
        self.ledger = Ledger(expected)
        self.problems: list[str] = []
        self.gave_up = False
        """Whether a worker has said that the run cannot go on; why is one of the problems."""
        self.ended_by = ""
        """What ended the run, of `ending.WORDS`; empty while it lasts."""
        self.watch: Callable[[Batch], None] | None = None
        """Is given each batch, once it is written down."""
        self.capacity: dict[str, Any] | None = None
        """What a search for capacity has found so far."""
        self.rows_written = 0
        self.rows_lost = 0
        self.started = Anchor(time.time_ns(), time.monotonic_ns())
        self._say = say
        self._secrets = secret_values(options)
        self._label = options.label or locustfile_stem(environment)
        self._directory = directory.create(options.run_dir, self._label, self.started.wall_ns / 1e9)
        self.path: Path = self._directory.path
        self._sources: dict[tuple[str, str], State] = {}
        self._ended: int | None = None
        self._verdict: Any = None
        self._changed = False
        self._circumstances = {
            "suite": manifest.suite(),
            "host": manifest.host(),
            "command": manifest.command(self.redact),
        }
        self._boundaries: list[dict[str, Any]] = []
        self._asked = -1
        self.step = Step(run=self.run_id, serial=0, number=0, users=0, at=self.now())
        """The latest."""
        self._through = False
        self._boundary("start", 0)
        self.note_target()
        self._write_manifest()
        self._directory.open(REQUESTS, INTERVALS, RESPONSES if options.save_responses else None)
        self._append(REQUESTS, csv_header().encode())

    @property
    def run_id(self) -> str:
        """The directory's name, by which workers call the run."""
        return self.path.name

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self._ended is not None

    @property
    def incomplete(self) -> bool:
        """Whether rows are known to be missing: no place on the disk, a worker lost, a report that never came."""
        return self.rows_lost > 0 or any(seat.worker.status == LOST for seat in self.ledger)

    def now(self) -> float:
        """UTC epoch seconds on the run's clock, which no setting of the wall clock moves."""
        return self.started.wall(time.monotonic_ns())

    def join(self, client_id: str = "", **known: Any) -> Seat:
        """A worker, or this process itself, takes part from now on."""
        seat = self.ledger.join(client_id, joined=self.now(), **known)
        seat.heard = time.monotonic()
        self._changed = True
        return seat

    def ready(self, seat: Seat, model: str, clock: str) -> None:
        """A worker's users begin: on which model, and whose clock stamps its arrivals."""
        seat.ready = True
        seat.worker.clock = "kernel" if clock == "kernel" else "user"
        self.target["model"] = self.target["model"] or one_line(model)
        self._changed = True

    def take(self, batch: Batch, client_id: str = "") -> None:
        """Write down what a worker measured, also after the end. Raises MessageError on a batch that cannot be of this
        run, and RunDirectoryError where the files are gone."""
        seat = self.ledger.seat(batch.worker, client_id)
        seat.heard = time.monotonic()
        if not seat.take(batch):
            return
        seat.worker.last_report = self.now()
        if not self.ended:
            self._write(seat, batch)
            if self.watch is not None:
                self.watch(batch)
            return
        self._directory.reopen(REQUESTS, INTERVALS, RESPONSES if self.options.save_responses else None)
        try:
            self._write(seat, batch)
        finally:
            self.rows_lost += self._directory.close()[0]
        self._conclude_late(seat)

    @property
    def sources(self) -> list[State]:
        """Exporters and metrics pages that are asked, and how each does."""
        return list(self._sources.values())

    def scraped(self, news: Scraped) -> None:
        """Write down what the scraping process found, also after the end. Raises RunDirectoryError where a new file
        cannot be made."""
        key = news.file, news.state.url
        if key not in self._sources and not any(file == news.file for file, _ in self._sources):
            self._directory.open(news.file)
            self._append(news.file, SCRAPED_HEADERS[news.file]().encode())
        self._sources[key] = news.state
        if news.problem:  # a server may tell what it was sent
            self.problem(self.redact(news.problem))
        lines = self.redact(news.lines).encode()
        if not self.ended:
            self._append(news.file, lines)
            return
        try:
            self._directory.reopen(news.file)
            self._append(news.file, lines)
        except RunDirectoryError as error:
            self.problem(str(error))
        for sentence in self._directory.close()[1]:
            self.problem(sentence)
        self._write_manifest()

    def done(self, message: Done, client_id: str = "") -> None:
        """A worker's load has ended. Raises MessageError."""
        seat = self.ledger.seat(message.worker, client_id)
        seat.heard = time.monotonic()
        seat.done(message)
        if self.ended:
            self._conclude_late(seat)

    def _write(self, seat: Seat, batch: Batch) -> None:
        for name, lines in ((REQUESTS, batch.rows), (RESPONSES, batch.responses), (INTERVALS, batch.interval)):
            if lines and (name != RESPONSES or self.options.save_responses):
                self._append(name, lines)
        self.rows_written += batch.row_count
        # Who never had anything to send changes nothing.
        if batch.through and batch.totals.started and not self._through:
            self._through = True
            self._boundary("through", self._asked)
        ending = f"The load ends here. {batch.gave_up}" if batch.gave_up and not self.gave_up else ""
        self.gave_up = self.gave_up or bool(ending)
        for text in filter(None, (*batch.problems, ending)):
            self.problem(f"{_named(seat)}: {one_line(text)}" if seat.worker.client_id else text)

    def note_idle(self, seat: Seat) -> None:
        """The run ends, and this worker never had users."""
        of = dealt(self.options) or "what was to be sent"
        self.problem(
            f"{_named(seat)} never had users, and its share of {of} was not sent: ask for as many users as there are "
            "workers, or more."
        )

    def problem(self, text: str) -> None:
        """Something went wrong that the run must tell: on the console now, in run.json at the end."""
        self.problems.append(text)
        self._changed = True
        self._say(text)

    def mark(self, event: str, users: int) -> None:
        """A phase boundary, now; a change of the asked number of users, if there was one, comes before it."""
        self.note_target()
        self._boundary(event, users)

    def note_target(self) -> bool:
        """The asked number of users, if it has changed; says whether it has. `step` is then a new one."""
        asked = self.environment.runner.target_user_count
        if asked == self._asked:
            return False
        first, self._asked = self._asked < 0, asked
        self._boundary("target", asked)
        number = 0 if first else self.step.number + 1
        self.step = Step(run=self.run_id, serial=self.step.serial + 1, number=number, users=asked, at=self.now())
        return True

    def spawned(self, users: int) -> None:
        """All users that were asked for are there; `step` is a new one."""
        self.mark("spawned", users)
        self.step = msgspec.structs.replace(
            self.step, serial=self.step.serial + 1, users=users, at=self.now() + AHEAD_SECONDS, reached=True
        )

    def tell_again(self) -> Step:
        """The latest step, announced anew, since other workers have its users now."""
        self.step = msgspec.structs.replace(self.step, serial=self.step.serial + 1, at=self.now() + AHEAD_SECONDS)
        return self.step

    def tick(self) -> None:
        """Once a second: what has changed goes into run.json, and whoever has fallen silent is named."""
        now = time.monotonic()
        for seat in self.ledger:
            worker = seat.worker
            silent = bool(worker.client_id) and now - seat.heard > SILENT_SECONDS and not seat.complete
            if silent and not seat.said_to_be_silent:
                text = f"{_named(seat)} has said nothing for {SILENT_SECONDS:g} s"
                self._say(f"{text}; it had {worker.in_flight} requests in flight.")
            seat.said_to_be_silent = silent
        if self._changed:
            self._write_manifest()

    def finish(self, refused: bool = False) -> None:
        """The run is over: name what is missing, write everything, close the files. Switches no greenlet. `refused`: it
        was ended before all workers had come, so that nobody who did not is missing."""
        for seat in self.ledger:
            self._conclude(seat)
        for client_id in () if refused else self.ledger.absent():
            self._conclude(self.join(client_id, status=LOST))
        self.rows_lost, sentences = self._directory.close()
        self.rows_written -= self.rows_lost
        for sentence in sentences:
            self.problem(sentence)
        self._load = self._asked_load()
        self._ended = time.monotonic_ns()
        self._boundary("stopped", 0)
        self._write_manifest()

    def set_verdict(self, verdict: Any) -> None:
        """The verdict, once the results are there."""
        self._verdict = verdict
        self._write_manifest()

    def set_capacity(self, found: dict[str, Any]) -> None:
        """What a search for capacity has found so far: its probes, and its answer once there is one."""
        self.capacity = found
        self._changed = True

    def redact(self, text: str) -> str:
        """Text in which no key or expanded header value stands."""
        return redact(text, self._secrets)

    def _conclude_late(self, seat: Seat) -> None:
        if seat.worker.status == LOST and seat.complete:
            seat.worker.status = LATE
            again = f"tokenswarm report {self.path}"
            self.problem(f"{_named(seat)} came back after the run was over. Its rows are in now; judge again: {again}")
        self._write_manifest()

    def _conclude(self, seat: Seat) -> None:
        worker = seat.worker
        if worker.status == LOST:
            self.problem(f"{_named(seat)} had users to run and never reported.")
            self._note_share(seat)
            return
        if seat.complete:
            worker.status = FINISHED
            return
        worker.status = LOST
        last = {"time": worker.last_report or worker.joined, "event": "lost", "users": self._asked}
        self._boundaries = sorted([*self._boundaries, last], key=lambda boundary: float(boundary["time"]))
        silent = self.now() - (worker.last_report or worker.joined)
        text = f"{_named(seat)} was lost: nothing came from it for the last {silent:.0f} s"
        if worker.in_flight:
            text += f", and {worker.in_flight} requests were in flight then"
        self.problem(f"{text}. What it did since is not in this run.")
        self._note_share(seat)
        if seat.missing:
            self.problem(f"{_named(seat)}: {seat.missing} of its reports, of a second each, are missing.")

    def _note_share(self, seat: Seat) -> None:
        if of := dealt(self.options):
            self.problem(f"{_named(seat)} had a share of {of}, and the rest of it was not sent.")

    def _append(self, name: str, lines: bytes) -> None:
        problem = self._directory.append(name, lines)
        if problem:
            self.problem(problem)

    def _boundary(self, event: str, users: int) -> None:
        self._boundaries.append({"time": self.now(), "event": event, "users": users})
        self._changed = True

    def _write_manifest(self) -> None:
        if not self.ended:  # afterwards Locust's options are those of the next run
            self._load = self._asked_load()
        self._changed = False
        problem = self._directory.write_json("run.json", self._manifest())
        if problem:
            self.problems.append(problem)

    def _manifest(self) -> dict[str, Any]:
        anchor, ended = self.started, self._ended
        return {
            "schema": manifest.SCHEMA,
            "run_id": self.run_id,
            "label": self._label,
            **self._circumstances,
            "target": self.target,
            "options": {
                **msgspec.to_builtins(self.options, enc_hook=str),
                "headers": [h.partition(":")[0] for h in self.options.headers],
            },
            "seed": self.options.seed,
            "user_classes": [
                {"name": user.__name__, "think_time": self._thinks(user), "options": own_options(user)}
                for user in self.environment.user_classes
            ],
            "load": self._load,
            "workers": [msgspec.to_builtins(seat.worker) for seat in self.ledger],
            "start": manifest.instant(anchor.wall_ns, anchor.monotonic_ns),
            "end": None if ended is None else manifest.instant(anchor.wall_ns + ended - anchor.monotonic_ns, ended),
            "ended_by": self.ended_by or None,
            "boundaries": self._boundaries,
            "capacity": self.capacity,
            "scraped": [msgspec.to_builtins(state) for state in self.sources],
            "rows": {"written": self.rows_written, "lost": self.rows_lost},
            "problems": self.problems,
            "user_exceptions": [
                {"count": count, "message": self.redact(text)[:ERROR_LENGTH]}
                for text, count in self.ledger.exceptions().items()
            ],
            "verdict": self._verdict,
        }

    def _thinks(self, user_class: Any) -> bool:
        return self.options.think_time is not None or thinks(user_class)

    def _asked_load(self) -> dict[str, Any]:
        given = self.environment.parsed_options
        shape = self.environment.shape_class
        if shape is not None and not shape.use_common_options:
            given = None  # Locust does not look at them either
        return {
            "arrivals": self.options.arrivals,
            "rate_per_user": self.options.rate_per_user if arrivals.parse(self.options.arrivals).gap else None,
            "max_in_flight": self.options.max_in_flight,
            "users": self.environment.runner.target_user_count or getattr(given, "num_users", None),
            "spawn_rate": getattr(given, "spawn_rate", None),
            "run_time": getattr(given, "run_time", None),
            "shape": None if shape is None else type(shape).__name__,
        }


def locustfile_stem(environment: Any) -> str:
    """What the run is called where it has no label."""
    name = getattr(environment.parsed_options, "locustfile", "") or ""
    return Path(name.split(",")[0]).stem


def _named(seat: Seat) -> str:
    worker = seat.worker
    return f"Worker {worker.index} ({one_line(worker.hostname or worker.client_id)})"
