"""`--hardware local`: an exporter of our own for the machine that the load comes from."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import Any

import msgspec

from tokenswarm.scraping.asking import NoAnswer


class LocalExporter:
    """A process that ends with us: its standard input is ours to close. Raises NoAnswer if it does not come up."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "metrics_exporter", "--port", "0", "--announce", "--exit-with-stdin"]
        process: Any = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process = process
        line = process.stdout.readline()
        try:
            self.url: str = msgspec.json.decode(line)["url"]
        except (msgspec.DecodeError, KeyError, TypeError):
            self.stop()
            raise NoAnswer("the exporter for this machine did not start") from None

    def stop(self) -> None:
        """Idempotent."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
