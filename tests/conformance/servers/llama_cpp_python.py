"""llama-cpp-python's server: llama.cpp behind one lock, compiled on installation, which takes minutes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from llama_server import MISSING, make_model

from conformance.prefix import PythonPrefix
from conformance.server import Refused, Running, Server, Spoken, Waits, free_port, process


class LlamaCppPython(Server):
    """One request at a time. By default a newer request ends the one before; here they wait."""

    name = "llama-cpp-python"
    prefix = PythonPrefix(
        "llama-cpp-python", ("llama-cpp-python[server]==0.3.36",), settings={"CMAKE_BUILD_PARALLEL_LEVEL": "2"}
    )
    key = "sk-conformance"
    spoken: ClassVar = {"openai-chat": Spoken(tokens="chunks"), "openai-completions": Spoken(tokens="chunks")}
    long_body: ClassVar = {"logit_bias": {"2": -100}}
    bad_parameter = Refused("http_5xx", 500, "float_parsing", {"temperature": "hot"})
    wrong_key = Refused("http_4xx", 401, "Invalid API key")
    crowd = Waits(1)
    options: tuple[str, ...] = ("--interrupt_requests", "false")

    def missing(self) -> str | None:
        """What writes its model."""
        return f"{' and '.join(MISSING)} not installed: pip install 'tokenswarm[servers]'" if MISSING else None

    @contextmanager
    def running(self, folder: Path) -> Iterator[Running]:
        """One process."""
        assert isinstance(self.prefix, PythonPrefix)
        model, port, log = folder / "tiny.gguf", free_port(), folder / "server.log"
        make_model(model)
        command = [self.prefix.python, "-m", "llama_cpp.server", "--model", str(model), "--model_alias", self.model]
        command += [
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--api_key",
            self.key,
            "--n_ctx",
            "4096",
            "--n_threads",
            "1",
        ]
        url = f"http://127.0.0.1:{port}"
        with process([*command, *self.options], log, f"{url}/docs"):
            yield Running(url, log)

    def answered(self, running: Running) -> int:
        """Lines of its access log."""
        return running.logged('POST /v1/chat/completions HTTP/1.1" 200')
