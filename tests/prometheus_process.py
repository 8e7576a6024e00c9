"""The real Prometheus, where there is one: on the PATH, or in .venv by `make prometheus`."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from exporter_process import until


def program(name: str) -> str:
    """Where it is; skips the test if it is nowhere."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"no {name}; `make prometheus` unpacks Debian's")
    return found


def check_metrics(page: str) -> str:
    """What `promtool check metrics` finds fault with; empty if nothing."""
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


class Prometheus:
    """A server that scrapes."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, path: str, **query: str) -> Any:
        """The data of an API answer; None while it does not listen yet."""
        try:
            with urllib.request.urlopen(
                f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10
            ) as reply:
                return json.load(reply)["data"]
        except (urllib.error.URLError, ConnectionError):
            return None

    def values(self, expression: str) -> list[float]:
        """Of an instant query."""
        told = self.ask("query", query=expression)
        return [float(series["value"][1]) for series in told["result"]] if told else []


@contextmanager
def prometheus(folder: Path, scrape: str) -> Iterator[Prometheus]:
    """One that runs with this `scrape_configs` (YAML), until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "prometheus.yml"
    config.write_text(f"global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\nscrape_configs:\n{scrape}")
    command = [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    log = folder / "prometheus.log"
    with log.open("wb") as out:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=out, stderr=out)
    try:
        server = Prometheus(f"http://{address}")
        until(lambda: process.poll() is not None or server.ask("status/runtimeinfo"), bool)
        assert process.poll() is None, log.read_text()
        yield server
    finally:
        process.kill()
        process.wait()
