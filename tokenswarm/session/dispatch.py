"""Locust's way of sharing users out, and the only one who knows at once that another number of them was asked for.

Locust's own takes the first time that it shares out anew for one that lasts for ever, and so leaves out whoever comes
later, and does not give others the users of whoever leaves later.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from locust.dispatch import UsersDispatcher


class LastingDispatcher(UsersDispatcher):
    """Knows that it has ended, and says before it begins."""

    def __init__(self, *args: Any, tell: Callable[[], None], **kwargs: Any) -> None:
        """`tell` is called when another number of users was asked for, before the first of them comes or goes."""
        super().__init__(*args, **kwargs)
        self._tell = tell

    def new_dispatch(self, *args: Any, **kwargs: Any) -> None:
        """As Locust has it."""
        self._tell()
        super().new_dispatch(*args, **kwargs)

    def _dispatcher(self) -> Generator[dict[str, dict[str, int]]]:
        yield from super()._dispatcher()
        self._dispatch_in_progress = False


def install(environment: Any, tell: Callable[[], None]) -> None:
    """From now on users are shared out by this, unless the locustfile has a way of its own."""
    if environment.dispatcher_class is UsersDispatcher:
        environment.dispatcher_class = partial(LastingDispatcher, tell=tell)
