"""ChatGLM's `api.py`: one JSON object for a question and the turns before it, one for the whole answer. Never streamed.

Reference: https://github.com/THUDM/ChatGLM-6B/blob/main/api.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tokenswarm.errors import RequestError
from tokenswarm.framing import Event
from tokenswarm.protocols import refusals
from tokenswarm.protocols.base import Delta, Generation, HttpProtocol, Message, WireRequest
from tokenswarm.protocols.values import as_turns, estimated_tokens, excerpt, load, merged


class ChatGLMDecoder:
    """Decodes one reply."""

    __slots__ = ()

    def decode(self, event: Event) -> Delta | None:
        """The same object, should it come as a stream."""
        return self.decode_whole(event.data)

    def decode_whole(self, body: bytes) -> Delta:
        """`{"response", "history", "status": 200, "time"}`, or the error that came in its place."""
        loaded = load(body)
        value = loaded if isinstance(loaded, dict) else {}
        answer, status = value.get("response"), value.get("status")
        if isinstance(answer, str) and status in (200, None):
            return Delta(answer, done=True)
        error = refusals.from_stream(value)
        if error is None and isinstance(status, int) and status not in (200, 0):
            error = RequestError("stream_error", f"status {status}: {refusals.message_of(value) or excerpt(body)}")
        otherwise = f"a reply without a response: {excerpt(body)}"
        return Delta(error=error or refusals.instead_of_reply(loaded, otherwise))


class ChatGLM(HttpProtocol):
    """`POST /`."""

    name = "chatglm"
    streams = False
    default_model: str | None = "chatglm"

    def encode(self, messages: Sequence[Message], generation: Generation) -> WireRequest:
        """The JSON body. `max_length` counts the prompt as well, so that is estimated and added to what was asked."""
        prompt, history = as_turns(messages)
        body: dict[str, Any] = {"prompt": prompt, "history": history}
        if generation.max_tokens is not None:
            said = [prompt, *(part for turn in history for part in turn)]
            body["max_length"] = generation.max_tokens + sum(map(estimated_tokens, said))
        for key in ("temperature", "top_p"):
            value = getattr(generation, key)
            if value is not None:
                body[key] = value
        return WireRequest("/", msgspec.json.encode(merged(body, generation.extra_body)), "application/json")

    def decoder(self) -> ChatGLMDecoder:
        """A decoder for one reply."""
        return ChatGLMDecoder()
