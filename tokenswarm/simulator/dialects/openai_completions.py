"""OpenAI's plain completions: a prompt, no roles, and no place for reasoning."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tokenswarm.simulator.dialects.base import Dialect, Events, Reply, sse
from tokenswarm.simulator.dialects.openai_chat import OpenAIRequest, envelope, usage
from tokenswarm.simulator.request import ApiError
from tokenswarm.simulator.text import estimate_tokens

Prompt = str | list[str | int | list[int]]
"""A text or a list of token numbers, or a list of these."""


def prompts(prompt: Prompt) -> list[str | list[int]]:
    """One by one; bare token numbers are one prompt together."""
    if isinstance(prompt, str):
        return [prompt]
    numbers = [each for each in prompt if isinstance(each, int)]
    several = [each for each in prompt if not isinstance(each, int)]
    return [*several, numbers] if numbers else several


def prompt_tokens(prompt: Prompt) -> int:
    """Token numbers are counted, texts estimated."""
    each_tokens = [estimate_tokens([each]) if isinstance(each, str) else len(each) for each in prompts(prompt)]
    return max(1, sum(each_tokens))


class CompletionRequest(OpenAIRequest, kw_only=True):
    prompt: Prompt

    def texts(self) -> list[str]:
        return [each for each in prompts(self.prompt) if isinstance(each, str)]

    def input_tokens(self) -> int:
        return prompt_tokens(self.prompt)

    def reasons(self) -> bool:
        return False


class CompletionEvents(Events):
    """`text_completion` events."""

    def __init__(self, reply: Reply, *, chunked: bool) -> None:
        super().__init__(reply, chunked=chunked)
        self._head = b"data: " + msgspec.json.encode(_object(reply))[:-1] + b',"choices":['
        self._text = self._head + b'{"index":0,"text":"'

    def text(self, piece: bytes, reasoning: bool, said: int) -> bytes:
        return self.frame(self._text + piece + b'","logprobs":null,"finish_reason":null}]}\n\n')

    def closing(self) -> bytes:
        reason = msgspec.json.encode(self.reply.finish_reason)
        closing = self.frame(self._text + b'","logprobs":null,"finish_reason":%b}]}\n\n' % reason)
        if self.reply.usage:
            closing += self.frame(self._head + b'],"usage":' + msgspec.json.encode(usage(self.reply)) + b"}\n\n")
        return closing

    def done(self) -> bytes:
        return self.frame(b"data: [DONE]\n\n")

    def error(self, error: ApiError) -> bytes:
        return self.frame(sse(envelope(error))) + self.done()

    def malformed(self) -> bytes:
        return self.frame(self._text + b"\n\n")


class OpenAICompletions(Dialect[CompletionRequest]):
    path = "/v1/completions"
    request_type = CompletionRequest

    def parse(self, body: bytes) -> CompletionRequest:
        request = super().parse(body)
        if len(prompts(request.prompt)) != 1:
            raise ApiError(400, "Give one prompt a request.", param="prompt")
        return request

    def streams(self, request: CompletionRequest, headers: Mapping[str, str]) -> bool:
        return bool(request.stream)

    def events(self, reply: Reply, request: CompletionRequest, *, chunked: bool) -> Events:
        return CompletionEvents(reply, chunked=chunked)

    def whole(self, reply: Reply, request: CompletionRequest, text: str, reasoning: str) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reply.finish_reason}
        return msgspec.json.encode(_object(reply) | {"choices": [choice], "usage": usage(reply)})

    def refusal(self, error: ApiError) -> bytes:
        return msgspec.json.encode(envelope(error))


def _object(reply: Reply) -> dict[str, object]:
    return {"id": f"cmpl-{reply.id}", "object": "text_completion", "created": reply.created, "model": reply.model}
