"""Where a server's own programs are installed: a virtual environment or a node prefix in .servers/, made on first use.

None of them goes into the suite's own environment: their requirements contradict each other's and ours.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from locust_process import ROOT

CACHE = ROOT / ".servers"
Say = Callable[[str], None]


class InstallError(Exception):
    """A server's packages could not be installed; the text is the end of what the installer said."""


@dataclass(frozen=True)
class Prefix(ABC):
    """A folder of programs. `packages` are pinned; another pin installs it anew."""

    name: str
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where it is."""
        return CACHE / self.name

    def missing(self) -> str | None:
        """What this machine lacks to install it, as a sentence, or None."""
        return None

    def install(self, say: Say) -> None:
        """Make it what it should be, if it is not. Raises InstallError."""
        CACHE.mkdir(exist_ok=True)
        stamp, wanted = self.folder / "installed", self._stamp()
        with _locked(CACHE / f"{self.name}.lock"):
            if stamp.exists() and stamp.read_text() == wanted:
                return
            say(f"Installing {' '.join(self.packages)} into {self.folder.relative_to(ROOT)} …")
            shutil.rmtree(self.folder, ignore_errors=True)
            with (CACHE / f"{self.name}.log").open("w+") as log:
                for command in self._commands():
                    done = subprocess.run(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._env())
                    if done.returncode:
                        log.seek(0)
                        raise InstallError(f"{' '.join(command)}:\n{log.read()[-4000:]}")
            stamp.write_text(wanted)

    def _stamp(self) -> str:
        return json.dumps(self.packages)

    def _env(self) -> dict[str, str]:
        return dict(os.environ)

    @abstractmethod
    def version(self) -> str:
        """Of the first package, as installed."""

    @abstractmethod
    def _commands(self) -> list[list[str]]:
        """What installs it into a folder that does not exist yet."""


@dataclass(frozen=True)
class PythonPrefix(Prefix):
    """A virtual environment of the Python that runs the tests. `unwanted`: what comes along and must go again."""

    unwanted: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables for its installation."""

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.folder / "bin" / "python")

    def version(self) -> str:
        """Of the first package, as installed."""
        name = self.packages[0].partition("==")[0].partition("[")[0]
        code = f"from importlib.metadata import version; print(version({name!r}))"
        return subprocess.run(
            [self.python, "-c", code], capture_output=True, text=True, check=True, cwd="/"
        ).stdout.strip()

    def _stamp(self) -> str:
        return json.dumps([sys.version, self.packages, self.unwanted, dict(self.settings)])

    def _env(self) -> dict[str, str]:
        return os.environ | self.settings

    def _commands(self) -> list[list[str]]:
        # Compiling all that a server brings along takes longer than what is ever imported of it.
        pip = [self.python, "-m", "pip", "--disable-pip-version-check"]
        commands = [[sys.executable, "-m", "venv", str(self.folder)], [*pip, "install", "--no-compile", *self.packages]]
        return [*commands, [*pip, "uninstall", "--yes", *self.unwanted]] if self.unwanted else commands


@dataclass(frozen=True)
class NodePrefix(Prefix):
    """A folder with node_modules. `oldest`: the first version of Node.js that will do."""

    oldest: int = 20

    def missing(self) -> str | None:
        """Node.js."""
        lacking = [program for program in ("node", "npm") if shutil.which(program) is None]
        if lacking:
            return f"{' and '.join(lacking)} not installed"
        told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
        version = int(told.strip().removeprefix("v").partition(".")[0])
        return f"Node.js {version} is older than {self.oldest}" if version < self.oldest else None

    def program(self, name: str) -> list[str]:
        """The command that runs one of its programs."""
        return ["node", str(self.folder / "node_modules" / ".bin" / name)]

    def version(self) -> str:
        """Of the first package, as installed."""
        name = self.packages[0].rpartition("@")[0]
        told = json.loads((self.folder / "node_modules" / name / "package.json").read_text())
        return str(told["version"])

    def _commands(self) -> list[list[str]]:
        return [["npm", "install", "--prefix", str(self.folder), "--no-audit", "--no-fund", *self.packages]]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One test process installs, the others wait."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
