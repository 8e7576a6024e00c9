"""OpenAI's embeddings: vectors of one length that depend on the input alone."""

from __future__ import annotations

import base64
import math
import random
from array import array
from typing import Annotated, Any, Literal

import msgspec

from tokenswarm.simulator.dialects.base import Dialect, Reply
from tokenswarm.simulator.dialects.openai_chat import envelope
from tokenswarm.simulator.dialects.openai_completions import Prompt, prompt_tokens, prompts
from tokenswarm.simulator.request import ApiError, Request

VECTOR_SIZE = 384
"""Numbers in a vector, unless the request asks for another `dimensions`."""


class EmbeddingsRequest(Request, kw_only=True):
    model: str
    input: Prompt
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=8192)] | None = None
    encoding_format: Literal["float", "base64"] = "float"

    def texts(self) -> list[str]:
        return [each for each in prompts(self.input) if isinstance(each, str)]

    def input_tokens(self) -> int:
        return prompt_tokens(self.input)

    def asked_model(self) -> str | None:
        return self.model

    def reasons(self) -> bool:
        return False

    def generates(self) -> bool:
        return False


def vector(source: str | list[int], size: int) -> list[float]:
    """A direction of length 1, always the same for the same text or token numbers."""
    draw = random.Random(repr(source))
    numbers = [draw.random() - 0.5 for _ in range(size)]
    length = math.hypot(*numbers)
    return [number / length for number in numbers]


class OpenAIEmbeddings(Dialect[EmbeddingsRequest]):
    path = "/v1/embeddings"
    request_type = EmbeddingsRequest

    def parse(self, body: bytes) -> EmbeddingsRequest:
        request = super().parse(body)
        if not request.input:
            raise ApiError(400, "Give at least one text.", param="input")
        return request

    def whole(self, reply: Reply, request: EmbeddingsRequest, text: str, reasoning: str) -> bytes:
        data: list[dict[str, Any]] = []
        for index, each in enumerate(prompts(request.input) if reply.finish_reason else []):
            numbers: list[float] | str = vector(each, request.dimensions or VECTOR_SIZE)
            if request.encoding_format == "base64":
                numbers = base64.b64encode(array("f", numbers).tobytes()).decode()
            data.append({"object": "embedding", "index": index, "embedding": numbers})
        usage = {"prompt_tokens": reply.input_tokens, "total_tokens": reply.input_tokens}
        return msgspec.json.encode({"object": "list", "data": data, "model": reply.model, "usage": usage})

    def refusal(self, error: ApiError) -> bytes:
        return msgspec.json.encode(envelope(error))
