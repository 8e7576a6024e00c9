"""Ollama's chat and generate: lines of JSON, with the server's own durations in the last one.

`total_duration` is from the request's arrival to the end, `load_duration` until the engine had it, and
`prompt_eval_duration` and `eval_duration` are the engine's prefill and decoding from there on, so that the three add up
to the total if there was no waiting for a place.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec

from tokenswarm.simulator.dialects.base import Dialect, Events, Reply
from tokenswarm.simulator.request import ApiError, Request


class OllamaOptions(msgspec.Struct):
    num_predict: int | None = None
    seed: int | None = None


class OllamaRequest(Request, kw_only=True):
    model: str
    stream: bool | None = True
    think: bool | str | None = None
    options: OllamaOptions | None = None

    def asked_model(self) -> str | None:
        return self.model.removesuffix(":latest")

    def limit(self) -> int | None:
        """Numbers below 1 mean any length, as there."""
        asked = self.options.num_predict if self.options else None
        return asked if asked is not None and asked > 0 else None

    def own_seed(self) -> int | None:
        return self.options.seed if self.options else None

    def reasons(self) -> bool:
        return self.think is not False


class OllamaMessage(msgspec.Struct):
    role: str
    content: str = ""


class OllamaChatRequest(OllamaRequest, kw_only=True):
    messages: list[OllamaMessage]

    def texts(self) -> list[str]:
        return [message.content for message in self.messages]


class OllamaGenerateRequest(OllamaRequest, kw_only=True):
    prompt: str
    system: str = ""

    def texts(self) -> list[str]:
        return [self.system, self.prompt] if self.system else [self.prompt]


class _ChatShape:
    """Text in a message."""

    said: ClassVar[tuple[bytes, bytes]] = (b'"message":{"role":"assistant","content":"', b'"}')
    thought: ClassVar[tuple[bytes, bytes]] = (b'"message":{"role":"assistant","content":"","thinking":"', b'"}')
    last: ClassVar[dict[str, Any]] = {}

    @staticmethod
    def whole(text: str, reasoning: str) -> dict[str, Any]:
        thinking = {"thinking": reasoning} if reasoning else {}
        return {"message": {"role": "assistant", "content": text} | thinking}


class _GenerateShape:
    """Text in `response`, and the context for a next request at the end."""

    said: ClassVar[tuple[bytes, bytes]] = (b'"response":"', b'"')
    thought: ClassVar[tuple[bytes, bytes]] = (b'"response":"","thinking":"', b'"')
    last: ClassVar[dict[str, Any]] = {"context": [1, 2, 3]}

    @staticmethod
    def whole(text: str, reasoning: str) -> dict[str, Any]:
        return {"response": text} | ({"thinking": reasoning} if reasoning else {})


_Shape = type[_ChatShape] | type[_GenerateShape]


class OllamaEvents(Events):
    """One line an event."""

    mark = b"\n"

    def __init__(self, reply: Reply, shape: _Shape, *, chunked: bool) -> None:
        super().__init__(reply, chunked=chunked)
        self._shape = shape
        self._head = b'{"model":%b,"created_at":"' % msgspec.json.encode(reply.model)

    def text(self, piece: bytes, reasoning: bool, said: int) -> bytes:
        before, after = self._shape.thought if reasoning else self._shape.said
        return self.frame(b'%b%b",%b%b%b,"done":false}\n' % (self._head, _now().encode(), before, piece, after))

    def closing(self) -> bytes:
        return b""

    def done(self) -> bytes:
        last = _head(self.reply) | self._shape.whole("", "") | _last(self.reply, self._shape)
        return self.frame(msgspec.json.encode(last) + b"\n")

    def error(self, error: ApiError) -> bytes:
        return self.frame(msgspec.json.encode({"error": str(error)}) + b"\n")

    def malformed(self) -> bytes:
        return self.frame(self._head + b'",' + self._shape.said[0] + b"\n")


class _Ollama(Dialect[OllamaRequest]):
    stream_type = "application/x-ndjson"
    shape: ClassVar[_Shape]

    def streams(self, request: OllamaRequest, headers: Mapping[str, str]) -> bool:
        return request.stream is not False

    def events(self, reply: Reply, request: OllamaRequest, *, chunked: bool) -> Events:
        return OllamaEvents(reply, self.shape, chunked=chunked)

    def whole(self, reply: Reply, request: OllamaRequest, text: str, reasoning: str) -> bytes:
        return msgspec.json.encode(_head(reply) | self.shape.whole(text, reasoning) | _last(reply, self.shape))

    def refusal(self, error: ApiError) -> bytes:
        return msgspec.json.encode({"error": str(error)})


class OllamaChat(_Ollama):
    path = "/api/chat"
    request_type = OllamaChatRequest
    shape = _ChatShape


class OllamaGenerate(_Ollama):
    path = "/api/generate"
    request_type = OllamaGenerateRequest
    shape = _GenerateShape


def tags(model: str) -> dict[str, Any]:
    """`GET /api/tags`: the models that are there."""
    details = {"format": "gguf", "family": "simulator", "parameter_size": "0B", "quantization_level": "F16"}
    name = model if ":" in model else f"{model}:latest"
    entry = {"name": name, "model": name, "modified_at": _now(), "size": 0, "digest": "0" * 64}
    return {"models": [entry | {"details": details}]}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _head(reply: Reply) -> dict[str, Any]:
    return {"model": reply.model, "created_at": _now()}


def _last(reply: Reply, shape: _Shape) -> dict[str, Any]:
    """What the line with `done` has besides its text; counts and durations of 0 are left out, as there."""
    last: dict[str, Any] = {"done": True}
    if reply.finish_reason is None:
        return last
    last |= {"done_reason": reply.finish_reason} | shape.last
    numbers = {"prompt_eval_count": reply.input_tokens, "eval_count": reply.output_tokens}
    if reply.times is not None:
        times = reply.times()
        start_ns = max(times.prefill_ns, times.submitted_ns)
        ready_ns = max(times.ready_ns, start_ns)
        numbers |= {
            "total_duration": times.end_ns - times.received_ns,
            "load_duration": times.submitted_ns - times.received_ns,
            "prompt_eval_duration": ready_ns - start_ns,
            "eval_duration": times.end_ns - ready_ns,
        }
    return last | {name: number for name, number in numbers.items() if number}
