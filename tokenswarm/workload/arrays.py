"""A file that is one JSON array, as ShareGPT's is: its elements, one after another, without the whole in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO, Final

import msgspec

from tokenswarm.workload.records import BEGINNING, BOM, MOST_RECORD_BYTES, Place, Record

_READ_BYTES: Final = 64 * 1024
_BETWEEN: Final = " \t\r\n,"
_decode_first = msgspec.json.Decoder().decode
_decode_next = json.JSONDecoder().raw_decode


def begins(line: bytes) -> bool:
    """Whether a file with this first line is one array of prompts; else it is a line that is a conversation."""
    if not line.lstrip(BOM).lstrip().startswith(b"["):
        return False
    try:
        value = _decode_first(line.removeprefix(BOM))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True  # it goes on in the next line
    first = value[0] if value else None
    return isinstance(first, list) or (isinstance(first, dict) and not {"role", "from"} & first.keys())


def elements(file: BinaryIO, start: Place = BEGINNING) -> Iterator[Record]:
    """The array's elements, from the one at `start`; what is wrong with the array, if anything, is the last.

    Nothing follows an element that is no JSON, or is too long: nobody could say where it ends.
    """
    base, line = start
    file.seek(base)
    # One character a byte: places in the text are places in the file, and what JSON is made of is ASCII.
    text = file.read(_READ_BYTES).decode("latin-1")
    place = text.find("[") + 1 if start == BEGINNING else 0
    while True:
        while place < len(text) and text[place] in _BETWEEN:
            line += text[place] == "\n"
            place += 1
        if text[place : place + 1] == "]":
            return
        try:
            _, end = _decode_next(text, place)
            complete = end < len(text)  # a number may go on
        except (ValueError, RecursionError):
            complete = False
        if complete:
            element = text[place:end]
            yield Record(Place(base + place, line), element.encode("latin-1"))
            line += element.count("\n")
            place = end
            continue
        # As much again as there is, so that a long element is not read over and over.
        more = file.read(max(_READ_BYTES, len(text) - place)).decode("latin-1")
        if not more or len(text) - place > MOST_RECORD_BYTES:
            yield Record(Place(base + place, line), b"", _broken(text[place : place + 60].encode("latin-1")))
            return
        base, text, place = base + place, text[place:] + more, 0


def _broken(rest: bytes) -> str:
    excerpt = f"{rest.decode(errors='replace')!r}…" if rest else "the end of the file"
    return f"the array breaks off: here is no JSON value, or one of more than {MOST_RECORD_BYTES:,} bytes: {excerpt}"
