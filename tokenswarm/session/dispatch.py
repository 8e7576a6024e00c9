"""Locust's way of sharing users out among workers, for as often as workers come and go.

Locust's own takes the first time that it shares out anew for one that lasts for ever, and so leaves out whoever comes
later, and does not give others the users of whoever leaves later.
"""

from __future__ import annotations

from collections.abc import Generator

from locust.dispatch import UsersDispatcher


class LastingDispatcher(UsersDispatcher):
    """Knows that it has ended."""

    def _dispatcher(self) -> Generator[dict[str, dict[str, int]]]:
        yield from super()._dispatcher()
        self._dispatch_in_progress = False
