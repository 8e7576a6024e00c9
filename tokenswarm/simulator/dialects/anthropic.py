"""Anthropic's messages: typed events that open, fill and close blocks of content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from tokenswarm.simulator.dialects.base import Dialect, Events, Reply, sse
from tokenswarm.simulator.request import ApiError, Content, Message, Request, TokenCount, content_texts, message_texts

_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", None: None}
_SIGNATURE = "c2ltdWxhdGVk"


class MessagesRequest(Request, kw_only=True):
    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_tokens: TokenCount
    system: Content = None
    stream: bool | None = False

    def texts(self) -> list[str]:
        return [*content_texts(self.system), *message_texts(self.messages)]

    def asked_model(self) -> str | None:
        return self.model

    def limit(self) -> int | None:
        return self.max_tokens


class MessagesEvents(Events):
    """Reasoning is a `thinking` block before the `text` block."""

    def __init__(self, reply: Reply, *, chunked: bool) -> None:
        super().__init__(reply, chunked=chunked)
        self._index = 0
        self._thinking = False

    def text(self, piece: bytes, reasoning: bool, said: int) -> bytes:
        kind = b'"thinking_delta","thinking"' if reasoning else b'"text_delta","text"'
        return self.frame(
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":%b:"%b"}}\n\n'
            % (self._index, kind, piece)
        )

    def opening(self, reasoning: bool) -> bytes:
        self._thinking = reasoning
        return self._start() + self._open_block(reasoning) + self._event("ping")

    def turn(self) -> bytes:
        closing = self._close_block()
        self._index, self._thinking = 1, False
        return closing + self._open_block(False)

    def closing(self) -> bytes:
        delta = {"stop_reason": _STOP_REASONS[self.reply.finish_reason], "stop_sequence": None}
        usage = {"output_tokens": self.reply.output_tokens}
        return self._close_block() + self._event("message_delta", delta=delta, usage=usage)

    def done(self) -> bytes:
        return self._event("message_stop")

    def error(self, error: ApiError) -> bytes:
        return self.frame(sse(_error(error), b"error"))

    def malformed(self) -> bytes:
        return self.frame(b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"\n\n')

    def empty(self) -> bytes:
        return self._start() + self.done()

    def _start(self) -> bytes:
        return self._event("message_start", message=_message(self.reply, [], None, 1))

    def _open_block(self, reasoning: bool) -> bytes:
        return self._event("content_block_start", index=self._index, content_block=_block("", reasoning, ""))

    def _close_block(self) -> bytes:
        closing = b""
        if self._thinking:
            delta = {"type": "signature_delta", "signature": _SIGNATURE}
            closing = self._event("content_block_delta", index=self._index, delta=delta)
        return closing + self._event("content_block_stop", index=self._index)

    def _event(self, kind: str, **fields: Any) -> bytes:
        return self.frame(sse({"type": kind} | fields, kind.encode()))


class Anthropic(Dialect[MessagesRequest]):
    path = "/v1/messages"
    request_type = MessagesRequest

    def streams(self, request: MessagesRequest, headers: Mapping[str, str]) -> bool:
        return bool(request.stream)

    def events(self, reply: Reply, request: MessagesRequest, *, chunked: bool) -> Events:
        return MessagesEvents(reply, chunked=chunked)

    def whole(self, reply: Reply, request: MessagesRequest, text: str, reasoning: str) -> bytes:
        content = [_block(reasoning, True, _SIGNATURE)] if reasoning else []
        content += [_block(text, False, "")] if text else []
        stop_reason = _STOP_REASONS[reply.finish_reason]
        return msgspec.json.encode(_message(reply, content, stop_reason, reply.output_tokens))

    def refusal(self, error: ApiError) -> bytes:
        return msgspec.json.encode(_error(error))


def _block(text: str, reasoning: bool, signature: str) -> dict[str, Any]:
    if reasoning:
        return {"type": "thinking", "thinking": text, "signature": signature}
    return {"type": "text", "text": text}


def _message(
    reply: Reply, content: list[dict[str, Any]], stop_reason: str | None, output_tokens: int
) -> dict[str, Any]:
    return {
        "id": f"msg_{reply.id}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": reply.input_tokens, "output_tokens": output_tokens},
    }


def _error(error: ApiError) -> dict[str, Any]:
    usual = "api_error" if error.status >= 500 else "invalid_request_error"
    return {"type": "error", "error": {"type": _ERROR_TYPES.get(error.status, usual), "message": str(error)}}
