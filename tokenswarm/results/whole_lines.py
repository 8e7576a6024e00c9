"""A text file up to its last whole line, as a stream of bytes: what a kill or a full disk cut off is left out, and told."""

from __future__ import annotations

import io
import mmap
from pathlib import Path
from typing import Any, Final

_NUL: Final = b"\x00"


def opened(path: Path, defects: list[str], *, needed: bool = True) -> io.BufferedReader | None:
    """The file's whole lines; None, and a sentence in `defects`, if it cannot be read. An empty file has no lines.

    A file that is missing is no defect unless it is `needed`. NUL characters, which a machine that lost its power
    leaves behind, are blanks in it.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            data: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except FileNotFoundError:
        if needed:
            defects.append(f"{path.name} is missing.")
        return None
    except OSError as error:
        defects.append(f"{path.name} cannot be read: {error.strerror}.")
        return None
    end = data.rfind(b"\n") + 1
    if end != len(data):
        torn = len(bytes(data[end:]).decode("utf-8", "replace"))
        defects.append(f"{path.name}: the last row is torn ({torn:,} characters) and was left out.")
    return io.BufferedReader(_Bytes(data, end), 1 << 20)


class _Bytes(io.RawIOBase):
    """The first `end` bytes, without holding a copy of them."""

    def __init__(self, data: Any, end: int) -> None:
        self._data, self._at, self._end = data, 0, end

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        piece = bytes(self._data[self._at : min(self._end, self._at + len(buffer))]).replace(_NUL, b" ")
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
