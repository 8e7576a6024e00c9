"""Runs the real Locust, as a user would, and reads what it left."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CHAT = ROOT / "locustfiles" / "chat.py"
FIVE_USERS_FOR_A_MINUTE = f"""{CHAT.read_text()}
from locust import LoadTestShape

class Flat(LoadTestShape):
    def tick(self):
        return (5, 10) if self.get_run_time() < 60 else None
"""
LOCUST = [sys.executable, "-m", "locust"]


class LocustProcess:
    """A Locust that runs, in a folder of its own. `prefix`: words that come before its command line."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        locustfile: Path = CHAT,
        env: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        command = [*prefix, *LOCUST, "-f", str(locustfile), *options]
        if not {"--run-dir", "--worker"} & {*options}:
            command += ["--run-dir", str(self.run_dir)]
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("LOCUST_", "TOKENSWARM_", "LLM_", "OPENAI_"))}
        self.output_path = folder / "output.txt"
        with self.output_path.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=clean | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # for a signal to it and the workers that it forks, as from a terminal
            )

    def wait(self, seconds: float = 120) -> int:
        return self.process.wait(seconds)

    @property
    def output(self) -> str:
        return self.output_path.read_text(errors="replace")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """Kill it, and what it forked, if they have not ended by then."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def until(self, condition: Any, seconds: float = 60) -> Any:
        """Wait until `condition()` is true, and return what it gave."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            value = condition()
            if value:
                return value
            time.sleep(0.02)
        raise AssertionError(f"not within {seconds} s; output so far:\n{self.output}")

    def rows(self) -> list[dict[str, str]]:
        return read_rows(self.run_dir)

    def json(self, name: str) -> Any:
        return json.loads((self.run_dir / name).read_text())

    def intervals(self) -> list[dict[str, Any]]:
        """The interval lines so far; none before the first second is over."""
        path = self.run_dir / "intervals.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def intervals_of(self, rank: int) -> list[dict[str, Any]]:
        """Those of one worker."""
        return [line for line in self.intervals() if line["worker"] == rank]

    def locust_stats(self) -> dict[tuple[str, str], dict[str, str]]:
        with (self.run_dir / "locust_stats.csv").open(newline="") as file:
            return {(row["Type"], row["Name"]): row for row in csv.DictReader(file)}


def read_rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "requests.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@contextmanager
def locust(folder: Path, *options: str, **settings: Any) -> Iterator[LocustProcess]:
    """A Locust that is ended with the block, if it has not ended by then."""
    started = LocustProcess(folder, *options, **settings)
    try:
        yield started
    finally:
        started.end()


def headless(folder: Path, host: str, *options: str, exit_code: int | None = 0, **settings: Any) -> LocustProcess:
    """A whole headless run, to its end."""
    with locust(folder, "--headless", "--host", host, *options, **settings) as started:
        code = started.wait()
        assert exit_code is None or code == exit_code, f"exit code {code}; output:\n{started.output}"
        return started


def until_rows(folder: Path, host: str, rows: int, *options: str, **settings: Any) -> LocustProcess:
    """A headless run that is stopped, as by Ctrl-C, once it has so many rows."""
    with locust(folder, "--headless", "--host", host, *options, **settings) as started:
        requests = started.run_dir / "requests.csv"
        started.until(lambda: requests.exists() and requests.read_bytes().count(b"\n") > rows)
        started.interrupt()
        started.wait()
        return started
