"""What the process does with memory that it no longer needs. Reading a large run needs much, again and again."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Final

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_ARRAY_BYTES: Final = 32 << 20
_MOST_KEPT_BYTES: Final = 1 << 30


@cache
def keep_what_is_freed() -> None:
    """Arrays of up to 32 MiB come from one heap for all threads, and what is freed of it is kept for the next.

    Left alone, glibc gives a large array back to the system as soon as it is freed, and the next one's pages are
    cleared again: a third of the time of a report. Several heaps would hold what others need. Nothing happens without
    glibc.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, 1)
            mallopt(_M_MMAP_THRESHOLD, _ARRAY_BYTES)
            mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT_BYTES)
