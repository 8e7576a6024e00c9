"""Anthropic messages, streamed as typed events or whole: what Anthropic, vLLM and llama.cpp speak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tokenswarm.framing import Event
from tokenswarm.protocols.base import Delta, Generation, HttpProtocol, Message, Usage, WireRequest
from tokenswarm.protocols.openai_chat import read_models
from tokenswarm.protocols.replies import read_event, read_whole
from tokenswarm.protocols.requests import post, sampling
from tokenswarm.protocols.values import count, text

DEFAULT_MAX_TOKENS: Final = 1024
"""Asked for where nothing is: the protocol does not let it out."""
_HEADERS: Final = (("anthropic-version", "2023-06-01"),)
_FINISH: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_CACHED: Final = "cache_read_input_tokens"
_INPUT: Final = ("input_tokens", "cache_creation_input_tokens", _CACHED)
"""Together all of the input: tokens out of the cache, or into it, are not in the first."""


class _Part(msgspec.Struct, gc=False):
    text: str = ""
    thinking: str = ""
    partial_json: str = ""


class _Event(msgspec.Struct, gc=False):
    """Just what the hot path needs; anything shaped otherwise takes the lenient way."""

    type: str
    delta: _Part


_decode_event = msgspec.json.Decoder(_Event).decode


class AnthropicDecoder:
    """Decodes one reply; remembers its token counts, which come in parts and grow."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def decode(self, event: Event) -> Delta | None:
        """What one event says; None for those that carry nothing (pings, signatures, ends of blocks)."""
        try:
            said = _decode_event(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return read_event(event, self._read)
        if said.type != "content_block_delta" or event.type == b"error":
            return read_event(event, self._read)
        part = said.delta
        if not (part.text or part.thinking or part.partial_json):
            return None
        return Delta(part.text, part.thinking, part.partial_json)

    def decode_whole(self, body: bytes) -> Delta:
        """A `message` object, or the error that came in its place."""
        return read_whole(body, "content", self._read_message)

    def _read(self, value: dict[str, Any]) -> Delta:
        kind, inner = value.get("type"), value.get("delta")
        part = inner if isinstance(inner, dict) else {}
        if kind == "message_start":
            message = value.get("message")
            usage = self._usage(message.get("usage")) if isinstance(message, dict) else None
            # What it says of the output is no count yet.
            return Delta(usage=usage and msgspec.structs.replace(usage, output_tokens=None))
        if kind == "content_block_start":
            return _block(value.get("content_block"))
        if kind == "content_block_delta":
            return Delta(text(part.get("text")), text(part.get("thinking")), text(part.get("partial_json")))
        if kind == "message_delta":
            return Delta(usage=self._usage(value.get("usage")), finish_reason=_finish(part))
        return Delta(done=kind == "message_stop")

    def _read_message(self, value: dict[str, Any]) -> Delta:
        blocks = value.get("content")
        parts = [_block(block, whole=True) for block in blocks] if isinstance(blocks, list) else []
        return Delta(
            "".join(part.text for part in parts),
            "".join(part.reasoning for part in parts),
            "".join(part.tool for part in parts),
            self._usage(value.get("usage")),
            _finish(value),
        )

    def _usage(self, value: Any) -> Usage | None:
        """All counts so far with these; a later 0 takes nothing back."""
        counts = self._counts
        for name in (*_INPUT, "output_tokens"):
            number = count(value, name)
            if number is not None:
                counts[name] = max(number, counts.get(name, 0))
        if not counts:
            return None
        told = "input_tokens" in counts
        total = sum(counts.get(name, 0) for name in _INPUT) if told else None
        return Usage(total, counts.get("output_tokens"), counts.get(_CACHED))


class Anthropic(HttpProtocol):
    """`POST /v1/messages`. Reference: https://docs.anthropic.com/en/api/messages."""

    name = "anthropic"

    def credentials(self, key: str) -> dict[str, str]:
        """The key in Anthropic's own header."""
        return {"x-api-key": key}

    def listing(self) -> WireRequest | None:
        """The list of models."""
        return WireRequest("/v1/models", b"", "application/json", "GET", _HEADERS)

    def models(self, body: bytes) -> list[str]:
        """As `read_models`: the shape is OpenAI's."""
        return read_models(body)

    def encode(self, messages: Sequence[Message], generation: Generation) -> WireRequest:
        """The JSON body; system messages have a field of their own."""
        system = [text(message["content"]) for message in messages if message["role"] == "system"]
        body: dict[str, Any] = {
            "model": generation.model,
            "messages": [message for message in messages if message["role"] != "system"],
            "max_tokens": DEFAULT_MAX_TOKENS,
            "stream": generation.stream,
        }
        if system:
            body["system"] = "\n\n".join(system)
        return post("/v1/messages", body | sampling(generation), generation, _HEADERS)

    def decoder(self) -> AnthropicDecoder:
        """A decoder for one reply."""
        return AnthropicDecoder()


def _block(value: Any, whole: bool = False) -> Delta:
    """A block of content as it begins, or `whole`: then with the arguments of a tool call."""
    if not isinstance(value, dict):
        return Delta()
    tool = text(value.get("name"))
    if whole and "input" in value:
        tool += msgspec.json.encode(value["input"]).decode()
    return Delta(text(value.get("text")), text(value.get("thinking")), tool)


def _finish(value: dict[str, Any]) -> str | None:
    reason = text(value.get("stop_reason"))
    return _FINISH.get(reason, reason) or None
