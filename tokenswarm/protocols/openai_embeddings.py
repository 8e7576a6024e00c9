"""OpenAI embeddings: a text becomes a vector. Never streamed; what is measured is latency, inputs and input tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tokenswarm.errors import RequestError
from tokenswarm.framing import Event
from tokenswarm.protocols import refusals
from tokenswarm.protocols.base import Delta, Generation, Message, Vectors, WireRequest
from tokenswarm.protocols.openai_chat import OpenAIProtocol, read_usage
from tokenswarm.protocols.requests import post
from tokenswarm.protocols.values import excerpt, load, text

_FLOAT_BYTES: Final = 4
"""Of a number in a base64 vector."""
_OF_NUMBERS: Final = b"0123456789+-.eE, \t\r\n[]"


class _Item(msgspec.Struct, gc=False):
    embedding: msgspec.Raw


class _Reply(msgspec.Struct, gc=False):
    """Thousands of numbers: they are counted, not read."""

    data: list[_Item]
    usage: dict[str, Any] | None = None
    error: Any = None


_decode_reply = msgspec.json.Decoder(_Reply).decode


class OpenAIEmbeddingsDecoder:
    """Decodes one reply, which is whole."""

    __slots__ = ()

    def decode(self, event: Event) -> Delta | None:
        """A stream was never asked for, and what comes as one is no reply. Raises RequestError."""
        raise RequestError("malformed", f"a stream instead of embeddings: {excerpt(event.data)}")

    def decode_whole(self, body: bytes) -> Delta:
        """A list of embeddings, or the error that came in its place. Raises RequestError (`malformed`)."""
        try:
            reply = _decode_reply(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            reply = None
        if reply is None or reply.error:
            return Delta(error=refusals.instead_of_reply(load(body), f"no list of embeddings: {excerpt(body)}"))
        sizes = {_size(bytes(item.embedding)) for item in reply.data}
        if len(sizes) > 1:
            raise RequestError("malformed", f"vectors of different sizes: {sorted(sizes)}")
        vectors = Vectors(len(reply.data), sizes.pop()) if sizes else None
        return Delta(usage=read_usage(reply.usage), vectors=vectors)


class OpenAIEmbeddings(OpenAIProtocol):
    """`POST /v1/embeddings`. Reference: https://platform.openai.com/docs/api-reference/embeddings."""

    name = "openai-embeddings"
    streams = False

    def encode(self, messages: Sequence[Message], generation: Generation) -> WireRequest:
        """The texts of the messages as one input; nothing that is asked of a generation means anything here."""
        prompt = "\n\n".join(filter(None, (text(message["content"]) for message in messages)))
        return post("/v1/embeddings", {"model": generation.model, "input": prompt}, generation)

    def decoder(self) -> OpenAIEmbeddingsDecoder:
        """A decoder for one reply."""
        return OpenAIEmbeddingsDecoder()


def _size(vector: bytes) -> int:
    """How many numbers a vector has: a JSON list of them, or 32-bit ones in base64. Raises RequestError."""
    size = 0
    if vector.startswith(b'"'):
        digits = vector.strip(b'"').replace(b"\\/", b"/")
        size, odd = divmod(len(digits) * 3 // 4 - digits.count(b"="), _FLOAT_BYTES)
        if odd or len(digits) % 4:
            size = 0
    elif vector.count(b"[") == 1 and not vector.translate(None, _OF_NUMBERS):
        size = vector.count(b",") + 1 if vector.strip(b"[] \t\r\n") else 0
    if size == 0:
        raise RequestError("malformed", f"not a vector of numbers: {excerpt(vector)}")
    return size
