"""FastChat's controller and worker in one: frames of JSON that end in NUL, each with the whole text so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from tokenswarm.simulator.dialects.base import Dialect, Events, Reply
from tokenswarm.simulator.request import ApiError, Request, TokenCount

_ERROR_CODES = {400: 40001, 401: 40102, 404: 40301, 429: 42903}
_CONTEXT_OVERFLOW = 40303
_INTERNAL_ERROR = 50001


class WorkerRequest(Request, kw_only=True):
    """The worker never looks at the model's name."""

    prompt: str
    max_new_tokens: TokenCount | None = 256
    echo: bool = True

    def texts(self) -> list[str]:
        return [self.prompt]

    def limit(self) -> int | None:
        return self.max_new_tokens

    def reasons(self) -> bool:
        return False


class WorkerEvents(Events):
    """`so_far` is what the text begins with: the prompt, or nothing."""

    mark = b"\0"

    def __init__(self, reply: Reply, so_far: str, *, chunked: bool) -> None:
        super().__init__(reply, chunked=chunked)
        self._so_far = msgspec.json.encode(so_far)[1:-1]

    def text(self, piece: bytes, reasoning: bool, said: int) -> bytes:
        self._so_far += piece
        return self._frame(self.reply.told(said), None)

    def closing(self) -> bytes:
        # The finish reason comes in the last frame, which is the end mark.
        return b""

    def done(self) -> bytes:
        return self._frame(self.reply.output_tokens, self.reply.finish_reason)

    def error(self, error: ApiError) -> bytes:
        return self.frame(msgspec.json.encode(_error(error)) + b"\0")

    def malformed(self) -> bytes:
        return self.frame(b'{"text":"\0')

    def _frame(self, said: int, finish_reason: str | None) -> bytes:
        rest = msgspec.json.encode(_rest(self.reply, said, finish_reason))[1:]
        return self.frame(b'{"text":"%b",%b\0' % (self._so_far, rest))


class _Worker(Dialect[WorkerRequest]):
    stream_type = ""  # it sends no Content-Type
    request_type = WorkerRequest
    streamed: ClassVar[bool]

    def streams(self, request: WorkerRequest, headers: Mapping[str, str]) -> bool:
        return self.streamed

    def events(self, reply: Reply, request: WorkerRequest, *, chunked: bool) -> Events:
        return WorkerEvents(reply, request.prompt if request.echo else "", chunked=chunked)

    def whole(self, reply: Reply, request: WorkerRequest, text: str, reasoning: str) -> bytes:
        so_far = request.prompt if request.echo else ""
        return msgspec.json.encode({"text": so_far + text} | _rest(reply, reply.output_tokens, reply.finish_reason))

    def refusal(self, error: ApiError) -> bytes:
        return msgspec.json.encode(_error(error))


class WorkerGenerateStream(_Worker):
    path = "/worker_generate_stream"
    streamed = True


class WorkerGenerate(_Worker):
    path = "/worker_generate"
    streamed = False


def list_models(model: str) -> dict[str, Any]:
    """`POST /list_models` of the controller."""
    return {"models": [model]}


def worker_address(body: bytes, model: str, url: str) -> dict[str, Any]:
    """`POST /get_worker_address`: where the model's worker is, empty if there is none. Raises ApiError 400."""
    try:
        asked = msgspec.json.decode(body, type=_AddressRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, str(error)) from None
    return {"address": url if asked.model == model else ""}


class _AddressRequest(msgspec.Struct):
    model: str


def _rest(reply: Reply, said: int, finish_reason: str | None) -> dict[str, Any]:
    usage = {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": said,
        "total_tokens": reply.input_tokens + said,
    }
    return {"error_code": 0, "usage": usage, "finish_reason": finish_reason, "logprobs": None}


def _error(error: ApiError) -> dict[str, Any]:
    if error.code == "context_length_exceeded":
        return {"text": str(error), "error_code": _CONTEXT_OVERFLOW}
    return {"text": str(error), "error_code": _ERROR_CODES.get(error.status, _INTERNAL_ERROR)}
