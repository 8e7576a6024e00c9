"""OpenAI chat completions, streamed as server-sent events or whole: what vLLM, SGLang, llama.cpp and most others speak.

Lenient where servers differ: usage on any chunk or none, no `[DONE]`, reasoning under two names, errors inside a 200.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tokenswarm.errors import RequestError
from tokenswarm.framing import Event
from tokenswarm.protocols.base import Delta, Generation, HttpProtocol, Message, Usage, WireRequest
from tokenswarm.protocols.replies import read_event, read_whole
from tokenswarm.protocols.requests import post, sampling
from tokenswarm.protocols.values import count, excerpt, load, text


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    """Just what the hot path needs; anything shaped otherwise takes the lenient way."""

    choices: tuple[_Choice]
    """Just one."""
    usage: dict[str, Any] | None = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class OpenAIChatDecoder:
    """Decodes one reply. Events arrive whole; text may come in any number of tokens an event."""

    __slots__ = ()

    def decode(self, event: Event) -> Delta | None:
        """What one event says; None for those that carry nothing (role, pings, empty deltas)."""
        try:
            chunk = _decode_chunk(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._decode_leniently(event)
        choice = chunk.choices[0]
        part = choice.delta
        if chunk.error or event.type == b"error" or part.refusal or part.tool_calls:
            return self._decode_leniently(event)
        text = part.content or ""
        reasoning = part.reasoning_content or part.reasoning or ""
        finish = choice.finish_reason or None  # some send "" until the last chunk
        if not text and not reasoning and chunk.usage is None and finish is None:
            return None
        usage = None if chunk.usage is None else read_usage(chunk.usage)
        return Delta(text, reasoning, "", usage, finish)

    def decode_whole(self, body: bytes) -> Delta:
        """A `chat.completion` object, or the error that came in its place."""
        return read_whole(body, "choices", lambda value: _delta_of(value, "message"))

    def _decode_leniently(self, event: Event) -> Delta | None:
        return read_event(event, lambda value: _delta_of(value, "delta"))


class OpenAIProtocol(HttpProtocol):
    """What OpenAI's protocols have in common: the list of models."""

    def listing(self) -> WireRequest | None:
        """The list of models."""
        return WireRequest("/v1/models", b"", "application/json", "GET")

    def models(self, body: bytes) -> list[str]:
        """As `read_models`."""
        return read_models(body)


class OpenAIChat(OpenAIProtocol):
    """`POST /v1/chat/completions`. Reference: https://platform.openai.com/docs/api-reference/chat."""

    name = "openai-chat"
    ignores_eos = True

    def encode(self, messages: Sequence[Message], generation: Generation) -> WireRequest:
        """The JSON body; streams ask for usage, which servers that do not know the option ignore."""
        return ask_for_choice("/v1/chat/completions", {"messages": list(messages)}, generation)

    def decoder(self) -> OpenAIChatDecoder:
        """A decoder for one reply."""
        return OpenAIChatDecoder()


def ask_for_choice(path: str, prompt: dict[str, Any], generation: Generation) -> WireRequest:
    """A request for a (chat) completion of the prompt."""
    body = {"model": generation.model, **prompt, "stream": generation.stream}
    if generation.stream:
        body["stream_options"] = {"include_usage": True}
    if generation.ignore_eos and generation.max_tokens is not None:  # not OpenAI's own, but its servers' (vLLM, SGLang)
        body |= {"ignore_eos": True, "min_tokens": generation.max_tokens}
    return post(path, body | sampling(generation), generation)


def read_models(body: bytes) -> list[str]:
    """The ids in `{"data": [{"id": …}]}`; raises RequestError (`malformed`) on anything else."""
    value = load(body)
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(data, list):
        raise RequestError("malformed", f"not a list of models: {excerpt(body)}")
    return [str(model["id"]) for model in data if isinstance(model, dict) and "id" in model]


def read_usage(value: Any) -> Usage | None:
    """OpenAI's usage object; None if it holds no numbers. Fields of the wrong type count as not told."""
    if not isinstance(value, dict):
        return None
    details_in, details_out = value.get("prompt_tokens_details"), value.get("completion_tokens_details")
    usage = Usage(
        count(value, "prompt_tokens"),
        count(value, "completion_tokens"),
        count(details_in, "cached_tokens"),
        count(details_out, "reasoning_tokens"),
    )
    return usage if usage != Usage() else None


def read_choice(value: dict[str, Any]) -> tuple[dict[str, Any], Delta]:
    """The choice in a loosely typed chunk (empty: none), and a delta with what stands beside its output.

    Raises RequestError on several choices: nobody could tell their tokens apart.
    """
    delta = Delta(usage=read_usage(value.get("usage")))
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices:
        return {}, delta
    choice = choices[0]
    if len(choices) > 1 or not isinstance(choice, dict):
        raise RequestError("malformed", "a chunk with several choices; only n = 1 can be timed")
    delta.finish_reason = text(choice.get("finish_reason")) or None
    return choice, delta


def tool_text(calls: Any) -> str:
    """Names and arguments in a list of tool calls, or of pieces of them."""
    return "".join(map(_call_text, calls)) if isinstance(calls, list) else ""


def _delta_of(value: dict[str, Any], part_name: str) -> Delta:
    choice, delta = read_choice(value)
    part = choice.get(part_name)
    if isinstance(part, dict):
        delta.text = text(part.get("content")) + text(part.get("refusal"))
        delta.reasoning = text(part.get("reasoning_content")) or text(part.get("reasoning"))
        delta.tool = tool_text(part.get("tool_calls"))
    return delta


def _call_text(call: Any) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    return text(function.get("name")) + text(function.get("arguments")) if isinstance(function, dict) else ""
