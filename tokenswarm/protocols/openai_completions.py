"""OpenAI completions: a text goes on. Streamed as server-sent events or whole; vLLM, llama.cpp and others speak it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tokenswarm.framing import Event
from tokenswarm.protocols.base import Delta, Generation, Message, WireRequest
from tokenswarm.protocols.openai_chat import OpenAIProtocol, ask_for_choice, read_choice, read_usage
from tokenswarm.protocols.replies import read_event, read_whole
from tokenswarm.protocols.values import as_prompt, text


class _Choice(msgspec.Struct, gc=False):
    text: str | None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    """Just what the hot path needs; anything shaped otherwise takes the lenient way."""

    choices: tuple[_Choice]
    """Just one."""
    usage: dict[str, Any] | None = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class OpenAICompletionsDecoder:
    """Decodes one reply. Events arrive whole; text may come in any number of tokens an event."""

    __slots__ = ()

    def decode(self, event: Event) -> Delta | None:
        """What one event says; None for those that carry nothing."""
        try:
            chunk = _decode_chunk(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return read_event(event, _delta_of)
        if chunk.error or event.type == b"error":
            return read_event(event, _delta_of)
        choice = chunk.choices[0]
        finish = choice.finish_reason or None  # some send "" until the last chunk
        if not choice.text and chunk.usage is None and finish is None:
            return None
        usage = None if chunk.usage is None else read_usage(chunk.usage)
        return Delta(choice.text or "", "", "", usage, finish)

    def decode_whole(self, body: bytes) -> Delta:
        """A `text_completion` object, or the error that came in its place."""
        return read_whole(body, "choices", _delta_of)


class OpenAICompletions(OpenAIProtocol):
    """`POST /v1/completions`. Reference: https://platform.openai.com/docs/api-reference/completions."""

    name = "openai-completions"
    ignores_eos = True

    def encode(self, messages: Sequence[Message], generation: Generation) -> WireRequest:
        """The JSON body; streams ask for usage, which servers that do not know the option ignore."""
        return ask_for_choice("/v1/completions", {"prompt": as_prompt(messages)}, generation)

    def decoder(self) -> OpenAICompletionsDecoder:
        """A decoder for one reply."""
        return OpenAICompletionsDecoder()


def _delta_of(value: dict[str, Any]) -> Delta:
    choice, delta = read_choice(value)
    delta.text = text(choice.get("text"))
    return delta
