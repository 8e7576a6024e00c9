"""OpenAI responses, streamed as typed events or whole. What an event is stands in its JSON: some servers send no
`event:` lines. Reasoning comes as text or as summaries of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tokenswarm.framing import Event
from tokenswarm.protocols import refusals
from tokenswarm.protocols.base import Delta, Generation, Message, Usage, WireRequest
from tokenswarm.protocols.openai_chat import OpenAIProtocol
from tokenswarm.protocols.replies import read_event, read_whole
from tokenswarm.protocols.requests import post, sampling
from tokenswarm.protocols.values import count, text

_OUTPUT: Final = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "text",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.function_call_arguments.delta": "tool",
    "response.custom_tool_call_input.delta": "tool",
    "response.mcp_call_arguments.delta": "tool",
}
_ENDS: Final = {f"response.{status}": status for status in ("completed", "incomplete", "failed", "cancelled")}
_FINISH: Final = {"max_output_tokens": "length", "max_tokens": "length"}


class _Event(msgspec.Struct, gc=False):
    """Just what the hot path needs; anything shaped otherwise takes the lenient way."""

    type: str
    delta: str


_decode_event = msgspec.json.Decoder(_Event).decode


class OpenAIResponsesDecoder:
    """Decodes one reply; remembers whether its output came in pieces, since the last event repeats all of it."""

    __slots__ = ("_streamed",)

    def __init__(self) -> None:
        self._streamed = False

    def decode(self, event: Event) -> Delta | None:
        """What one event says; None for those that carry nothing new."""
        try:
            said = _decode_event(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return read_event(event, self._read)
        kind = _OUTPUT.get(said.type)
        if kind is None or event.type == b"error":
            return read_event(event, self._read)
        if not said.delta:
            return None
        self._streamed = True
        if kind == "text":
            return Delta(said.delta)
        return Delta(reasoning=said.delta) if kind == "reasoning" else Delta(tool=said.delta)

    def decode_whole(self, body: bytes) -> Delta:
        """A `response` object, or the error that came in its place."""
        return read_whole(body, "output", _read_response)

    def _read(self, value: dict[str, Any]) -> Delta:
        kind = text(value.get("type"))
        delta = Delta()
        if kind in _ENDS:
            response = value.get("response")
            response = response if isinstance(response, dict) else {}
            delta = _read_response({**response, "status": _ENDS[kind]}, self._streamed)
            delta.done = True
            if self._streamed:
                delta.text = delta.reasoning = delta.tool = ""
        elif kind == "response.output_item.added":
            item = value.get("item")
            delta.tool = text(item.get("name")) if isinstance(item, dict) else ""
        elif kind in _OUTPUT:
            setattr(delta, _OUTPUT[kind], text(value.get("delta")))
        self._streamed = self._streamed or bool(delta.text or delta.reasoning or delta.tool)
        return delta


class OpenAIResponses(OpenAIProtocol):
    """`POST /v1/responses`. Reference: https://platform.openai.com/docs/api-reference/responses."""

    name = "openai-responses"
    fewest_tokens = 16

    def encode(self, messages: Sequence[Message], generation: Generation) -> WireRequest:
        """The JSON body; its usage comes without being asked for."""
        body = {"model": generation.model, "input": list(messages), "stream": generation.stream}
        return post("/v1/responses", body | sampling(generation, "max_output_tokens"), generation)

    def decoder(self) -> OpenAIResponsesDecoder:
        """A decoder for one reply."""
        return OpenAIResponsesDecoder()


def _read_response(value: dict[str, Any], streamed: bool = False) -> Delta:
    """A whole response: its output, why it ended, what it cost. One that has no output, and had none before, is
    completed for no reason."""
    delta = Delta(usage=_read_usage(value.get("usage")))
    items = value.get("output")
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict):
            _add(delta, item)
    status = text(value.get("status"))
    if status in ("failed", "cancelled"):
        delta.error = refusals.reported(value.get("error"), f"the response was {status}")
    elif status == "incomplete":
        details = value.get("incomplete_details")
        reason = text(details.get("reason")) if isinstance(details, dict) else ""
        delta.finish_reason = _FINISH.get(reason, reason) or status
    elif status == "completed" and (items or streamed):
        delta.finish_reason = "stop"
    return delta


def _add(delta: Delta, item: dict[str, Any]) -> None:
    content = item.get("content")
    if item.get("type") == "reasoning":
        delta.reasoning += text(content) or text(item.get("summary"))
    elif item.get("type") == "message":
        parts = content if isinstance(content, list) else []
        refused = "".join(text(part.get("refusal")) for part in parts if isinstance(part, dict))
        delta.text += text(content) + refused
    else:
        delta.tool += text(item.get("name")) + text(item.get("arguments"))


def _read_usage(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    usage = Usage(
        count(value, "input_tokens"),
        count(value, "output_tokens"),
        count(value.get("input_tokens_details"), "cached_tokens"),
        count(value.get("output_tokens_details"), "reasoning_tokens"),
    )
    return usage if usage != Usage() else None
