"""The embedded simulator: started as a process of its own when no host is named, gone when we are."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gevent
import msgspec

from tokenswarm.errors import TargetError

BASE_PATH = "/simulator"  # so that whoever reads the URL anywhere knows what it is
START_SECONDS = 20.0


class EmbeddedSimulator:
    """A running simulator on a free loopback port. Raises TargetError if it does not come up."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tokenswarm.simulator", "--port", "0", "--base-path", BASE_PATH]
        process: Any = subprocess.Popen(
            [*command, "--announce", "--exit-with-stdin"],
            stdin=subprocess.PIPE,  # its end of input is our end, however we end
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C at the terminal is for us; the simulator serves until we have drained
        )
        self._process = process
        line = b""
        with gevent.Timeout(START_SECONDS, False):
            line = process.stdout.readline()
        try:
            announced = msgspec.json.decode(line)
            self.url: str = announced["url"]
        except (msgspec.DecodeError, KeyError, TypeError):
            self.stop()
            raise TargetError(
                f"the embedded simulator did not start within {START_SECONDS:g} s; name a --host"
            ) from None

    def stop(self) -> None:
        """Idempotent."""
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
