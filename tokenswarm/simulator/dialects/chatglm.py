"""ChatGLM-6B's `api.py`: a prompt and a history in, the whole reply out. It names no model and never streams."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from tokenswarm.simulator.dialects.base import Dialect, Reply
from tokenswarm.simulator.request import ApiError, Request, TokenCount


class ChatGlmRequest(Request, kw_only=True):
    """`max_length` counts prompt and reply together."""

    prompt: str
    history: list[list[str]] | None = None
    max_length: TokenCount | None = 2048

    def texts(self) -> list[str]:
        return [*(text for turn in self.history or [] for text in turn), self.prompt]

    def limit(self) -> int | None:
        return None if self.max_length is None else max(1, self.max_length - self.input_tokens())

    def reasons(self) -> bool:
        return False


class ChatGlm(Dialect[ChatGlmRequest]):
    path = "/"
    request_type = ChatGlmRequest

    def whole(self, reply: Reply, request: ChatGlmRequest, text: str, reasoning: str) -> bytes:
        body: dict[str, Any] = {
            "response": text,
            "history": [*(request.history or []), [request.prompt, text]],
            "status": 200,
            "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        return msgspec.json.encode(body)

    def refusal(self, error: ApiError) -> bytes:
        return msgspec.json.encode({"detail": str(error)})
