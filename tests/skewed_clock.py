"""Processes of this machine whose wall clock is wrong, and can be set while they run."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("skewed_clock.c")


class SkewedClock:
    """A wall clock that is off by `seconds`; `env` makes it a process's own. Skips the test where there is no gcc."""

    def __init__(self, folder: Path, seconds: float) -> None:
        if shutil.which("gcc") is None:
            pytest.skip("the library that puts a clock wrong needs gcc")
        self._file = folder / "skew"
        library = folder / "skewed_clock.so"
        build = ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"]
        subprocess.run(build, check=True)
        self.set(seconds)
        self.env = {"LD_PRELOAD": str(library), "SKEW_FILE": str(self._file)}

    def set(self, seconds: float) -> None:
        """Step it, for all that run with it."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("@q", round(seconds * 1e9)))
