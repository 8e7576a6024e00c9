"""Alibaba Cloud's DashScope (Model Studio), its native API: text generation, streamed as server-sent events or whole.

A stream is incremental unless the user asks otherwise: then each event has the whole text so far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from tokenswarm.errors import RequestError
from tokenswarm.framing import Event
from tokenswarm.protocols import refusals
from tokenswarm.protocols.base import Delta, Generation, HttpProtocol, Message, Usage, WireRequest
from tokenswarm.protocols.openai_chat import read_models, tool_text
from tokenswarm.protocols.replies import read_event, read_whole
from tokenswarm.protocols.requests import post, sampling
from tokenswarm.protocols.values import count, text

_STREAMED: Final = (("X-DashScope-SSE", "enable"),)
_NO_REASON: Final = ("", "null")
"""As finish reason until the last event; the second is a string."""


class DashScopeDecoder:
    """Decodes one reply. Every event tells token counts, so every one is read loosely."""

    __slots__ = ("_so_far",)

    def __init__(self, cumulative: bool = False) -> None:
        self._so_far: dict[str, str] | None = {} if cumulative else None

    def decode(self, event: Event) -> Delta | None:
        """What one event adds. Raises RequestError (`malformed`) on a text so far that does not begin with the last."""
        return read_event(event, self._read)

    def decode_whole(self, body: bytes) -> Delta:
        """A reply's object, or the error that came in its place."""
        return read_whole(body, "output", _delta_of)

    def _read(self, value: dict[str, Any]) -> Delta:
        if value.get("output") is None and value.get("code"):
            return Delta(error=refusals.reported(value))
        delta = _delta_of(value)
        if self._so_far is not None:
            for name in ("text", "reasoning", "tool"):
                setattr(delta, name, self._new(self._so_far, name, getattr(delta, name)))
        return delta

    def _new(self, so_far: dict[str, str], name: str, whole: str) -> str:
        """What was not there before; once it is all told, some leave a part out."""
        before = so_far.get(name, "")
        if not whole:
            return ""
        if not whole.startswith(before):
            raise RequestError("malformed", f"the {name} so far does not begin with what came before: {whole[:60]!r}")
        so_far[name] = whole
        return whole[len(before) :]


class DashScope(HttpProtocol):
    """`POST /api/v1/services/aigc/text-generation/generation`.

    Reference: https://help.aliyun.com/zh/model-studio/qwen-api-via-dashscope.
    """

    name = "dashscope"

    def listing(self) -> WireRequest | None:
        """The list of models, which only the compatible mode has."""
        return WireRequest("/compatible-mode/v1/models", b"", "application/json", "GET")

    def models(self, body: bytes) -> list[str]:
        """As `read_models`: the shape is OpenAI's."""
        return read_models(body)

    def encode(self, messages: Sequence[Message], generation: Generation) -> WireRequest:
        """The JSON body; a header asks for the stream."""
        parameters: dict[str, Any] = {"result_format": "message"}
        if generation.stream:
            parameters["incremental_output"] = True
        body = {
            "model": generation.model,
            "input": {"messages": list(messages)},
            "parameters": parameters | sampling(generation),
        }
        path = "/api/v1/services/aigc/text-generation/generation"
        headers = _STREAMED if generation.stream else ()
        return post(path, body, generation, headers, partial(DashScopeDecoder, _is_cumulative(generation)))

    def decoder(self) -> DashScopeDecoder:
        """A decoder for one reply to what is asked by default."""
        return DashScopeDecoder()


def _is_cumulative(generation: Generation) -> bool:
    parameters = generation.extra_body.get("parameters")
    return isinstance(parameters, Mapping) and parameters.get("incremental_output") is False


def _delta_of(value: dict[str, Any]) -> Delta:
    usage = value.get("usage")
    details = usage if isinstance(usage, dict) else {}
    told = Usage(
        count(usage, "input_tokens"),
        count(usage, "output_tokens"),
        count(details.get("prompt_tokens_details"), "cached_tokens"),
        count(details.get("output_tokens_details"), "reasoning_tokens"),
    )
    delta = Delta(usage=told if told != Usage() else None)
    output = value.get("output")
    if not isinstance(output, dict):
        return delta
    choices = output.get("choices")
    if isinstance(choices, list) and len(choices) > 1:
        raise RequestError("malformed", "an event with several choices; only n = 1 can be timed")
    # With result_format "text" there are no choices: the text stands in the output itself.
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else output
    message = choice.get("message")
    if isinstance(message, dict):
        delta.text, delta.reasoning = text(message.get("content")), text(message.get("reasoning_content"))
        delta.tool = tool_text(message.get("tool_calls"))
    else:
        delta.text = text(output.get("text"))
    reason = text(choice.get("finish_reason"))
    delta.finish_reason = None if reason in _NO_REASON else reason
    return delta
