"""What the process does with memory that it no longer needs. Reading a large run needs much, and for a moment only."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
_BYTES: Final = 256 * 1024


@cache
def give_back_what_is_freed() -> None:
    """Arrays of 256 KiB and more go back to the system as soon as they are freed.

    Left alone, glibc raises that size to 32 MiB as arrays come and go, and keeps what is smaller in a heap of each
    thread, where nothing else finds room: a third of what reading a large run took. Nothing happens without glibc.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _BYTES)
