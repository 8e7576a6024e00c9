"""Servers that repeat the whole text so far with each event: what is new in it."""

from __future__ import annotations

from math import ceil
from typing import Final

from tokenswarm.errors import RequestError

MOST_REVISED: Final = 64
"""Characters at the end of a text that a server may write anew, as detokenizers and stop words make it do."""


class CumulativeText:
    """The text of one reply, as far as it has come.

    A text may end in U+FFFD while the bytes of a character are incomplete; those do not count until they are. It may
    also be shorter than the former one (a stop word was taken off), or change in its last characters; what is new is
    then only what goes past the former length, as FastChat's own clients have it. `least_kept`: the share of the former
    text that the next must begin with all the same, where a server may be sending pieces instead.
    """

    __slots__ = ("_least_kept", "_text")

    def __init__(self, least_kept: float = 0.0) -> None:
        self._least_kept = least_kept
        self._text = ""

    def new_part(self, text: str) -> str:
        """What this text adds. Raises RequestError (`malformed`) on one that begins otherwise than the former."""
        if text.endswith("\ufffd"):
            text = text.rstrip("\ufffd")
        former = self._text
        if not text.startswith(former):
            settled = max(ceil(len(former) * self._least_kept), min(len(former), len(text)) - MOST_REVISED, 0)
            if text[:settled] != former[:settled]:
                raise RequestError("malformed", f"the text so far, of {len(former)} characters, begins otherwise now")
            if len(text) <= len(former):
                return ""
        self._text = text
        return text[len(former) :]
