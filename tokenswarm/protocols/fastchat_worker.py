"""A FastChat model worker, found through its controller: JSON frames that end in NUL, each with the whole text so far.

Reference: https://github.com/lm-sys/FastChat, fastchat/serve/{controller,base_model_worker,inference}.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tokenswarm.errors import RequestError
from tokenswarm.framing import DelimitedFramer, Event, Framer, parse_event
from tokenswarm.protocols import refusals
from tokenswarm.protocols.base import Delta, Generation, HttpProtocol, Message, WireRequest
from tokenswarm.protocols.cumulative import CumulativeText
from tokenswarm.protocols.openai_chat import read_usage
from tokenswarm.protocols.values import as_prompt, excerpt, load, load_object, merged


class _Frame(msgspec.Struct, gc=False):
    text: str
    error_code: int = 0
    usage: Any = None
    finish_reason: str | None = None


_decode_frame = msgspec.json.Decoder(_Frame).decode


class FastChatDecoder:
    """Decodes one reply; keeps its text so far."""

    __slots__ = ("_text",)

    def __init__(self) -> None:
        self._text = CumulativeText()

    def decode(self, event: Event) -> Delta | None:
        """What one frame adds; None where it adds nothing."""
        try:
            frame = _decode_frame(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Delta(error=_error_in(event.data, str(error)))
        if frame.error_code:
            return Delta(error=_error_in(event.data, "an error"))
        new = self._text.new_part(frame.text)
        if not new and not frame.finish_reason:
            return None
        return Delta(new, usage=read_usage(frame.usage), finish_reason=frame.finish_reason or None)

    def decode_whole(self, body: bytes) -> Delta:
        """The one frame of a reply that was not streamed."""
        return self.decode(Event(body.rstrip(b"\0"))) or Delta()


class FastChatWorker(HttpProtocol):
    """`POST /worker_generate_stream` (`/worker_generate` for a whole reply) at the worker that the controller names."""

    name = "fastchat-worker"

    def encode(self, messages: Sequence[Message], generation: Generation) -> WireRequest:
        """The JSON body. `echo` is false, or the prompt would come back as if it were output."""
        body: dict[str, Any] = {"model": generation.model, "prompt": as_prompt(messages), "echo": False}
        asked = (
            ("max_new_tokens", generation.max_tokens),
            ("temperature", generation.temperature),
            ("top_p", generation.top_p),
        )
        body |= {name: value for name, value in asked if value is not None}
        path = "/worker_generate_stream" if generation.stream else "/worker_generate"
        return WireRequest(path, msgspec.json.encode(merged(body, generation.extra_body)), "*/*")

    def decoder(self) -> FastChatDecoder:
        """A decoder for one reply."""
        return FastChatDecoder()

    def framer(self, parse: Callable[[bytes], Event | None] = parse_event) -> Framer:
        """JSON objects, each with a NUL after it."""
        return DelimitedFramer(b"\0")

    def listing(self) -> WireRequest | None:
        """The models that the controller has workers for."""
        return WireRequest("/list_models", b"", "application/json")

    def models(self, body: bytes) -> list[str]:
        """The names in `{"models": […]}`. Raises RequestError (`malformed`)."""
        models = load_object(body).get("models")
        if not isinstance(models, list):
            raise RequestError("malformed", f"not a list of models: {excerpt(body)}")
        return sorted(name for name in models if isinstance(name, str))

    def preparation(self, model: str) -> WireRequest | None:
        """Asks the controller for a worker with this model."""
        return WireRequest("/get_worker_address", msgspec.json.encode({"model": model}), "application/json")

    def prepared(self, body: bytes) -> str:
        """The worker's URL in `{"address": …}`, which is empty where no worker has the model. Raises RequestError."""
        address = load_object(body).get("address")
        if not isinstance(address, str):
            raise RequestError("malformed", f"not the address of a worker: {excerpt(body)}")
        if not address:
            raise RequestError("stream_error", "the controller has no worker for this model")
        return address


def _error_in(data: bytes, why: str) -> RequestError:
    """The error that a frame reports; one that reports none is malformed."""
    return refusals.instead_of_reply(load(data), f"not a frame of FastChat's ({why}): {excerpt(data)}")
