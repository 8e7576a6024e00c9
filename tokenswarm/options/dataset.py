"""Options on the file that prompts are taken from."""

from __future__ import annotations

from typing import Final

from tokenswarm.options.entry import Option, file, one_of

_ERRORS = ("skip", "fail")
_REPLIES = ("server", "file")

OPTIONS: Final = (
    Option("dataset", "FILE", "prompts and conversations to send, one a line; left out: the bundled questions", file),
    Option(
        "dataset_errors",
        "|".join(_ERRORS),
        "leave bad lines out and say so, or end the run",
        one_of(*_ERRORS),
        default="skip",
    ),
    Option(
        "dataset_replies",
        "|".join(_REPLIES),
        "what a conversation carries along as its answers: the server's own, or the file's",
        one_of(*_REPLIES),
        default="server",
    ),
)
