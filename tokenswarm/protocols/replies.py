"""What the replies of most protocols over server-sent events have in common: `[DONE]`, errors, one JSON object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenswarm.errors import RequestError
from tokenswarm.framing import Event
from tokenswarm.protocols import refusals
from tokenswarm.protocols.base import Delta
from tokenswarm.protocols.values import excerpt, load


def read_event(event: Event, read: Callable[[dict[str, Any]], Delta]) -> Delta | None:
    """One event, taken loosely; `read` gets an object that reports no error. None where nothing of interest is said.

    Raises RequestError (`malformed`) on what is no object.
    """
    data = event.data.strip()
    if data == b"[DONE]":
        return Delta(done=True)
    if not data:
        return None
    value = load(data)
    error = refusals.from_stream(value)
    if error is None and event.type == b"error":
        error = refusals.reported(value, excerpt(data))
    if error is not None:
        return Delta(error=error)
    if not isinstance(value, dict):
        raise RequestError("malformed", f"an event that is not an object: {excerpt(data)}")
    delta = read(value)
    if delta == Delta():
        error = refusals.flat(value)
        return None if error is None else Delta(error=error)
    return delta


def read_whole(body: bytes, key: str, read: Callable[[dict[str, Any]], Delta]) -> Delta:
    """A reply that was not streamed: an object with this key, for `read`, or the error that came in its place."""
    value = load(body)
    if isinstance(value, dict) and value.get(key) is not None and refusals.from_stream(value) is None:
        return read(value)
    return Delta(error=refusals.instead_of_reply(value, f"a reply without {key}: {excerpt(body)}"))
