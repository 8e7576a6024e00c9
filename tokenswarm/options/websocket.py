"""Options on how a server over a WebSocket is asked, and how it answers: together they are one `Shape`."""

from __future__ import annotations

from typing import Final

from tokenswarm.errors import OptionError
from tokenswarm.options.entry import Option, Reader, one_of, text
from tokenswarm.protocols.websocket_chat import Shape

_REPLIES = ("cumulative", "pieces")

OPTIONS: Final = (
    Option("ws_path", "PATH", "websocket-chat: the WebSocket's path (/ws)", text),
    Option("ws_query_field", "NAME", "websocket-chat: the field for what is asked (query)", text),
    Option(
        "ws_history_field",
        "NAME|none",
        "websocket-chat: the field for the turns before, [[question, answer], …]",
        text,
    ),
    Option(
        "ws_id_field",
        "NAME",
        "websocket-chat: the field for the request's id, as requests.csv has it; else none",
        text,
    ),
    Option(
        "ws_reply_field",
        "NAME|none",
        "websocket-chat: the text's field (response); none: messages are plain text",
        text,
    ),
    Option(
        "ws_reply",
        "|".join(_REPLIES),
        "websocket-chat: a message holds the text so far, or a piece of it",
        one_of(*_REPLIES),
    ),
    Option(
        "ws_end",
        "NAME=VALUE|close|TEXT",
        "websocket-chat: what ends a turn (status=200); close: the server closes",
        text,
    ),
)


def shape(read: Reader) -> Shape:
    """What the options of this group say together."""
    usual = Shape()
    fields = {
        name: read.text(f"ws_{name}") or getattr(usual, name)
        for name in ("path", "query_field", "history_field", "id_field", "reply_field", "end")
    }
    for name in ("history_field", "reply_field"):
        fields[name] = "" if fields[name] == "none" else fields[name]
    found = Shape(**fields, cumulative=one_of(*_REPLIES)(read, "ws_reply") != "pieces")
    try:
        found.check()
    except OptionError as error:
        read.problems.append(str(error))
    return found
