"""What one record of a dataset asks: a prompt, or a conversation over turns. Opens no file.

A row of a table is its cells by column. A line is text, or JSON that begins with a bracket, brace or quotation mark:

- `What is rain?`, `"What is rain?"`, `{"prompt": "What is rain?"}`: one prompt;
- `["What is rain?", "And snow?"]`, `{"turns": […]}`: the user's turns of a conversation;
- `[{"role": "user", "content": "…"}, …]`, `{"messages": […]}`: a whole conversation, as OpenAI and C-Eval write it;
- `{"conversations": [{"from": "human", "value": "…"}, …]}`: a whole one, as ShareGPT writes it;
- `{"question": "…", "A": "…", "B": "…", "C": "…", "D": "…"}`: one of several choices, as C-Eval's tables have it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from tokenswarm.protocols.base import Message
from tokenswarm.workload.prompts import Prompt, Turn

_ROLES: Final = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
}
CONVERSATIONS: Final = ("messages", "conversations", "conversation", "turns")
"""Fields that hold a list; in a table, as JSON."""
COLUMNS: Final = (*CONVERSATIONS, "prompt", "question", "instruction", "input", "query", "text", "content")
"""Where the prompt is looked for, in this order."""
_CHOICES: Final = ("A", "B", "C", "D")
_LENGTHS: Final = ("output_tokens", "max_tokens")
MOST_TOKENS: Final = 10_000_000
"""No model reads or writes more."""

_decode = msgspec.json.Decoder().decode


def read_text(line: bytes, identity: str) -> Prompt:
    """A line as it stands. Raises ValueError on what is no text."""
    try:
        text = line.decode().strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error.reason} at byte {error.start})") from None
    if not text:
        raise ValueError("empty")
    if "\0" in text:
        raise ValueError("not text: there is a NUL in it")
    return Prompt(identity, (_user(text),))


def read_line(line: bytes, identity: str, column: str | None = None) -> Prompt:
    """A line of any of the shapes above; `column`: the field of an object to take.

    Raises ValueError, in words that say what is wrong with it.
    """
    if column is None and line.lstrip()[:1] not in (b"{", b"[", b'"'):
        return read_text(line, identity)
    try:
        value = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if isinstance(value, dict):
        return read_fields(value, identity, column)
    if column is not None:
        raise ValueError(f"no object, so it has no field {column!r}")
    return _prompt(value, identity)


def read_row(row: Mapping[str, str], identity: str, column: str | None = None) -> Prompt:
    """A row of a table, as `read_fields` takes an object; a text stands there as it is, and a list as JSON."""
    chosen = choose(row, column)
    if chosen not in CONVERSATIONS:
        return read_fields(row, identity, column)
    try:
        return read_fields({**row, chosen: _decode(row[chosen])}, identity, chosen)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"{chosen} is not JSON: {error}") from None


def read_fields(fields: Mapping[str, Any], identity: str, column: str | None = None) -> Prompt:
    """What named fields ask, and the length that they want for the reply. Raises ValueError."""
    chosen = choose(fields, column)
    value = fields[chosen]
    if column is None and chosen == "question" and all(choice in fields for choice in _CHOICES):
        value = "\n".join([_content(value, chosen), *(f"{choice}. {fields[choice]}" for choice in _CHOICES)])
    return msgspec.structs.replace(_prompt(value, identity), output_tokens=_output_tokens(fields))


def choose(columns: Collection[str], column: str | None) -> str:
    """The one that holds the prompt: `column`, else the first usual one. Raises ValueError where there is none."""
    if column is not None:
        if column in columns:
            return column
        raise ValueError(f"there is no {column!r} in it, but {listed(columns)}")
    chosen = next((name for name in COLUMNS if name in columns), None)
    if chosen is None:
        raise ValueError(
            f"none of {', '.join(COLUMNS)} is in it, but {listed(columns)}; --dataset-column NAME says which to take"
        )
    return chosen


def length(value: Any, name: str) -> int | None:
    """A number of tokens, from JSON or a cell; None where nothing stands there. Raises ValueError."""
    if value is None or value == "":
        return None
    try:
        number = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):  # JSON's whole numbers have no end
        number = math.nan
    if not (number.is_integer() and 1 <= number <= MOST_TOKENS):
        raise ValueError(f"{name} is {str(value)[:40]!r}, and no whole number from 1 to {MOST_TOKENS:,}")
    return int(number)


def _output_tokens(fields: Mapping[str, Any]) -> int | None:
    return next((found for name in _LENGTHS if (found := length(fields.get(name), name)) is not None), None)


def listed(columns: Collection[str]) -> str:
    """Names of columns for a message; the first of many."""
    shown = ", ".join(repr(str(column)[:40]) for column in list(columns)[:20])
    return f"{shown} and {len(columns) - 20} more" if len(columns) > 20 else shown or "nothing at all"


def _prompt(value: Any, identity: str) -> Prompt:
    if isinstance(value, str):
        return Prompt(identity, (_user(_content(value, "the prompt")),))
    if not isinstance(value, list):
        raise ValueError("neither a text nor a list")
    first, *then = _turns(value)
    return Prompt(identity, first.messages, first.reply, tuple(then))


def _turns(items: list[Any]) -> Sequence[Turn]:
    """Of a conversation: what is asked, and what the dataset has as its answer. At least one, or ValueError."""
    turns: list[Turn] = []
    asked: list[Message] = []
    for number, item in enumerate(items, 1):
        role, content = _message(item, f"message {number}")
        if role == "assistant":
            if turns and content:  # one before the first question answers nothing
                before = turns[-1].reply
                turns[-1] = Turn(turns[-1].messages, f"{before}\n\n{content}" if before else content)
            continue
        asked.append({"role": role, "content": content})
        if role == "user":
            turns.append(Turn(tuple(asked)))
            asked = []
    if not turns:
        raise ValueError("no message of a user")
    return turns


def _message(item: Any, which: str) -> tuple[str, str]:
    """Role and content. Raises ValueError."""
    if isinstance(item, str):
        return "user", _content(item, which)
    if not isinstance(item, dict):
        raise ValueError(f"{which} is neither a text nor an object")
    said = item.get("role", item.get("from"))
    role = _ROLES.get(said.lower()) if isinstance(said, str) else None
    if role is None:
        raise ValueError(f"{which} is of {said!r}, which cannot be replayed; known are {', '.join(_ROLES)}")
    content = item.get("content", item.get("value"))
    if role == "assistant" and not content:  # a call of a tool, which nobody asks for here
        return role, ""
    return role, _content(content, which)


def _content(value: Any, which: str) -> str:
    """A text, or OpenAI's list of parts that are texts. Raises ValueError."""
    if isinstance(value, list):
        parts: list[Any] = [part.get("text") if isinstance(part, dict) else None for part in value]
        value = "".join(parts) if all(isinstance(part, str) for part in parts) else None
    if not isinstance(value, str):
        raise ValueError(f"{which} is no text")
    if not value.strip():
        raise ValueError(f"{which} is empty")
    return value


def _user(text: str) -> Message:
    return {"role": "user", "content": text}
