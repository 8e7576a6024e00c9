"""Hugging Face's text-generation-inference, its own API: a text goes on, a token an event; no `[DONE]`.

The last event has the whole text, which ends the stream, and the details: why it ended, how many tokens there were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tokenswarm.errors import RequestError
from tokenswarm.framing import Event
from tokenswarm.protocols.base import Delta, Generation, HttpProtocol, Message, Usage, WireRequest
from tokenswarm.protocols.openai_chat import read_models
from tokenswarm.protocols.replies import read_event, read_whole
from tokenswarm.protocols.requests import post, sampling
from tokenswarm.protocols.values import as_prompt, count, excerpt, load_object, text

_FINISH: Final = {"eos_token": "stop", "stop_sequence": "stop"}


class _Token(msgspec.Struct, gc=False):
    text: str
    special: bool = False


class _Event(msgspec.Struct, gc=False):
    """Just what the hot path needs: every event but the last."""

    token: _Token
    generated_text: None = None
    details: None = None
    error: None = None


_decode_event = msgspec.json.Decoder(_Event).decode


class TgiDecoder:
    """Decodes one reply."""

    __slots__ = ()

    def decode(self, event: Event) -> Delta | None:
        """What one event says; None for a token that is no text (special, or part of a character)."""
        try:
            said = _decode_event(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return read_event(event, _read_event)
        if event.type == b"error":
            return read_event(event, _read_event)
        token = said.token
        return Delta(token.text) if token.text and not token.special else None

    def decode_whole(self, body: bytes) -> Delta:
        """The whole text with its details, or the error that came in its place."""
        return read_whole(body, "generated_text", _read_whole)


class Tgi(HttpProtocol):
    """`POST /generate_stream`, or `/generate`. Reference: https://huggingface.github.io/text-generation-inference."""

    name = "tgi"

    def listing(self) -> WireRequest | None:
        """What the server is, its one model with it."""
        return WireRequest("/info", b"", "application/json", "GET")

    def models(self, body: bytes) -> list[str]:
        """The one in `model_id`, or a list of OpenAI's shape. Raises RequestError (`malformed`)."""
        value = load_object(body)
        if "data" in value:
            return read_models(body)
        model = text(value.get("model_id"))
        if not model:
            raise RequestError("malformed", f"no model_id: {excerpt(body)}")
        return [model]

    def encode(self, messages: Sequence[Message], generation: Generation) -> WireRequest:
        """The JSON body. The server takes no temperature of 0 and no top_p of 1: what they ask for is its default."""
        asked = sampling(generation, "max_new_tokens")
        parameters = {name: value for name, value in asked.items() if (name, value) not in _REFUSED}
        body = {"inputs": as_prompt(messages), "parameters": {**parameters, "details": True}}
        return post("/generate_stream" if generation.stream else "/generate", body, generation)

    def decoder(self) -> TgiDecoder:
        """A decoder for one reply."""
        return TgiDecoder()


_REFUSED: Final = (("temperature", 0), ("top_p", 1))


def _read_event(value: dict[str, Any]) -> Delta:
    delta = _details(value)
    token = value.get("token")
    if isinstance(token, dict) and token.get("special") is not True:
        delta.text = text(token.get("text"))
    delta.done = isinstance(value.get("generated_text"), str)
    return delta


def _read_whole(value: dict[str, Any]) -> Delta:
    delta = _details(value)
    delta.text = text(value.get("generated_text"))
    return delta


def _details(value: dict[str, Any]) -> Delta:
    details = value.get("details")
    if not isinstance(details, dict):
        return Delta()
    into = count(details, "input_length")
    prefill = details.get("prefill")
    if into is None and isinstance(prefill, list) and prefill:
        into = len(prefill)
    usage = Usage(into, count(details, "generated_tokens"))
    reason = text(details.get("finish_reason"))
    return Delta(usage=usage if usage != Usage() else None, finish_reason=_FINISH.get(reason, reason) or None)
