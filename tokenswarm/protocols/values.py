"""Loosely typed JSON as servers send it: what is of another type than expected counts as not told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from tokenswarm.errors import RequestError
from tokenswarm.protocols.base import Message

BYTES_PER_TOKEN: Final = 4
"""A rule of thumb, in UTF-8: about what tokenizers make of English, and not far off for Chinese."""

_decode = msgspec.json.Decoder().decode


def load(data: bytes) -> Any:
    """Any JSON value. Raises RequestError (`malformed`) with an excerpt."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError("malformed", f"not JSON ({error}): {excerpt(data)}") from None


def load_object(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises RequestError (`malformed`) with an excerpt."""
    value = load(data)
    if not isinstance(value, dict):
        raise RequestError("malformed", f"an event that is not an object: {excerpt(data)}")
    return value


def excerpt(data: bytes) -> str:
    """The first of it, for an error message."""
    text = data[:120].decode("utf-8", "replace")
    return repr(text) if len(data) <= 120 else f"{text!r}…"


def count(value: Any, key: str) -> int | None:
    """A number of tokens in an object, None where it tells none."""
    number = value.get(key) if isinstance(value, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else None


def text(value: Any) -> str:
    """Content is a string, or a list of parts with a `text` each."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(text(part.get("text")) for part in value if isinstance(part, dict))
    return ""


def merged(body: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """A request's body with what the user wants in it besides; objects in objects are merged as well."""
    result = dict(body)
    for key, value in extra.items():
        mine = result.get(key)
        result[key] = merged(mine, value) if isinstance(mine, dict) and isinstance(value, Mapping) else value
    return result


def as_prompt(messages: Sequence[Message]) -> str:
    """Messages for a server that takes one text: one message as it is, several with their roles before them."""
    if len(messages) == 1:
        return text(messages[0]["content"])
    lines = [f"{message['role'].capitalize()}: {text(message['content'])}" for message in messages]
    return "\n\n".join([*lines, "Assistant:"])


def as_turns(messages: Sequence[Message]) -> tuple[str, list[list[str]]]:
    """The last question, and the turns before it as [question, answer]. There is no role but those two: what comes
    before an answer, a system message too, is its question."""
    history: list[list[str]] = []
    question: list[str] = []
    for message in messages:
        if message["role"] == "assistant":
            history.append(["\n\n".join(question), text(message["content"])])
            question = []
        else:
            question.append(text(message["content"]))
    return "\n\n".join(question), history


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has, at least 1."""
    return max(1, len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)
