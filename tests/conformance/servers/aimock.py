"""@copilotkit/aimock on Node.js: no model, but the wire shapes of many providers, and faults on demand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from conformance.prefix import NodePrefix
from conformance.server import Refused, Refuses, Running, Server, Spoken, free_port, process

TEXT = "It says what it was told to say, a few letters at a time, and looks like any other model while it does."
THOUGHT = "What was I told to say?"
LIMITED, THINKING, CUT = "limited", "thinking", "cut"
"""Names of models that refuse every other request, think first, and break off."""
UNCOUNTED = Spoken(tokens="chunks", whole_tokens="")
"""It says that there were no tokens."""


class AIMock(Server):
    """Its replies have a fixed text, whatever is asked for; token counts are estimates from its length, or 0."""

    name = "aimock"
    prefix = NodePrefix("aimock", ("@copilotkit/aimock@1.43.0",))
    light = True
    key = "conformance"
    spoken: ClassVar = {
        "openai-chat": Spoken(keeps_limit=False),
        "openai-embeddings": Spoken(),
        **dict.fromkeys(("openai-responses", "anthropic", "ollama-chat", "ollama-generate"), UNCOUNTED),
    }
    unknown_model = Refused("http_4xx", 404, "No fixture matched")
    wrong_key = Refused("http_4xx", 401, "API key")
    crowd = Refuses(4, Refused("rate_limited", 429, "ate limit"), ("--model", LIMITED, "--no-check"))

    @contextmanager
    def running(self, folder: Path) -> Iterator[Running]:
        """With a model for each thing that it can do."""
        fixtures = folder / "fixtures"
        fixtures.mkdir()
        answers: list[dict[str, Any]] = [
            {"match": {"model": self.model, "endpoint": "embedding"}, "response": {"embedding": [0.5, -0.5, 0.25]}},
            _answer(self.model, TEXT),
            _answer(LIMITED, TEXT) | {"chaos": {"rateLimitRate": 0.5}},
            _answer(THINKING, TEXT, reasoning=THOUGHT),
            _answer(CUT, TEXT) | {"truncateAfterChunks": 8},
        ]
        (fixtures / "answers.json").write_text(json.dumps({"fixtures": answers}))
        port, log = free_port(), folder / "aimock.log"
        assert isinstance(self.prefix, NodePrefix)
        command = [*self.prefix.program("llmock"), "-p", str(port), "-h", "127.0.0.1", "-f", str(fixtures), "--metrics"]
        url = f"http://127.0.0.1:{port}"
        with process(command, log, f"{url}/health", env={"AIMOCK_API_KEYS": self.key}):
            yield Running(url, log)

    def answered(self, running: Running) -> int:
        """Its counter of requests with status 200."""
        counted = re.compile(r'aimock_requests_total\{.*path="/v1/chat/completions".*status="200".*\}')
        return int(sum(value for name, value in running.metrics().items() if counted.fullmatch(name)))


def _answer(model: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "match": {"model": model},
        "response": {"content": text, **more},
        "streamingProfile": {"ttft": 50, "tps": 100, "jitter": 0.1},
        "chunkSize": 5,
    }
