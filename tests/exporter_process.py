"""Starts the exporter as a process of its own for tests, with a stand-in for NVIDIA's library, and talks to it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parent.parent
SOURCE = Path(__file__).with_name("fake_nvml.c")
WAIT_SECONDS = 30.0
T = TypeVar("T")


def uuid(card: int) -> str:
    """Of the stand-in's card with this physical number."""
    return f"GPU-00000000-0000-0000-0000-{card:012}"


class FakeNvml:
    """A library that answers as its script says, which can be changed while it is used. Skips where there is no gcc.

    `without`: functions that it does not have, as those of old drivers.
    """

    def __init__(self, folder: Path, *lines: str, without: Sequence[str] = ()) -> None:
        if sys.platform != "linux" or shutil.which("gcc") is None:
            pytest.skip("no gcc to build the stand-in for NVML")
        self._script = folder / "nvml.script"
        self._log = folder / "nvml.calls"
        names = folder / "names.map"
        hidden = "".join(f"{name}; " for name in without)
        names.write_text(f"{{ global: nvml*; local: {hidden} }};" if without else "{ global: nvml*; };")
        library = folder / "libnvidia-ml.so.1"
        build = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libnvidia-ml.so.1"]
        subprocess.run([*build, f"-Wl,--version-script={names}", "-o", library, SOURCE], check=True)
        self.say(*lines)
        self.env = {
            "LD_LIBRARY_PATH": str(folder),
            "FAKE_NVML": str(self._script),
            "FAKE_NVML_LOG": str(self._log),
        }

    def say(self, *lines: str) -> None:
        """Replace the script, all at once."""
        new = self._script.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(self._script)

    def calls(self, name: str, card: int = 0) -> int:
        """How often the exporter has asked for this since `forget_calls`, or the start."""
        return self._log.read_text().splitlines().count(f"{name} {card}") if self._log.exists() else 0


@dataclass
class Exporter:
    """One that listens."""

    process: subprocess.Popen[bytes]
    url: str
    errors: Path

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    @property
    def log(self) -> str:
        """What it wrote to standard error so far."""
        return self.errors.read_text()

    def request(
        self, path: str, headers: dict[str, str] | None = None, method: str = "GET"
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """On a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_SECONDS)
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        response, body = self.request(path)
        assert response.status == 200, body
        return json.loads(body)

    def page(self) -> Page:
        """The Prometheus page, parsed by Prometheus's own library, once both sources have been read."""
        return until(self._page, lambda page: len(page.all("tokenswarm_exporter_last_reading_timestamp_seconds")) == 2)

    def _page(self) -> Page:
        response, body = self.request("/metrics")
        assert response.status == 200, body
        return Page(body.decode())

    def samples(self, source: str, since: int = 0) -> list[dict[str, Any]]:
        return [sample for sample in self.json(f"/samples?since={since}")["samples"] if sample["source"] == source]

    def page_when(self, ready: Callable[[Page], object]) -> Page:
        """The first page of which `ready` is true."""
        return until(self.page, ready)

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        self.process.terminate()
        return self.process.wait(WAIT_SECONDS)


class Page:
    """A scraped page."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def all(self, name: str, **labels: str) -> list[float]:
        """Values of the series with this name and these labels."""
        return [
            sample.value for sample in self._samples if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def one(self, name: str, **labels: str) -> float:
        """Of the only such series."""
        (value,) = self.all(name, **labels)
        return value

    def labels(self, name: str) -> list[dict[str, str]]:
        return [sample.labels for sample in self._samples if sample.name == name]

    def gpu(self, name: str, card: int = 0, **labels: str) -> float | None:
        """A GPU's value; None if it is not on the page."""
        values = self.all(f"tokenswarm_gpu_{name}", uuid=uuid(card), **labels)
        assert len(values) <= 1, values
        return values[0] if values else None


def until(ask: Callable[[], T], ready: Callable[[T], object]) -> T:
    """Ask again until what comes is `ready`. Fails after a long while with what came last."""
    give_up = time.monotonic() + WAIT_SECONDS
    while True:
        answer = ask()
        if ready(answer):
            return answer
        assert time.monotonic() < give_up, f"waited {WAIT_SECONDS:g} s in vain; last: {answer!r}"
        time.sleep(0.02)


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "metrics_exporter", *options]


@contextmanager
def exporter(*options: str, env: dict[str, str] | None = None, prefix: Sequence[str] = ()) -> Iterator[Exporter]:
    """One on a free port, ended with the block. It reads ten times a second, with samples of half a second."""
    words = [*prefix, *command("--port", "0", "--announce", "--exit-with-stdin", "--interval", "0.1")]
    words += [] if "--window" in options else ["--window", "0.5"]
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "stderr"
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                [*words, *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
                env=os.environ | (env or {}),
            )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, errors.read_text()
            yield Exporter(process, json.loads(line)["url"], errors)
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
