"""How many lines pandas left out of a CSV file, having too many cells. It says so in warnings only, and warnings are
of the whole process: whoever reads a file counts those of its own thread, as others read theirs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock, local

import pandas as pd

_OF_THREAD = local()
"""`lines` that were left out of what this thread has read."""
_TURN = Lock()
_LISTENING = ExitStack()
_readers = 0


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """`read_csv` with `on_bad_lines="warn"` warns nobody meanwhile; what is given tells how many lines this thread has
    left out since."""
    global _readers
    with _TURN:
        if not _readers:
            _LISTENING.enter_context(warnings.catch_warnings())
            warnings.simplefilter("always", pd.errors.ParserWarning)
            warnings.showwarning = _note
        _readers += 1
    before = _so_far()
    try:
        yield lambda: _so_far() - before
    finally:
        with _TURN:
            _readers -= 1
            if not _readers:
                _LISTENING.close()


def _so_far() -> int:
    return getattr(_OF_THREAD, "lines", 0)


def _note(message: Warning | str, *_: object, **__: object) -> None:
    _OF_THREAD.lines = _so_far() + str(message).count("Skipping line")
