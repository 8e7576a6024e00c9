"""OpenAI's responses: typed events that build up items, and a last one that holds the whole response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from tokenswarm.simulator.dialects.base import Dialect, Events, Reply, sse
from tokenswarm.simulator.dialects.openai_chat import envelope
from tokenswarm.simulator.request import ApiError, Content, Request, TokenCount, content_texts

_TEXT = b"response.output_text"
_REASONING = b"response.reasoning_text"


class InputItem(msgspec.Struct):
    """A message; items of other types are accepted and count nothing."""

    content: Content = None


class ResponsesRequest(Request, kw_only=True):
    model: str
    input: str | Annotated[list[InputItem], msgspec.Meta(min_length=1)]
    instructions: str | None = None
    stream: bool | None = False
    max_output_tokens: TokenCount | None = None

    def texts(self) -> list[str]:
        before = [self.instructions] if self.instructions else []
        if isinstance(self.input, str):
            return [*before, self.input]
        return before + [text for item in self.input for text in content_texts(item.content)]

    def asked_model(self) -> str | None:
        return self.model

    def limit(self) -> int | None:
        return self.max_output_tokens


class ResponsesEvents(Events):
    """Numbers its events, and remembers the texts for the events that repeat them."""

    def __init__(self, reply: Reply, *, chunked: bool) -> None:
        super().__init__(reply, chunked=chunked)
        self._number = 0
        self._index = 0
        self._parts: list[bytes] = []
        self._items: list[dict[str, Any]] = []
        self._reasoning = False
        self._head = b""
        self._open = False

    def text(self, piece: bytes, reasoning: bool, said: int) -> bytes:
        self._parts.append(piece)
        self._number += 1
        return self.frame(b'%b,"sequence_number":%d,"delta":"%b"}\n\n' % (self._head, self._number - 1, piece))

    def opening(self, reasoning: bool) -> bytes:
        return self._start() + self._open_item(reasoning)

    def turn(self) -> bytes:
        return self._close_item("completed") + self._open_item(False)

    def closing(self) -> bytes:
        # The finish reason is told by the end mark alone.
        return self._close_item(_status(self.reply)) if self._open else b""

    def done(self) -> bytes:
        status = _status(self.reply)
        return self._event(f"response.{status}", response=_response(self.reply, status, self._items))

    def error(self, error: ApiError) -> bytes:
        about = envelope(error)["error"]
        return self._event("error", code=about["type"], message=about["message"], param=about["param"])

    def malformed(self) -> bytes:
        return self.frame(b'event: %b.delta\ndata: {"type":"%b.delta","delta":"\n\n' % (_TEXT, _TEXT))

    def empty(self) -> bytes:
        return self._start() + self.done()

    def _start(self) -> bytes:
        response = _response(self.reply, "in_progress", [])
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def _open_item(self, reasoning: bool) -> bytes:
        self._open, self._reasoning = True, reasoning
        item = _item(self.reply, "in_progress", "", reasoning) | {"content": []}
        kind = _REASONING if reasoning else _TEXT
        place = self._place(item["id"])
        fields = msgspec.json.encode({"type": f"{kind.decode()}.delta"} | place)[:-1]
        self._head = b"event: %b.delta\ndata: %b" % (kind, fields) + (b"" if reasoning else b',"logprobs":[]')
        return self._event("response.output_item.added", output_index=self._index, item=item) + self._event(
            "response.content_part.added", **place, part=_part("", reasoning)
        )

    def _close_item(self, status: str) -> bytes:
        reasoning = self._reasoning
        text: str = msgspec.json.decode(b'"' + b"".join(self._parts) + b'"')
        item = _item(self.reply, status, text, reasoning)
        place = self._place(item["id"])
        name = (_REASONING if reasoning else _TEXT).decode()
        more: dict[str, Any] = {} if reasoning else {"logprobs": []}
        closing = self._event(f"{name}.done", **place, text=text, **more)
        closing += self._event("response.content_part.done", **place, part=_part(text, reasoning))
        closing += self._event("response.output_item.done", output_index=self._index, item=item)
        self._items.append(item)
        self._index += 1
        self._parts.clear()
        self._open = False
        return closing

    def _place(self, item_id: str) -> dict[str, Any]:
        return {"item_id": item_id, "output_index": self._index, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._number += 1
        return self.frame(sse({"type": kind, "sequence_number": self._number - 1} | fields, kind.encode()))


class OpenAIResponses(Dialect[ResponsesRequest]):
    path = "/v1/responses"
    request_type = ResponsesRequest

    def streams(self, request: ResponsesRequest, headers: Mapping[str, str]) -> bool:
        return bool(request.stream)

    def events(self, reply: Reply, request: ResponsesRequest, *, chunked: bool) -> Events:
        return ResponsesEvents(reply, chunked=chunked)

    def whole(self, reply: Reply, request: ResponsesRequest, text: str, reasoning: str) -> bytes:
        status = _status(reply)
        items = [_item(reply, "completed", reasoning, True)] if reasoning else []
        items += [_item(reply, status, text, False)] if text else []
        return msgspec.json.encode(_response(reply, status, items))

    def refusal(self, error: ApiError) -> bytes:
        return msgspec.json.encode(envelope(error))


def _status(reply: Reply) -> str:
    return "incomplete" if reply.finish_reason == "length" else "completed"


def _part(text: str, reasoning: bool) -> dict[str, Any]:
    if reasoning:
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _item(reply: Reply, status: str, text: str, reasoning: bool) -> dict[str, Any]:
    content = [_part(text, reasoning)]
    if reasoning:
        return {"id": f"rs_{reply.id}", "type": "reasoning", "summary": [], "content": content, "status": status}
    return {"id": f"msg_{reply.id}", "type": "message", "role": "assistant", "content": content, "status": status}


def _response(reply: Reply, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    usage = None
    if status != "in_progress":
        usage = {
            "input_tokens": reply.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": reply.output_tokens,
            "output_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
            "total_tokens": reply.input_tokens + reply.output_tokens,
        }
    return {
        "id": f"resp_{reply.id}",
        "object": "response",
        "created_at": reply.created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": reply.model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }
