"""OpenAI's chat completions, and what the other protocols of its family share with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from tokenswarm.simulator.dialects.base import Dialect, Events, Reply, sse
from tokenswarm.simulator.request import ApiError, Message, Request, TokenCount, message_texts

_ERROR_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def envelope(error: ApiError) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`."""
    status = error.status
    kind = _ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}


def usage(reply: Reply) -> dict[str, Any]:
    """Counts of tokens under OpenAI's names."""
    counts: dict[str, Any] = {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.input_tokens + reply.output_tokens,
    }
    if reply.cached_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": reply.cached_tokens()}
    if reply.reasoning_tokens:
        counts["completion_tokens_details"] = {"reasoning_tokens": reply.reasoning_tokens}
    return counts


def models(model: str, created: int, max_model_len: int) -> dict[str, Any]:
    """The list of models, with the one there is."""
    entry = {"id": model, "object": "model", "created": created, "owned_by": "tokenswarm"}
    return {"object": "list", "data": [entry | {"max_model_len": max_model_len}]}


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class OpenAIRequest(Request, kw_only=True):
    """What chat and plain completions have in common."""

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: TokenCount | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=1)] | None = 1
    seed: int | None = None

    def asked_model(self) -> str | None:
        return self.model

    def limit(self) -> int | None:
        return self.max_tokens

    def own_seed(self) -> int | None:
        return self.seed

    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(OpenAIRequest, kw_only=True):
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_completion_tokens: TokenCount | None = None

    def texts(self) -> list[str]:
        return message_texts(self.messages)

    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class ChatEvents(Events):
    """`chat.completion.chunk` events."""

    def __init__(self, reply: Reply, *, chunked: bool) -> None:
        super().__init__(reply, chunked=chunked)
        head = msgspec.json.encode(
            {
                "id": f"chatcmpl-{reply.id}",
                "object": "chat.completion.chunk",
                "created": reply.created,
                "model": reply.model,
            }
        )
        self._head = b"data: " + head[:-1] + b',"choices":['
        delta = self._head + b'{"index":0,"delta":{'
        self._content = delta + b'"content":"'
        self._reasoning = delta + b'"reasoning_content":"'
        self._tail = b'"},"logprobs":null,"finish_reason":null}]}\n\n' + (b"\r\n" if chunked else b"")
        self._heads: dict[int, bytes] = {}
        self._reasoning_heads: dict[int, bytes] = {}

    def text(self, piece: bytes, reasoning: bool, said: int) -> bytes:
        heads = self._reasoning_heads if reasoning else self._heads
        head = heads.get(len(piece))
        if head is None:
            head = self._reasoning if reasoning else self._content
            if self.chunked:
                head = b"%x\r\n%b" % (len(head) + len(piece) + len(self._tail) - 2, head)
            heads[len(piece)] = head
        return head + piece + self._tail

    def opening(self, reasoning: bool) -> bytes:
        return self._choice(b'{"role":"assistant","content":""}', b"null")

    def closing(self) -> bytes:
        closing = self._choice(b"{}", msgspec.json.encode(self.reply.finish_reason))
        if self.reply.usage:
            closing += self.frame(self._head + b'],"usage":' + msgspec.json.encode(usage(self.reply)) + b"}\n\n")
        return closing

    def done(self) -> bytes:
        return self.frame(b"data: [DONE]\n\n")

    def error(self, error: ApiError) -> bytes:
        return self.frame(sse(envelope(error))) + self.done()

    def malformed(self) -> bytes:
        return self.frame(self._head + b'{"index":0,"delta":{"content":"\n\n')

    def _choice(self, delta: bytes, reason: bytes) -> bytes:
        choice = b'{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}' % (delta, reason)
        return self.frame(self._head + choice + b"]}\n\n")


class OpenAIChat(Dialect[ChatRequest]):
    path = "/v1/chat/completions"
    request_type = ChatRequest

    def streams(self, request: ChatRequest, headers: Mapping[str, str]) -> bool:
        return bool(request.stream)

    def events(self, reply: Reply, request: ChatRequest, *, chunked: bool) -> Events:
        return ChatEvents(reply, chunked=chunked)

    def whole(self, reply: Reply, request: ChatRequest, text: str, reasoning: str) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if reasoning:
            message["reasoning_content"] = reasoning
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}
        return msgspec.json.encode(
            {
                "id": f"chatcmpl-{reply.id}",
                "object": "chat.completion",
                "created": reply.created,
                "model": reply.model,
                "choices": [choice],
                "usage": usage(reply),
            }
        )

    def refusal(self, error: ApiError) -> bytes:
        return msgspec.json.encode(envelope(error))
