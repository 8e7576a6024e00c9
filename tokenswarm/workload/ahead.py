"""What takes a while to make, made ahead: by a thread beside the event loop, which has tokens to time meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import gevent
from gevent.queue import Queue

T = TypeVar("T")
READY: Final = 64
"""So many lie ready; and so few are lost when a run ends."""
AT_ONCE: Final = 4
"""Made in one go: waking the thread costs as much as a short one of them."""


class Ahead(Generic[T]):
    """An endless stream of what `make` returns, in its order. Only this stream's thread runs `make`."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._ready: Queue[Any] = Queue(maxsize=READY)
        self._maker = gevent.spawn(self._fill)

    def next(self) -> T:
        """The next one; waits where none is ready. Raises what `make` raised in its place."""
        found, error = self._ready.get()
        if error is not None:
            raise error
        return found  # type: ignore[no-any-return]

    def close(self) -> None:
        """Make no more. Switches no greenlet."""
        self._maker.kill(block=False)

    def _fill(self) -> None:
        pool = gevent.get_hub().threadpool
        while True:
            for one in pool.apply(self._some):
                self._ready.put(one)

    def _some(self) -> list[tuple[T | None, Exception | None]]:
        some: list[tuple[T | None, Exception | None]] = []
        for _ in range(AT_ONCE):
            try:
                some.append((self._make(), None))
            except Exception as error:  # whoever asks for it is to have it
                some.append((None, error))
        return some
