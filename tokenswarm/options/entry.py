"""One command-line option: its flag, its help, and how its value is read. Values stay raw strings in Locust's options,
since it sends them to workers and its web page edits them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from tokenswarm.duration import duration as duration


class Reader:
    """Raw values, by name, and all that was found wrong with them so far."""

    def __init__(self, raw: Mapping[str, Any], here: bool) -> None:
        """`here`: whether requests are made in this process, so that files must be there."""
        self.raw = raw
        self.here = here
        self.problems: list[str] = []
        self.unread: set[str] = set()
        """Flags whose values cannot be used, so that nobody knows what they would have said."""

    def text(self, name: str) -> str | None:
        """What was given; None where nothing was."""
        value = self.raw.get(name)
        return None if value is None or str(value).strip() == "" else str(value).strip()

    def wrong(self, name: str, why: str) -> None:
        """The value of this option cannot be used."""
        self.problems.append(f"{flag(name)} {self.raw.get(name)!r}: {why}")
        self.unread.add(flag(name))


Read = Callable[[Reader, str], Any]
"""The value of the option of that name. None: not given, or wrong, which the reader then knows."""


class Option(NamedTuple):
    """An entry of a group's table. `name` is Locust's for its value, `field` ours in `Options`, if another."""

    name: str
    metavar: str
    text: str
    read: Read
    default: Any = ""
    field: str = ""
    in_page: bool = True
    """Whether Locust's page shows it, to be changed between two runs."""


def flag(name: str) -> str:
    """As it is typed."""
    return "--" + name.replace("_", "-")


def text(read: Reader, name: str) -> str | None:
    """Any text but an empty one."""
    return read.text(name)


def items(read: Reader, name: str) -> tuple[str, ...] | None:
    """Texts with commas between them."""
    found = tuple(item.strip() for item in (read.text(name) or "").split(",") if item.strip())
    return found or None


def repeated(read: Reader, name: str) -> tuple[str, ...]:
    """All values of an option that may be given several times."""
    return tuple(read.raw.get(name) or ())


def on(read: Reader, name: str) -> bool:
    """A switch."""
    return bool(read.raw.get(name))


def off(read: Reader, name: str) -> bool:
    """A switch that turns something off."""
    return not read.raw.get(name)


def one_of(*choices: str) -> Read:
    """One of these words."""

    def read_choice(read: Reader, name: str) -> str | None:
        given = read.text(name)
        if given is not None and given not in choices:
            read.wrong(name, f"must be one of {', '.join(choices)}")
        return given

    return read_choice


def on_or_off(read: Reader, name: str) -> bool | None:
    """The words `on` and `off`."""
    given = one_of("on", "off")(read, name)
    return None if given is None else given != "off"


def seconds(low: float = 1e-3) -> Read:
    """A time of at least so many seconds."""

    def read_seconds(read: Reader, name: str) -> float | None:
        given = read.text(name)
        if given is None:
            return None
        found = duration(given)
        if found is None:
            read.wrong(name, "not a time; write 30, 30s, 2m or 1h30m")
        elif found < low:
            read.wrong(name, "must be more than 0; leave it out where nothing is to be limited")
        else:
            return found
        return None

    return read_seconds


def number(low: float, high: float) -> Read:
    """A number between these two, both allowed."""
    return lambda read, name: _between(read, name, low, high, float, "not a number")


def whole(low: int, high: int) -> Read:
    """A whole number between these two, both allowed."""
    return lambda read, name: _between(read, name, low, high, int, "not a whole number")


def _between(read: Reader, name: str, low: float, high: float, kind: Callable[[str], Any], otherwise: str) -> Any:
    given = read.text(name)
    if given is None:
        return None
    try:
        found = kind(given)
    except ValueError:
        read.wrong(name, otherwise)
        return None
    if not low <= found <= high:
        read.wrong(name, f"must be between {low:,} and {high:,}")
        return None
    return found


def json_object(read: Reader, name: str) -> dict[str, Any] | None:
    """A JSON object."""
    given = read.text(name)
    if given is None:
        return None
    try:
        value = msgspec.json.decode(given)
    except msgspec.DecodeError as error:
        read.wrong(name, f"not JSON ({error}); quote it for the shell, as in '{{\"top_k\": 5}}'")
        return None
    if not isinstance(value, dict):
        read.wrong(name, "must be a JSON object, { … }")
        return None
    return value


def file(read: Reader, name: str) -> str | None:
    """The path of a file that is there, where requests are made."""
    path = read.text(name)
    if path is not None:
        file_there(read, name, path)
    return path


def file_there(read: Reader, name: str, path: str) -> None:
    """Where requests are made, the file that the option names must be there."""
    if read.here and not os.path.isfile(path):
        read.wrong(name, "a directory, where a file is wanted" if os.path.isdir(path) else "no such file")


def files(most: int) -> Read:
    """Paths of at most so many files, with commas between them."""

    def read_files(read: Reader, name: str) -> tuple[str, ...] | None:
        paths = items(read, name) or ()
        if len(paths) > most:
            read.wrong(name, f"at most {most} files")
        for path in paths:
            if read.here and not os.path.isfile(path):
                read.wrong(name, f"no such file as {path}")
        return paths or None

    return read_files
