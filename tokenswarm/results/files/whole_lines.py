"""A text file up to its last whole line, as a stream or in pieces: what a kill cut off is left out, and told."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

_NUL: Final = b"\x00"
_BLOCK: Final = 1 << 16


def opened(path: Path, defects: list[str], *, needed: bool = True) -> io.BufferedReader | None:
    """The file's whole lines; None, and a sentence in `defects`, if it cannot be read. An empty file has no lines.

    A file that is missing is no defect unless it is `needed`. NUL characters, which a machine that lost its power
    leaves behind, are blanks in it.
    """
    try:
        file = path.open("rb")
        size = file.seek(0, io.SEEK_END)
        end = _end_of_lines(file, size)
        file.seek(end)
        torn = len(file.read().decode("utf-8", "replace"))
        file.seek(0)
    except FileNotFoundError:
        if needed:
            defects.append(f"{path.name} is missing.")
        return None
    except OSError as error:
        defects.append(f"{path.name} cannot be read: {error.strerror}.")
        return None
    if torn:
        defects.append(f"{path.name}: the last row is torn ({torn:,} characters) and was left out.")
    return io.BufferedReader(_WholeLines(file, end), 1 << 20)


def pieces(lines: io.BufferedReader, size: int) -> Iterator[bytes]:
    """The file in pieces of some more than `size` bytes, each of whole lines after the file's first, which names the
    columns: each is a file by itself. None of an empty file."""
    header = lines.readline()
    piece = lines.read(size) + lines.readline()
    while header:
        yield header + piece
        piece = lines.read(size) + lines.readline()
        header = header if piece else b""


def _end_of_lines(file: BinaryIO, size: int) -> int:
    """Where the last whole line ends."""
    at = size
    while at > 0:
        start = max(0, at - _BLOCK)
        file.seek(start)
        found = file.read(at - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        at = start
    return 0


class _WholeLines(io.RawIOBase):
    """A file's first `end` bytes."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file, self._end = file, end

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(min(len(buffer), self._end - self._file.tell())).replace(_NUL, b" ")
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._file.close()
        super().close()
