"""DashScope's own text generation: events with the new text or, by default, the whole text so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from tokenswarm.simulator.dialects.base import Dialect, Events, Reply
from tokenswarm.simulator.request import ApiError, Message, Request, TokenCount, message_texts

_CODES = {400: "InvalidParameter", 401: "InvalidApiKey", 404: "ModelNotFound", 429: "Throttling.RateLimit"}


class Input(msgspec.Struct):
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)] | None = None
    prompt: str | None = None


class Parameters(msgspec.Struct):
    result_format: Literal["text", "message"] = "text"
    incremental_output: bool = False
    max_tokens: TokenCount | None = None
    seed: int | None = None


class GenerationRequest(Request, kw_only=True):
    model: str
    input: Input
    parameters: Parameters = msgspec.field(default_factory=Parameters)

    def texts(self) -> list[str]:
        if self.input.messages is not None:
            return message_texts(self.input.messages)
        return [self.input.prompt or ""]

    def asked_model(self) -> str | None:
        return self.model

    def limit(self) -> int | None:
        return self.parameters.max_tokens

    def own_seed(self) -> int | None:
        return self.parameters.seed

    def reasons(self) -> bool:
        return self.parameters.result_format == "message"


class GenerationEvents(Events):
    """Numbered events, without a space after any colon; the finish reason is the text "null" until the last one."""

    def __init__(self, reply: Reply, parameters: Parameters, *, chunked: bool) -> None:
        super().__init__(reply, chunked=chunked)
        self._message = parameters.result_format == "message"
        self._cumulative = not parameters.incremental_output
        self._number = 0
        self._text = b""
        self._reasoning = b""

    def text(self, piece: bytes, reasoning: bool, said: int) -> bytes:
        thought, text = (piece, b"") if reasoning else (b"", piece)
        if self._cumulative:
            thought, text = self._reasoning + thought, self._text + text
            self._reasoning, self._text = thought, text
        return self._result(thought, text, self.reply.told(said), "null")

    def closing(self) -> bytes:
        # The finish reason comes in the last event, which is the end mark.
        return b""

    def done(self) -> bytes:
        reply = self.reply
        return self._result(self._reasoning, self._text, reply.output_tokens, reply.finish_reason or "null")

    def error(self, error: ApiError) -> bytes:
        return self._event(b"error", error.status, msgspec.json.encode(_error(error, self.reply.id)))

    def malformed(self) -> bytes:
        return self._event(b"result", 200, b'{"output":{"choices":[{"message":{"content":"')

    def _result(self, reasoning: bytes, text: bytes, said: int, finish_reason: str) -> bytes:
        if self._message:
            thought = b'","reasoning_content":"%b' % reasoning if reasoning else b""
            output = b'{"choices":[{"message":{"content":"%b%b","role":"assistant"},"finish_reason":"%b"}]}'
            output %= (text, thought, finish_reason.encode())
        else:
            output = b'{"finish_reason":"%b","text":"%b"}' % (finish_reason.encode(), text)
        rest = msgspec.json.encode(_rest(self.reply, said))[1:]
        return self._event(b"result", 200, b'{"output":%b,%b' % (output, rest))

    def _event(self, kind: bytes, status: int, data: bytes) -> bytes:
        self._number += 1
        return self.frame(b"id:%d\nevent:%b\n:HTTP_STATUS/%d\ndata:%b\n\n" % (self._number, kind, status, data))


class DashScope(Dialect[GenerationRequest]):
    path = "/api/v1/services/aigc/text-generation/generation"
    request_type = GenerationRequest

    def parse(self, body: bytes) -> GenerationRequest:
        request = super().parse(body)
        if request.input.messages is None and request.input.prompt is None:
            raise ApiError(400, "Give `messages` or a `prompt` in `input`.", param="input")
        return request

    def streams(self, request: GenerationRequest, headers: Mapping[str, str]) -> bool:
        """Its header asks for a stream, or the usual one does."""
        return headers.get("X-DashScope-SSE") == "enable" or "text/event-stream" in headers.get("Accept", "")

    def events(self, reply: Reply, request: GenerationRequest, *, chunked: bool) -> Events:
        return GenerationEvents(reply, request.parameters, chunked=chunked)

    def whole(self, reply: Reply, request: GenerationRequest, text: str, reasoning: str) -> bytes:
        finish_reason = reply.finish_reason or "null"
        output: dict[str, Any] = {"finish_reason": finish_reason, "text": text}
        if request.parameters.result_format == "message":
            thought = {"reasoning_content": reasoning} if reasoning else {}
            message = {"role": "assistant", "content": text} | thought
            output = {"choices": [{"message": message, "finish_reason": finish_reason}]}
        return msgspec.json.encode({"output": output} | _rest(reply, reply.output_tokens))

    def refusal(self, error: ApiError) -> bytes:
        return msgspec.json.encode(_error(error, ""))


def _rest(reply: Reply, said: int) -> dict[str, Any]:
    usage = {
        "total_tokens": reply.input_tokens + said,
        "output_tokens": said,
        "input_tokens": reply.input_tokens,
    }
    return {"usage": usage, "request_id": reply.id}


def _error(error: ApiError, request_id: str) -> dict[str, Any]:
    return {"request_id": request_id, "code": _CODES.get(error.status, "InternalError"), "message": str(error)}
