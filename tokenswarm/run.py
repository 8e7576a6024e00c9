"""A run while it lasts, in one process: what all its users share, from the start of the load to its last row."""

from __future__ import annotations

import itertools
import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import msgspec

from tokenswarm.options import Options, proxy_url, redact, request_headers, secret_values
from tokenswarm.protocols import PROTOCOLS
from tokenswarm.protocols.base import Generation
from tokenswarm.record import ERROR_LENGTH
from tokenswarm.recording import directory, manifest
from tokenswarm.recording.recorder import Recorder
from tokenswarm.timing import Anchor
from tokenswarm.transport.base import Client, Limits, Transport
from tokenswarm.transport.http import FastTransport
from tokenswarm.transport.origin import Origin
from tokenswarm.transport.portable import PortableTransport
from tokenswarm.workload.prompts import PromptSource, bundled_prompts

TICK_SECONDS = 1.0


def make_transport(options: Options, origin: Origin) -> Transport:
    """The transport that the options ask for, as they want it. Raises OptionError."""
    limits = Limits(
        connect=options.connect_timeout,
        total=options.request_timeout,
        first_token=options.first_token_timeout,
        stall=options.stall_timeout,
    )
    settings: dict[str, Any] = {
        "keep_alive": options.keep_alive,
        "insecure": options.insecure,
        "ca_bundle": options.ca_bundle,
        "client_cert": options.client_cert,
    }
    headers = request_headers(options)
    if options.transport == PortableTransport.name:
        return PortableTransport(origin, limits, headers, **settings, proxy=proxy_url(options))
    return FastTransport(origin, limits, headers, **settings)


class Run:
    """Made at the start of the load, before any user runs; `finish` at its end. Raises RunDirectoryError."""

    def __init__(
        self,
        environment: Any,
        options: Options,
        origin: Origin,
        model: str,
        simulator: bool,
        say: Callable[[str], None],
    ) -> None:
        self.environment = environment
        self.options = options
        self.origin = origin
        self.model = model
        self.simulator = simulator
        self.protocol = PROTOCOLS[options.protocol]
        self.stopping = False
        """No new task may begin."""
        self.finished = False
        """No request may begin."""
        self.prompts = PromptSource(bundled_prompts(), seed=options.seed, worker=0, system_prompt=options.system_prompt)
        self.started = Anchor(time.time_ns(), time.monotonic_ns())
        label = options.label or _locustfile_stem(environment)
        run_directory = directory.create(options.run_dir, label, self.started.wall_ns / 1e9)
        self.path: Path = run_directory.path
        self.transport = make_transport(options, origin)
        self.recorder = Recorder(
            run_directory,
            self.started,
            self._user_counts,
            self.transport.clock.take_longest_busy,
            say,
            options.save_responses,
        )
        self.label = label
        self._directory = run_directory
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._secrets = secret_values(options)
        self._clients: set[Client] = set()
        self._boundaries: list[dict[str, Any]] = []
        self._asked = -1
        self._boundary("start", 0)
        self._note_target()
        self._write_manifest(None)
        self.recorder.begin()
        self._ticker = gevent.spawn(self._tick)

    def next_request_id(self) -> str:
        """Unique over runs and workers; goes out as X-Request-Id."""
        return f"{self._prefix}-{self.recorder.worker}-{next(self._numbers)}"

    def client(self) -> Client:
        """Connections for one user; give it back with `forget`."""
        client = self.transport.client()
        self._clients.add(client)
        return client

    def forget(self, client: Client) -> None:
        """A user has ended: close its connections; requests that greenlets of its own still make go on to their end."""
        client.retire()
        if not client.busy:
            self._clients.discard(client)

    def generation(self, **changes: Any) -> Generation:
        """What the options ask of the model, with a call's own changes (None: no change)."""
        options = self.options
        asked = Generation(
            model=self.model,
            stream=options.stream,
            max_tokens=options.output_tokens,
            temperature=options.temperature,
            top_p=options.top_p,
            extra_body=options.extra_body,
        )
        given = {name: value for name, value in changes.items() if value is not None}
        if "extra_body" in given:
            given["extra_body"] = {**options.extra_body, **given["extra_body"]}
        return msgspec.structs.replace(asked, **given) if given else asked

    def redact(self, text: str) -> str:
        """Text in which no key or expanded header value stands."""
        return redact(text, self._secrets)

    def mark(self, event: str, users: int) -> None:
        """A phase boundary, now; a change of the asked number of users, if there was one, comes before it."""
        self._note_target()
        self._boundary(event, users)

    def _note_target(self) -> None:
        asked = self._user_counts()[1]
        if asked != self._asked:
            self._asked = asked
            self._boundary("target", asked)

    def _boundary(self, event: str, users: int) -> None:
        moment = self.started.wall(time.monotonic_ns())
        self._boundaries.append({"time": moment, "event": event, "users": users})

    def finish(self) -> None:
        """Every request gets its row, every file its last line. Switches no greenlet."""
        self.stopping = self.finished = True
        self._ticker.kill(block=False)
        self.recorder.finish()
        for client in self._clients:
            client.close()
        self.transport.close()
        self._boundary("stopped", 0)
        self._write_manifest(time.monotonic_ns())

    def set_verdict(self, verdict: Any) -> None:
        """The verdict, once the results are there."""
        self._write_manifest(self._ended, verdict)

    def _tick(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + TICK_SECONDS, time.monotonic())
            gevent.sleep(max(0.0, due - time.monotonic()))
            self._note_target()
            try:
                self.recorder.tick()
            except Exception as error:  # the next second may go better, and the rest of the run must be recorded
                self.recorder.problem(f"A second could not be recorded: {error!r}")

    def _user_counts(self) -> tuple[int, int]:
        runner = self.environment.runner
        return runner.user_count, runner.target_user_count

    def _write_manifest(self, ended: int | None, verdict: Any = None) -> None:
        self._ended = ended
        problem = self._directory.write_json("run.json", self._manifest(ended, verdict))
        if problem:
            self.recorder.problems.append(problem)

    def _manifest(self, ended: int | None, verdict: Any) -> dict[str, Any]:
        anchor, recorder = self.started, self.recorder
        return {
            "schema": manifest.SCHEMA,
            "run_id": self.path.name,
            "label": self.label,
            "suite": manifest.suite(),
            "host": manifest.host(),
            "command": manifest.command(self.redact),
            "target": {
                "host": self.origin.url,
                "simulator": self.simulator,
                "protocol": self.protocol.name,
                "model": self.model,
                "transport": self.transport.name,
            },
            "options": {
                **msgspec.to_builtins(self.options),
                "headers": [h.partition(":")[0] for h in self.options.headers],
            },
            "seed": self.options.seed,
            "user_classes": [
                {"name": user.__name__, "think_time": _thinks(user)} for user in self.environment.user_classes
            ],
            "load": self._load(),
            "workers": [
                {
                    "index": recorder.worker,
                    "hostname": socket.gethostname(),
                    "pid": os.getpid(),
                    "clock": "kernel" if self.transport.kernel_clock else "user",
                    "clock_offset_ms": 0.0,
                    "clock_uncertainty_ms": 0.0,
                }
            ],
            "start": manifest.instant(anchor.wall_ns, anchor.monotonic_ns),
            "end": None if ended is None else manifest.instant(anchor.wall_ns + ended - anchor.monotonic_ns, ended),
            "boundaries": self._boundaries,
            "rows": {"written": recorder.rows_written, "lost": recorder.rows_lost},
            "problems": recorder.problems,
            "user_exceptions": [
                {"count": raised["count"], "message": self.redact(raised["msg"])[:ERROR_LENGTH]}
                for raised in self.environment.runner.exceptions.values()
            ],
            "verdict": verdict,
        }

    def _load(self) -> dict[str, Any]:
        given = self.environment.parsed_options
        shape = self.environment.shape_class
        return {
            "arrivals": "closed",
            "users": self.environment.runner.target_user_count or getattr(given, "num_users", None),
            "spawn_rate": getattr(given, "spawn_rate", None),
            "run_time": getattr(given, "run_time", None),
            "shape": None if shape is None else type(shape).__name__,
        }


def _locustfile_stem(environment: Any) -> str:
    name = getattr(environment.parsed_options, "locustfile", "") or ""
    return Path(name.split(",")[0]).stem


def _thinks(user_class: Any) -> bool:
    """Whether a user of this class waits between its tasks: anything but Locust's default of 0."""
    wait_time = user_class.wait_time
    try:
        return bool(wait_time(None) != 0) if wait_time.__module__ == "locust.user.wait_time" else True
    except Exception:  # a wait time that needs its user is no constant 0
        return True
