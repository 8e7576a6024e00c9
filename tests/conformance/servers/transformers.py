"""`transformers serve`: Hugging Face's own server. One request at a time, unless it is told to batch them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from conformance.prefix import PythonPrefix
from conformance.server import Refused, Running, Server, Spoken, Waits, free_port, make_hf_model, process


class Transformers(Server):
    """The model is a folder, and its name that folder's path."""

    name = "transformers serve"
    prefix = PythonPrefix("transformers", ("transformers[serving]==5.23.0", "torch==2.13.0"))
    spoken: ClassVar = {name: Spoken() for name in ("openai-chat", "openai-completions", "openai-responses")}
    long_body: ClassVar = {"generation_config": '{"min_new_tokens": 400}'}
    unknown_model = Refused("http_4xx", 400, "no-such-model")
    bad_parameter = Refused("http_4xx", 422, "Unexpected fields", {"no_such_parameter": 1})
    crowd = Waits(1)

    @property
    def model(self) -> str:  # type: ignore[override]
        """The folder."""
        assert isinstance(self.prefix, PythonPrefix)
        return str(make_hf_model(self.prefix))

    @contextmanager
    def running(self, folder: Path) -> Iterator[Running]:
        """One process."""
        assert isinstance(self.prefix, PythonPrefix)
        port, log = free_port(), folder / "transformers.log"
        command = [str(self.prefix.folder / "bin" / "transformers"), "serve", self.model, "--device", "cpu"]
        url = f"http://127.0.0.1:{port}"
        env = {"OMP_NUM_THREADS": "1"}
        with process([*command, "--host", "127.0.0.1", "--port", str(port)], log, f"{url}/health", 180, env):
            yield Running(url, log)

    def answered(self, running: Running) -> int:
        """Lines of its access log."""
        return running.logged('POST /v1/chat/completions HTTP/1.1" 200')
