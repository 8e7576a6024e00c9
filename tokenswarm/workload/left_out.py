"""Bad lines of a file: the first is an error, or all are left out, counted, and the first ones named."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from tokenswarm.errors import DatasetError

MOST_NAMED: Final = 5

_log = logging.getLogger("tokenswarm")


class LeftOut:
    """What was left out of `what`; `strict`: nothing may be."""

    def __init__(self, what: str, strict: bool, tell: Callable[[str], None]) -> None:
        self._what = what
        self._strict = strict
        self._tell = tell
        self._count = 0
        self._named: list[str] = []

    def add(self, wrong: str) -> None:
        """One more; `wrong` has the file and the line. Raises DatasetError if nothing may be left out."""
        if self._strict:
            raise DatasetError(f"The {self._what}: {wrong} (--dataset-errors fail)")
        self._count += 1
        if len(self._named) < MOST_NAMED:
            self._named.append(wrong)
            _log.warning("A bad line is left out: %s", wrong)

    def close(self) -> None:
        """Now it is told how many, and which."""
        if self._count:
            more = f"; and {self._count - len(self._named):,} more" if self._count > len(self._named) else ""
            self._tell(
                f"Bad lines of the {self._what} that were left out: {self._count:,}. {'; '.join(self._named)}{more}"
            )
        self._count = 0
