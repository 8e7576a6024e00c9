"""llama.cpp's server, from the wheel `xllamacpp`. tests/test_llama_cpp.py looks closer at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from llama_server import MISSING, MODEL, SLOTS, llama_server

from conformance.server import Refused, Running, Server, Spoken, Waits


class LlamaCpp(Server):
    """Four slots, and a model whose tokens take over a millisecond each."""

    name = "llama.cpp"
    light = True
    model = MODEL
    spoken: ClassVar = dict.fromkeys(("openai-chat", "openai-completions", "openai-responses", "anthropic"), Spoken())
    long_body: ClassVar = {"ignore_eos": True}
    bad_parameter = Refused("http_4xx", 400, "top_k", {"top_k": "many"})
    crowd = Waits(SLOTS)

    def missing(self) -> str | None:
        """The wheels, where only the bare suite is installed."""
        return f"{' and '.join(MISSING)} not installed: pip install 'tokenswarm[servers]'" if MISSING else None

    def version(self) -> str:
        """Of the wheel."""
        return f"xllamacpp {version('xllamacpp')}"

    @contextmanager
    def running(self, folder: Path) -> Iterator[Running]:
        """As every other test has it."""
        with llama_server(folder) as server:
            yield Running(server.url, folder / "llama.log")

    def generated(self, running: Running) -> int:
        """Its counter, which knows all protocols."""
        return int(running.metrics()["llamacpp:tokens_predicted_total"])

    def busy(self, running: Running) -> int:
        """Running and waiting."""
        metrics = running.metrics()
        return int(metrics["llamacpp:requests_processing"] + metrics["llamacpp:requests_deferred"])
