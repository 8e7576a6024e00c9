"""What one line of a dataset asks: a prompt, or a conversation over turns. Opens no file.

A line is text, or JSON that begins with a bracket, a brace or a quotation mark:

- `What is rain?`, `"What is rain?"`, `{"prompt": "What is rain?"}`: one prompt;
- `["What is rain?", "And snow?"]`, `{"turns": […]}`: the user's turns of a conversation;
- `[{"role": "user", "content": "…"}, …]`, `{"messages": […]}`: a whole conversation, as OpenAI and C-Eval write it;
- `{"conversations": [{"from": "human", "value": "…"}, …]}`: a whole one, as ShareGPT writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
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
_FIELDS: Final = ("messages", "conversations", "conversation", "turns", "prompt")
"""Of an object, where its text or its list is."""

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


def read_line(line: bytes, identity: str) -> Prompt:
    """A line of any of the shapes above. Raises ValueError, in words that say what is wrong with it."""
    if line.lstrip()[:1] not in (b"{", b"[", b'"'):
        return read_text(line, identity)
    try:
        value = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if isinstance(value, dict):
        found = next((name for name in _FIELDS if name in value), None)
        if found is None:
            raise ValueError(f"none of {', '.join(_FIELDS)} is in it")
        value = value[found]
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
