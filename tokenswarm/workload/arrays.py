"""A file that is one JSON array, as ShareGPT's is: its elements, one after another, without the whole in memory."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import BinaryIO, Final

import msgspec

_READ_BYTES: Final = 1024 * 1024
_BETWEEN: Final = " \t\r\n,"
_decode_first = msgspec.json.Decoder().decode
_decode_next = json.JSONDecoder().raw_decode


def begins(line: bytes) -> bool:
    """Whether a file with this first line is one array of prompts; else it is a line that is a conversation."""
    if not line.lstrip(codecs.BOM_UTF8).lstrip().startswith(b"["):
        return False
    try:
        value = _decode_first(line.removeprefix(codecs.BOM_UTF8))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True  # it goes on in the next line
    first = value[0] if value else None
    return isinstance(first, list) or (isinstance(first, dict) and not {"role", "from"} & first.keys())


def elements(file: BinaryIO, most_bytes: int) -> Iterator[tuple[int, bytes, str]]:
    """The number of its first line, an element as it stands, and what is wrong with it; the last is mostly nothing.

    Nothing follows an element that is no JSON, or is longer than `most_bytes`: nobody could say where it ends.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
    text = decoder.decode(file.read(_READ_BYTES))
    line, place = 1, text.find("[") + 1
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
            yield line, element.encode("utf-8", "surrogateescape"), ""
            line += element.count("\n")
            place = end
            continue
        # As much again as there is, so that a long element is not read over and over.
        more = decoder.decode(file.read(max(_READ_BYTES, len(text) - place)))
        if not more or len(text) - place > most_bytes:
            excerpt = f"{text[place : place + 60]!r}…" if place < len(text) else "the end of the file"
            yield (
                line,
                b"",
                f"the array breaks off: here is no JSON value, or one of more than {most_bytes:,} bytes: {excerpt}",
            )
            return
        text, place = text[place:] + more, 0
