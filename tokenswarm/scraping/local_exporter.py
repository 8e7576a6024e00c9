"""`--hardware local`: an exporter of our own for the machine that the load comes from."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import Any

import msgspec

from tokenswarm.scraping.asking import NoAnswer


class LocalExporter:
    """A process that ends with us: its standard input is ours to close."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "metrics_exporter", "--port", "0", "--announce", "--exit-with-stdin"]
        self._process: Any = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def url(self) -> str:
        """Where it is, as soon as it has come up; takes as long as that. Raises NoAnswer if it ends instead."""
        line = self._process.stdout.readline()
        try:
            return str(msgspec.json.decode(line)["url"])
        except (msgspec.DecodeError, KeyError, TypeError):
            raise NoAnswer("the exporter for this machine did not start") from None

    def stop(self) -> None:
        """Idempotent."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
