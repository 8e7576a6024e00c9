"""Xinference with llama.cpp as its engine: a supervisor, a worker and a process for the model behind one API."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from llama_server import MISSING, TEMPLATE, make_model

from conformance.prefix import PythonPrefix
from conformance.server import Refused, Running, Server, Spoken, Waits, free_port, process

SLOTS = 2


class Xinference(Server):
    """A model is described to it, then launched under a name."""

    name = "Xinference"
    prefix = PythonPrefix(
        "xinference", ("xinference==4.1.0", "xllamacpp>=2026.10", "torch==2.13.0"), ("torchvision", "torchaudio")
    )
    spoken: ClassVar = {
        "openai-chat": Spoken(),
        "openai-completions": Spoken(),
        "openai-responses": Spoken(),
        "anthropic": Spoken(),
    }
    unknown_model = Refused("http_4xx", 404, "no-such-model")
    bad_parameter = Refused("http_5xx", 500, "value is not a valid float", {"temperature": "hot"})
    crowd = Waits(SLOTS, overlap=1.0)

    def missing(self) -> str | None:
        """What writes its model."""
        return f"{' and '.join(MISSING)} not installed: pip install 'tokenswarm[servers]'" if MISSING else None

    @contextmanager
    def running(self, folder: Path) -> Iterator[Running]:
        """With a home of its own, so that it knows no other models."""
        assert isinstance(self.prefix, PythonPrefix)
        weights, port, metrics, log = folder / "tiny.gguf", free_port(), free_port(), folder / "xinference.log"
        make_model(weights)
        command = [str(self.prefix.folder / "bin" / "xinference-local"), "-H", "127.0.0.1", "-p", str(port)]
        env = {"XINFERENCE_HOME": str(folder / "home"), "XINFERENCE_AUTH_ADVANCED": "0"}
        url = f"http://127.0.0.1:{port}"
        with process([*command, "-mp", str(metrics)], log, f"{url}/v1/models", 180, env):
            described = json.dumps(_description(weights))
            _post(f"{url}/v1/model_registrations/LLM", {"model": described, "persist": True})
            _post(f"{url}/v1/models", {"model_uid": self.model, **LAUNCH})
            yield Running(url, log)


LAUNCH = {
    "model_name": "tiny-custom",
    "model_engine": "llama.cpp",
    "model_format": "ggufv2",
    "model_size_in_billions": 1,
    "quantization": "none",
    "model_type": "LLM",
    "enable_virtual_env": False,
    "n_parallel": SLOTS,
    "n_threads": 1,
}


def _description(weights: Path) -> dict[str, Any]:
    return {
        "version": 2,
        "context_length": 4096,
        "model_name": LAUNCH["model_name"],
        "model_lang": ["en"],
        "model_ability": ["chat", "generate"],
        "model_family": "tiny",
        "model_specs": [
            {
                "model_format": "ggufv2",
                "model_size_in_billions": 1,
                "quantization": "none",
                "model_file_name_template": weights.name,
                "model_uri": f"file://{weights}",
            }
        ],
        "chat_template": TEMPLATE,
        "stop_token_ids": [],
        "stop": [],
    }


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)
