"""What a server's stream looks like on the wire, read by the simplest means: no framer or decoder of ours."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from typing import Any

from conformance.server import Running, Server


@dataclass(frozen=True)
class Stream:
    """A streamed chat: its data lines, parsed, less the end mark; whether that came."""

    chunks: list[dict[str, Any]]
    done: bool

    @property
    def first(self) -> str:
        """What the first chunk has."""
        delta = _delta(self.chunks[0])
        parts = [name for name in ("role", "content", "reasoning_content", "reasoning") if delta.get(name)]
        return " and ".join(parts) or "nothing"

    @property
    def usage(self) -> str:
        """Where the token counts come."""
        places = [number for number, chunk in enumerate(self.chunks) if chunk.get("usage")]
        if not places:
            return "never"
        if len(places) > 1:
            return "in several chunks"
        choices = self.chunks[places[0]].get("choices")
        return "with the finish reason" if _finish(self.chunks[places[0]]) else "by itself" if not choices else "last"

    @property
    def texts(self) -> list[str]:
        """The pieces of text."""
        return [text for chunk in self.chunks if (text := _delta(chunk).get("content"))]

    @property
    def empty(self) -> int:
        """Chunks without text between the first and the last that has some."""
        having = [bool(_delta(chunk).get("content")) for chunk in self.chunks]
        if True not in having:
            return 0
        return having[having.index(True) : len(having) - having[::-1].index(True)].count(False)

    @property
    def tokens(self) -> int | None:
        """Output tokens, where told."""
        told = [chunk["usage"]["completion_tokens"] for chunk in self.chunks if chunk.get("usage")]
        return told[-1] if told else None


def stream(server: Server, running: Running, tokens: int = 20) -> Stream:
    """One streamed chat."""
    body = {
        "model": server.model,
        "messages": [{"role": "user", "content": "What do you see?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": tokens,
        **server.long_body,
    }
    headers = {"Content-Type": "application/json"}
    if server.key is not None:
        headers["Authorization"] = f"Bearer {server.key}"
    request = urllib.request.Request(f"{running.url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        lines = [line.strip() for line in answer.read().decode().splitlines()]
    data = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    return Stream([json.loads(text) for text in data if text != "[DONE]"], data[-1:] == ["[DONE]"])


def _delta(chunk: dict[str, Any]) -> dict[str, Any]:
    choices = chunk.get("choices") or [{}]
    return choices[0].get("delta") or {}


def _finish(chunk: dict[str, Any]) -> Any:
    choices = chunk.get("choices") or [{}]
    return choices[0].get("finish_reason")
