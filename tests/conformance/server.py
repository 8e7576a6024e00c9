"""What the tests know of a real model server: how to start it, how it deviates. Each module in `servers` has one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from conformance.prefix import Prefix, PythonPrefix

SUPERVISE = Path(__file__).with_name("supervise.py")
HF_MODEL = Path(__file__).with_name("hf_model.py")
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Spoken:
    """How a server speaks one of our protocols. `headers` and `extra_body`: what it wants besides."""

    tokens: str = "usage"
    """The rows' `token_source` where replies are streamed."""
    whole_tokens: str | None = "usage"
    """The same where they are not; None: it does not answer then."""
    keeps_limit: bool = True
    """It gives no more tokens than were asked for."""
    headers: Mapping[str, str] = field(default_factory=dict)
    extra_body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """The row of a request that a server says no to."""

    error_class: str
    http_status: int
    words: str
    """The server's own, somewhere in `error`."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """What is asked, where that is what it refuses."""


@dataclass(frozen=True)
class Waits:
    """More requests than `slots` wait for their turn."""

    slots: int
    overlap: float = 0.05
    """For this share of the time tokens may come for more: those of replies that have ended in the model, but that
    other processes of the server still pass on."""
    options: tuple[str, ...] = ()
    """For Locust, where the limit is not on everybody."""


@dataclass(frozen=True)
class Refuses:
    """More requests than `slots` are refused."""

    slots: int
    refused: Refused
    options: tuple[str, ...] = ()
    """For Locust, where the limit is not on everybody."""


@dataclass(frozen=True)
class Running:
    """A server that listens. `urls`: of protocols that are not served at `url`."""

    url: str
    log: Path
    urls: Mapping[str, str] = field(default_factory=dict)

    def url_of(self, protocol: str) -> str:
        """Where this protocol is spoken."""
        return self.urls.get(protocol, self.url)

    def page(self, path: str, base: str | None = None) -> str:
        """One of its pages, as text."""
        with urllib.request.urlopen(f"{base or self.url}{path}", timeout=60) as answer:
            return str(answer.read().decode())

    def metrics(self, base: str | None = None) -> dict[str, float]:
        """Its Prometheus page: the value of each series by its name with labels, as written there."""
        lines = [line for line in self.page("/metrics", base).splitlines() if line and line[0] != "#"]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def logged(self, words: str) -> int:
        """How often its log has these words."""
        return self.log.read_text(errors="replace").count(words)


class Server(ABC):
    """One real model server. The attributes are the facts that the tests hold it to."""

    name: str
    prefix: Prefix | None = None
    """None: it is installed with what the tests need."""
    light = False
    """Installed within seconds, so that it is in every test run."""
    model = "tiny"
    key: str | None = None
    """The API key that it wants."""
    spoken: ClassVar[Mapping[str, Spoken]] = {"openai-chat": Spoken()}
    long_body: ClassVar[Mapping[str, Any]] = {}
    """What makes a reply as long as was asked for."""
    unknown_model: Refused | None = None
    """None: it answers whatever model is named."""
    bad_parameter: Refused | None = None
    wrong_key: Refused | None = None
    crowd: Waits | Refuses | None = None
    """None: it never has too many."""

    def missing(self) -> str | None:
        """Why it cannot be had on this machine, or None."""
        return None if self.prefix is None else self.prefix.missing()

    def version(self) -> str:
        """As installed."""
        assert self.prefix is not None
        return self.prefix.version()

    @abstractmethod
    def running(self, folder: Path) -> AbstractContextManager[Running]:
        """A server that listens on a free port of loopback, ended with the block. Files go into `folder`."""

    def answered(self, running: Running) -> int | None:
        """How many chats it has answered with success by its own count; None: it does not tell."""
        return None

    def generated(self, running: Running) -> int | None:
        """How many tokens it has made by its own count; None: it does not tell."""
        return None

    def busy(self, running: Running) -> int | None:
        """How many requests it works at or has waiting; None: it does not tell."""
        return None


@contextmanager
def process(
    command: Sequence[str], log: Path, ready: str, seconds: float = 60, env: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Runs a server until the block ends; begins it once the page `ready` answers with success.

    Raises AssertionError, with the end of the log, if it ends before that or takes longer than `seconds`.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, str(SUPERVISE), *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env={**_clean_environment(), **(env or {})},
        )
    assert child.stdin is not None
    try:
        give_up = time.monotonic() + seconds
        while not _answers(ready):
            ended = child.poll() is not None
            if ended or time.monotonic() > give_up:
                why = f"ended with {child.returncode}" if ended else f"not ready within {seconds:g} s"
                raise AssertionError(f"{command[0]} {why}:\n{log.read_text(errors='replace')[-6000:]}")
            time.sleep(POLL_SECONDS)
        yield
    finally:
        child.stdin.close()
        child.wait()


def make_hf_model(prefix: PythonPrefix) -> Path:
    """The folder of a tiny model in the format of transformers, made on first use by those of the prefix."""
    folder = prefix.folder / f"model-{zlib.crc32(HF_MODEL.read_bytes()):08x}"
    if not (folder / "config.json").exists():
        subprocess.run([prefix.python, str(HF_MODEL), str(folder)], check=True, capture_output=True, cwd=prefix.folder)
    return folder


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _clean_environment() -> dict[str, str]:
    """Ours, less what would lead a server elsewhere, and with nothing held back from its log."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return ours | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "NO_COLOR": "1"}
