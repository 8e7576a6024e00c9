"""The run directory: appended to while the run lasts, readable whatever happens to us or to the disk."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from tokenswarm.errors import RunDirectoryError

REQUESTS = "requests.csv"
INTERVALS = "intervals.jsonl"
RESPONSES = "responses.jsonl"


class AppendFile:
    """A file that only grows, by whole lines. What cannot be written is held and tried again."""

    def __init__(self, path: Path, new: bool = True) -> None:
        self.path = path
        self.problem: str | None = None
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if new else 0)
        self._fd = os.open(path, flags, 0o644)
        self._size = os.fstat(self._fd).st_size
        self._held = bytearray()

    def append(self, lines: bytes) -> bool:
        """Write these lines, after what was held before. False when the disk took none of it: it is held."""
        self._held += lines
        written = 0
        try:
            while written < len(self._held):
                written += os.write(self._fd, memoryview(self._held)[written : written + 1_048_576])
        except OSError as error:
            self.problem = f"{self.path.name} cannot be written: {error.strerror}"
            if written:
                os.ftruncate(self._fd, self._size)  # no torn line, and no line twice
            return False
        self._size += written
        self._held = bytearray()
        self.problem = None
        return True

    def close(self) -> tuple[int, Path | None]:
        """Try once more. (lines that found no place, file outside the run directory that took them or None)."""
        self.append(b"")
        os.close(self._fd)
        if not self._held:
            return 0, None
        lines = self._held.count(b"\n")
        try:
            fd, name = tempfile.mkstemp(prefix=f"tokenswarm-{self.path.parent.name}-", suffix=f"-{self.path.name}")
            with os.fdopen(fd, "wb") as rescue:
                rescue.write(self._held)
        except OSError:
            return lines, None
        return lines, Path(name)


class RunDirectory:
    """The files of one run. Raises RunDirectoryError where the directory cannot be made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[str, AppendFile] = {}
        self._said: set[str] = set()

    def open(self, *names: str | None) -> None:
        """Create the files that `append` will know; None is passed over. Raises RunDirectoryError."""
        for name in filter(None, names):
            try:
                self._files[name] = AppendFile(self.path / name)
            except OSError as error:
                raise RunDirectoryError(f"{name} cannot be created in {self.path}: {error.strerror}") from None

    def reopen(self, *names: str | None) -> None:
        """Open files of a directory that was closed, for more at their end. Raises RunDirectoryError."""
        for name in filter(None, names):
            try:
                self._files[name] = AppendFile(self.path / name, new=False)
            except OSError as error:
                raise RunDirectoryError(f"{self.path / name} cannot be written: {error.strerror}") from None

    def append(self, name: str, lines: bytes) -> str | None:
        """Append whole lines to an open file of the directory; a new problem is returned once, as a sentence."""
        file = self._files[name]
        if file.append(lines):
            self._said.discard(name)
            return None
        text = f"{file.problem}. Its lines are kept in memory and tried again every second; make room on {self.path}."
        return self._once(text, name)

    def write_json(self, name: str, value: Any) -> str | None:
        """Replace a JSON file atomically; a problem comes back as a sentence."""
        part = self.path / f".{name}.part"
        try:
            data = msgspec.json.encode(value)
        except UnicodeEncodeError:  # half a character, say from a command line in another encoding: no reader takes it
            data = json.dumps(msgspec.to_builtins(value), ensure_ascii=False).encode("utf-8", "replace")
        try:
            part.write_bytes(msgspec.json.format(data, indent=2) + b"\n")
            os.replace(part, self.path / name)
        except OSError as error:
            part.unlink(missing_ok=True)
            return self._once(f"{name} cannot be written in {self.path}: {error.strerror}", name + str(error.errno))
        return None

    def close(self) -> tuple[int, list[str]]:
        """Write what is still held. (rows of requests.csv that found no place, sentences about every loss)."""
        lost, sentences = 0, []
        for name, file in self._files.items():
            lines, rescue = file.close()
            if lines:
                where = f"they are in {rescue}" if rescue else "they are lost"
                sentences.append(f"{lines} lines of {name} could not be written to {self.path}; {where}.")
                lost += lines if name == REQUESTS else 0
        self._files = {}
        return lost, sentences

    def _once(self, text: str, key: str | None = None) -> str | None:
        key = key or text
        if key in self._said:
            return None
        self._said.add(key)
        return text


def check(explicit: str | None) -> None:
    """Whether a run directory could be made now, without making it. Raises RunDirectoryError."""
    path = Path(explicit or "runs").absolute()
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    if not there.is_dir():
        raise _unwritable(path, FileExistsError(errno.EEXIST, "a file"))
    if not os.access(there, os.W_OK | os.X_OK):
        raise _unwritable(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def create(explicit: str | None, label: str | None, now: float) -> RunDirectory:
    """A new, empty directory: `explicit`, or runs/<UTC time>-<label>; a name that is taken gets -2, -3, …"""
    if explicit:
        wanted = Path(explicit)
    else:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        slug = re.sub(r"[^\w.-]+", "-", label or "").strip("-.")[:60]
        wanted = Path("runs") / (f"{stamp}-{slug}" if slug else stamp)
    path = wanted
    for attempt in range(2, 10_000):
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError as error:
            if not path.is_dir():
                raise _unwritable(path, error) from None
            if not any(path.iterdir()):
                break
            path = wanted.with_name(f"{wanted.name}-{attempt}")
        except OSError as error:
            raise _unwritable(path, error) from None
    probe = path / ".writable"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise _unwritable(path, error) from None
    return RunDirectory(path.absolute())


def _unwritable(path: Path, error: OSError) -> RunDirectoryError:
    why = "a file is in the way" if error.errno in (errno.ENOTDIR, errno.EEXIST) else error.strerror
    return RunDirectoryError(f"the run directory {path} cannot be written: {why}; name another with --run-dir DIR")
