"""What `run.json` says of a run: everything somebody needs who finds the directory a year later, and no secret."""

from __future__ import annotations

import datetime
import os
import platform
import socket
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import tokenswarm

SCHEMA = 1
_LIBRARIES = (
    "locust",
    "gevent",
    "httptools",
    "requests",
    "urllib3",
    "sseclient-py",
    "msgspec",
    "hdrhistogram",
    "psutil",
)


def instant(wall_ns: int, monotonic_ns: int) -> dict[str, Any]:
    """One moment on both clocks: epoch seconds, ISO 8601, monotonic nanoseconds."""
    moment = datetime.datetime.fromtimestamp(wall_ns / 1e9, datetime.UTC)
    return {
        "time": wall_ns / 1e9,
        "utc": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "monotonic_ns": monotonic_ns,
    }


def suite() -> dict[str, str]:
    """Our version and those of the libraries that touch the numbers."""
    return {
        "tokenswarm": tokenswarm.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
    }


def host() -> dict[str, Any]:
    """The machine that makes the load."""
    return {"hostname": socket.gethostname(), "cpus": os.cpu_count(), "platform": platform.platform()}


def command(redact: Callable[[str], str], argv: Sequence[str] = sys.argv) -> list[str]:
    """The command line as typed, secrets removed: also what was typed as the value of a header."""
    words = [os.path.basename(argv[0]), *argv[1:]]
    for number, (flag, word) in enumerate(zip(["", *words], words, strict=False)):
        name, colon, value = word.removeprefix("--header=").partition(":")
        if (flag == "--header" or word.startswith("--header=")) and colon and "$" not in value:
            words[number] = f"{'--header=' if word.startswith('--header=') else ''}{name}: ***"
    return [redact(word) for word in words]
