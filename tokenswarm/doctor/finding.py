"""What one check found, and its line for people."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from typing import Final, TextIO

import msgspec

_COLOURS: Final = {"ok": "32", "warn": "33", "fail": "1;31"}
_SUBJECT_WIDTH: Final = 14
_LONGEST: Final = 1000


class Level(enum.StrEnum):
    """How good it is. `WARN`: a run works, but its numbers may suffer or mean something else than one thinks."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    """One line. `text` says what was found and, if it is not well, what to do."""

    level: Level
    subject: str
    text: str

    def line(self, colour: bool) -> str:
        """As shown: nothing in it can move the cursor or break the line, whoever wrote the text."""
        level = f"{self.level:<5}"
        if colour:
            level = f"\x1b[{_COLOURS[self.level]}m{level}\x1b[0m"
        return f"{level} {self.subject:<{_SUBJECT_WIDTH}} {printable(self.text)}"


def ok(subject: str, text: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, subject, text)


def warn(subject: str, text: str) -> Finding:
    """It works, but."""
    return Finding(Level.WARN, subject, text)


def fail(subject: str, text: str) -> Finding:
    """A run would not work."""
    return Finding(Level.FAIL, subject, text)


def printable(text: str) -> str:
    """One line without control, direction and other invisible characters; very long text is cut."""
    spaced = "".join(c if c.isprintable() else " " if c.isspace() else "" for c in text)
    return spaced if len(spaced) <= _LONGEST else spaced[:_LONGEST] + "…"


def wants_colour(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Only for a terminal that can, and not where NO_COLOR (https://no-color.org) is set to anything."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
