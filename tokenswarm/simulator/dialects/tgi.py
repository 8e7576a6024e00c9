"""Hugging Face's text-generation-inference: one event a token, the last of which holds the whole text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from tokenswarm.simulator.dialects.base import Dialect, Events, Reply
from tokenswarm.simulator.request import ApiError, Request, TokenCount

_EOS = b"</s>"


class TgiParameters(msgspec.Struct):
    max_new_tokens: TokenCount | None = None
    details: bool = False
    seed: int | None = None


class TgiRequest(Request, kw_only=True):
    inputs: str
    parameters: TgiParameters = msgspec.field(default_factory=TgiParameters)

    def texts(self) -> list[str]:
        return [self.inputs]

    def limit(self) -> int | None:
        return self.parameters.max_new_tokens

    def own_seed(self) -> int | None:
        return self.parameters.seed

    def reasons(self) -> bool:
        return False


class TgiEvents(Events):
    """A reply that is cut ends with its last token; one that ends by itself with a special token besides."""

    def __init__(self, reply: Reply, parameters: TgiParameters, *, chunked: bool) -> None:
        super().__init__(reply, chunked=chunked)
        self._details = parameters.details
        self._parts: list[bytes] = []
        self._index = 0
        self._last = reply.length if reply.ends_well and reply.finish_reason == "length" else 0
        self._ended = False

    def text(self, piece: bytes, reasoning: bool, said: int) -> bytes:
        self._parts.append(piece)
        self._ended = said == self._last
        return self._token(piece, self._ended)

    def closing(self) -> bytes:
        # The finish reason comes with the last token, which is the end mark.
        return b""

    def done(self) -> bytes:
        return b"" if self._ended else self._token(_EOS, True, special=True)

    def error(self, error: ApiError) -> bytes:
        return self.frame(b"data:" + msgspec.json.encode(_error(error)) + b"\n\n")

    def malformed(self) -> bytes:
        return self.frame(b'data:{"index":1,"token":{"id":1,"text":"\n\n')

    def empty(self) -> bytes:
        return b""

    def _token(self, piece: bytes, last: bool, *, special: bool = False) -> bytes:
        self._index += 1
        whole, details = b"null", b"null"
        if last:
            whole = b'"%b"' % b"".join(self._parts)
        if last and self._details:
            details = msgspec.json.encode(_details(self.reply) | {"input_length": self.reply.input_tokens})
        token = b'{"id":%d,"text":"%b","logprob":-0.5,"special":%b}' % (
            2 if special else 1000,
            piece,
            b"true" if special else b"false",
        )
        return self.frame(
            b'data:{"index":%d,"token":%b,"generated_text":%b,"details":%b}\n\n' % (self._index, token, whole, details)
        )


class _Tgi(Dialect[TgiRequest]):
    request_type = TgiRequest
    streamed: ClassVar[bool]

    def streams(self, request: TgiRequest, headers: Mapping[str, str]) -> bool:
        return self.streamed

    def events(self, reply: Reply, request: TgiRequest, *, chunked: bool) -> Events:
        return TgiEvents(reply, request.parameters, chunked=chunked)

    def whole(self, reply: Reply, request: TgiRequest, text: str, reasoning: str) -> bytes:
        body: dict[str, Any] = {"generated_text": text}
        if request.parameters.details and reply.finish_reason:
            body["details"] = _details(reply) | {"prefill": [], "tokens": []}
        return msgspec.json.encode(body)

    def refusal(self, error: ApiError) -> bytes:
        return msgspec.json.encode(_error(error))


class GenerateStream(_Tgi):
    path = "/generate_stream"
    streamed = True


class Generate(_Tgi):
    path = "/generate"
    streamed = False


def info(model: str, max_model_len: int) -> dict[str, Any]:
    """`GET /info`: the model that is served."""
    return {"model_id": model, "max_total_tokens": max_model_len, "version": "simulator"}


def _details(reply: Reply) -> dict[str, Any]:
    reason = "length" if reply.finish_reason == "length" else "eos_token"
    return {"finish_reason": reason, "generated_tokens": reply.output_tokens, "seed": None}


def _error(error: ApiError) -> dict[str, Any]:
    kind = {429: "overloaded"}.get(error.status, "generation" if error.status >= 500 else "validation")
    return {"error": str(error), "error_type": kind}
