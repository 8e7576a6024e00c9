"""What every request has, whatever the protocol: a prompt, limits, and perhaps a fault that is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, TypeVar

import msgspec

from tokenswarm.simulator.faults import Fault
from tokenswarm.simulator.text import estimate_tokens

TokenCount = Annotated[int, msgspec.Meta(ge=1)]

_FIELD = re.compile(r"`\$\.?([^`]*)`$")
_MISSING = re.compile(r"missing required field `([^`]+)`")


class ApiError(Exception):
    """A request that is refused: an HTTP status, words, and what OpenAI calls `param` and `code`."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


def on_purpose(status: int) -> ApiError:
    """The error of a fault that was asked for."""
    return ApiError(status, "The server fails on purpose.", code=status)


class Request(msgspec.Struct, kw_only=True):
    """The fields that mean something here; all others are accepted and ignored.

    A dialect's own struct adds its fields, and says by the methods what they mean.
    """

    simulator: Fault | None = None
    ignore_eos: bool | None = False

    def texts(self) -> list[str]:
        """Everything of the prompt that is text."""
        raise NotImplementedError

    def input_tokens(self) -> int:
        """Estimated from the texts."""
        return estimate_tokens(self.texts())

    def asked_model(self) -> str | None:
        """None where the protocol names no model."""
        return None

    def limit(self) -> int | None:
        """The most output tokens asked for, if any."""
        return None

    def own_seed(self) -> int | None:
        """A seed for this reply alone."""
        return None

    def wants_usage(self) -> bool:
        """Whether a stream is to tell its usage, where that has to be asked for."""
        return False

    def reasons(self) -> bool:
        """Whether the reply may have reasoning apart from its text."""
        return True

    def generates(self) -> bool:
        """Whether tokens come out at all."""
        return True


class ContentPart(msgspec.Struct):
    type: str
    text: str = ""


Content = str | list[ContentPart] | None


class Message(msgspec.Struct):
    role: str
    content: Content = None


def content_texts(content: Content) -> Iterator[str]:
    """A string, or the texts of a list of parts."""
    if isinstance(content, str):
        yield content
    elif content is not None:
        yield from (part.text for part in content)


def message_texts(messages: list[Message]) -> list[str]:
    """The texts of all messages."""
    return [text for message in messages for text in content_texts(message.content)]


R = TypeVar("R", bound=Request)


def decode(decoder: msgspec.json.Decoder[R], body: bytes) -> R:
    """Raises ApiError 400 that names the field."""
    try:
        return decoder.decode(body)
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
