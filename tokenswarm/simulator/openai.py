"""OpenAI's chat shapes, server side: requests checked, errors enveloped, stream events ready to send."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from tokenswarm.simulator.faults import Fault

_FIELD = re.compile(r"`\$\.?([^`]*)`$")
_MISSING = re.compile(r"missing required field `([^`]+)`")
_ERROR_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
}

TokenCount = Annotated[int, msgspec.Meta(ge=1)]


class ApiError(Exception):
    """A request that is refused: an HTTP status and OpenAI's envelope."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    def body(self) -> bytes:
        return envelope(self.status, str(self), self.param, self.code)


def envelope(status: int, message: str, param: str | None = None, code: str | int | None = None) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}` as bytes."""
    kind = _ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


class ContentPart(msgspec.Struct):
    type: str
    text: str = ""


class Message(msgspec.Struct):
    role: str
    content: str | list[ContentPart] | None = None

    def texts(self) -> Iterator[str]:
        if isinstance(self.content, str):
            yield self.content
        elif self.content is not None:
            yield from (part.text for part in self.content)


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class ChatRequest(msgspec.Struct):
    """The fields that mean something here; all others are accepted and ignored."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: TokenCount | None = None
    max_completion_tokens: TokenCount | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=1)] | None = 1
    seed: int | None = None
    ignore_eos: bool | None = False
    simulator: Fault | None = None

    def texts(self) -> list[str]:
        return [text for message in self.messages for text in message.texts()]

    @property
    def limit(self) -> int | None:
        """The most output tokens asked for, if any."""
        return self.max_completion_tokens or self.max_tokens


_decoder = msgspec.json.Decoder(ChatRequest)


def parse_chat(body: bytes) -> ChatRequest:
    """Raises ApiError 400 that names the field."""
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        message = str(error)
        missing = _MISSING.search(message)
        at = _FIELD.search(message)
        path = at[1] if at else ""
        if missing:
            path = f"{path}.{missing[1]}" if path else missing[1]
        raise ApiError(400, message, param=path or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"The body is not JSON: {error}") from None


def usage(input_tokens: int, output_tokens: int, reasoning_tokens: int) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
    if reasoning_tokens:
        counts["completion_tokens_details"] = {"reasoning_tokens": reasoning_tokens}
    return counts


def completion(
    reply_id: str, model: str, text: str, reasoning: str, finish_reason: str | None, counts: dict[str, Any]
) -> bytes:
    """The body of a reply that is not streamed."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if reasoning:
        message["reasoning_content"] = reasoning
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    return msgspec.json.encode(
        {
            "id": reply_id,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [choice],
            "usage": counts,
        }
    )


class Events:
    """The SSE events of one reply as the bytes that go to the socket, framed as HTTP chunks if `chunked`.

    All but the text itself is encoded once a reply, since this runs for every chunk of every stream.
    """

    __slots__ = ("_chunked", "_content", "_head", "_heads", "_reasoning", "_reasoning_heads", "done", "end", "tail")

    def __init__(self, reply_id: str, model: str, *, chunked: bool) -> None:
        self._chunked = chunked
        head = msgspec.json.encode(
            {"id": reply_id, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
        )
        self._head = b"data: " + head[:-1] + b',"choices":['
        delta = self._head + b'{"index":0,"delta":{'
        self._content = delta + b'"content":"'
        self._reasoning = delta + b'"reasoning_content":"'
        self.tail = b'"},"logprobs":null,"finish_reason":null}]}\n\n' + (b"\r\n" if chunked else b"")
        self._heads: dict[int, bytes] = {}
        self._reasoning_heads: dict[int, bytes] = {}
        self.done = self.frame(b"data: [DONE]\n\n")
        self.end = b"0\r\n\r\n" if chunked else b""

    def frame(self, event: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(event), event) if self._chunked else event

    def text(self, piece: bytes, reasoning: bool) -> bytes:
        """A delta; `piece` is the inside of a JSON string."""
        heads = self._reasoning_heads if reasoning else self._heads
        head = heads.get(len(piece))
        if head is None:
            head = self._reasoning if reasoning else self._content
            if self._chunked:
                head = b"%x\r\n%b" % (len(head) + len(piece) + len(self.tail) - 2, head)
            heads[len(piece)] = head
        return head + piece + self.tail

    def role(self) -> bytes:
        return self._choice(b'{"role":"assistant","content":""}', b"null")

    def finish(self, reason: str) -> bytes:
        return self._choice(b"{}", b'"%b"' % reason.encode())

    def usage(self, counts: dict[str, Any]) -> bytes:
        return self.frame(self._head + b'],"usage":' + msgspec.json.encode(counts) + b"}\n\n")

    def error(self, status: int, message: str) -> bytes:
        return self.frame(b"data: " + envelope(status, message, code=status) + b"\n\n")

    def malformed(self) -> bytes:
        return self.frame(self._head + b'{"index":0,"delta":{"content":"\n\n')

    def _choice(self, delta: bytes, reason: bytes) -> bytes:
        choice = b'{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}' % (delta, reason)
        return self.frame(self._head + choice + b"]}\n\n")
