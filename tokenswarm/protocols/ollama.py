"""Ollama's own API, `/api/chat` and `/api/generate`: one JSON object a line, the last one with the server's durations.

Reference: https://github.com/ollama/ollama/blob/main/docs/api.md. Durations are nanoseconds there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tokenswarm.errors import RequestError
from tokenswarm.framing import DelimitedFramer, Event, Framer, parse_event
from tokenswarm.protocols import refusals
from tokenswarm.protocols.base import Delta, Generation, HttpProtocol, Message, ServerTimes, Usage, WireRequest
from tokenswarm.protocols.values import as_prompt, excerpt, load, load_object, merged, text

NDJSON = "application/x-ndjson"


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw(b"")


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    reasoning_content: str | None = None
    """aimock's name for it."""
    tool_calls: list[_ToolCall] | None = None


class _Line(msgspec.Struct, gc=False):
    """One line of either API, or a whole reply of it."""

    message: _Message | None = None
    """Of a chat; a generation has the next three instead."""
    response: str | None = None
    thinking: str | None = None
    reasoning_content: str | None = None
    done: bool = False
    done_reason: str | None = None
    error: Any = None
    total_duration: Any = None
    load_duration: Any = None
    prompt_eval_count: Any = None
    prompt_eval_duration: Any = None
    eval_count: Any = None
    eval_duration: Any = None


_decode_line = msgspec.json.Decoder(_Line).decode


class OllamaDecoder:
    """Decodes one reply of either API."""

    __slots__ = ()

    def decode(self, event: Event) -> Delta | None:
        """What one line says; None where it brings neither output nor the end."""
        line = _read(event.data)
        message = line.message
        if line.done or line.error or (message is None and line.response is None):
            delta = _delta_of(line, event.data)
            return delta if delta != Delta() else None
        if message is None:
            said, thought, tool = line.response or "", _thoughts(line), ""
        else:
            said, thought, tool = message.content or "", _thoughts(message), _tools(message)
        return Delta(said, thought, tool) if said or thought or tool else None

    def decode_whole(self, body: bytes) -> Delta:
        """The one object of a reply that was not streamed, or the error that came in its place."""
        otherwise = f"a reply without a message or a response: {excerpt(body)}"
        try:
            line = _decode_line(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Delta(error=refusals.instead_of_reply(load(body), otherwise))
        delta = _delta_of(line, body)
        if delta.error is None and line.message is None and line.response is None:
            delta.error = refusals.instead_of_reply(load(body), otherwise)
        return delta


class _Ollama(HttpProtocol):
    """What both APIs have in common."""

    path: str

    def encode(self, messages: Sequence[Message], generation: Generation) -> WireRequest:
        """The JSON body; it always says whether to stream, since Ollama streams where nothing is said."""
        asked = (
            ("num_predict", generation.max_tokens),
            ("temperature", generation.temperature),
            ("top_p", generation.top_p),
        )
        options = {name: value for name, value in asked if value is not None}
        body = {"model": generation.model, **self._input(messages), "stream": generation.stream}
        if options:
            body["options"] = options
        accept = NDJSON if generation.stream else "application/json"
        return WireRequest(self.path, msgspec.json.encode(merged(body, generation.extra_body)), accept)

    def decoder(self) -> OllamaDecoder:
        """A decoder for one reply."""
        return OllamaDecoder()

    def framer(self, parse: Callable[[bytes], Event | None] = parse_event) -> Framer:
        """One JSON object a line."""
        return DelimitedFramer(b"\n")

    def listing(self) -> WireRequest | None:
        """The models that have been pulled."""
        return WireRequest("/api/tags", b"", "application/json", "GET")

    def models(self, body: bytes) -> list[str]:
        """The names in `{"models": [{"name": …}]}`. Raises RequestError (`malformed`)."""
        models = load_object(body).get("models")
        if not isinstance(models, list):
            raise RequestError("malformed", f"not a list of models: {excerpt(body)}")
        return [str(model["name"]) for model in models if isinstance(model, dict) and "name" in model]

    def _input(self, messages: Sequence[Message]) -> dict[str, Any]:
        raise NotImplementedError


class OllamaChat(_Ollama):
    """`POST /api/chat`: messages, as they are."""

    name = "ollama-chat"
    path = "/api/chat"

    def _input(self, messages: Sequence[Message]) -> dict[str, Any]:
        return {"messages": list(messages)}


class OllamaGenerate(_Ollama):
    """`POST /api/generate`: one prompt, and the system message apart from it."""

    name = "ollama-generate"
    path = "/api/generate"

    def _input(self, messages: Sequence[Message]) -> dict[str, Any]:
        if len(messages) > 1 and messages[0]["role"] == "system":
            return {"system": text(messages[0]["content"]), "prompt": as_prompt(messages[1:])}
        return {"prompt": as_prompt(messages)}


def _read(data: bytes) -> _Line:
    try:
        return _decode_line(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = refusals.flat(load(data))  # its message is a text, and not an object
        raise said or RequestError("malformed", f"not a line of Ollama's ({error}): {excerpt(data)}") from None


def _delta_of(line: _Line, data: bytes) -> Delta:
    """Everything that a line can hold."""
    message = line.message
    delta = Delta(line.response or "", _thoughts(line))
    if message is not None:
        delta = Delta(message.content or "", _thoughts(message), _tools(message))
    if line.done:
        delta.done = True
        delta.finish_reason = line.done_reason or None
        usage = Usage(_whole(line.prompt_eval_count), _whole(line.eval_count))
        delta.usage = usage if usage != Usage() else None
        delta.times = _times(line)
    elif line.error or (message is None and line.response is None):
        delta.error = refusals.from_stream(load_object(data))
    return delta


def _times(line: _Line) -> ServerTimes | None:
    """Ollama leaves out what is 0, so what is missing beside a total is 0, not unknown."""
    total = _milliseconds(line.total_duration)
    if total is None:
        return None
    load, prompt, decode = (
        0.0 if value is None else _milliseconds(value)
        for value in (line.load_duration, line.prompt_eval_duration, line.eval_duration)
    )
    return ServerTimes(total, load, prompt, decode)


def _milliseconds(nanoseconds: Any) -> float | None:
    number = isinstance(nanoseconds, (int, float)) and not isinstance(nanoseconds, bool) and nanoseconds >= 0
    return nanoseconds / 1e6 if number else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _thoughts(part: _Message | _Line) -> str:
    return part.thinking or part.reasoning_content or ""


def _tools(message: _Message) -> str:
    """Names and arguments; the latter are objects here, taken as they were written."""
    calls = (call.function for call in message.tool_calls or ())
    return "".join(f"{call.name or ''}{bytes(call.arguments).decode('utf-8', 'replace')}" for call in calls if call)
