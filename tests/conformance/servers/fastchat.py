"""FastChat: a controller, a model worker, and the server that speaks OpenAI's API for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

from conformance.prefix import PythonPrefix
from conformance.server import Refused, Running, Server, Spoken, Waits, free_port, make_hf_model, process

SLOTS = 2
CONTROLLER = "controller"


class FastChat(Server):
    """The worker decodes as many requests at once as it is told to; the others wait."""

    name = "FastChat"
    prefix = PythonPrefix(
        "fastchat",
        ("fschat[model_worker]==0.2.36", "transformers<4.50", "pydantic<2", "fastapi<0.112", "torch==2.13.0"),
    )
    key = "sk-conformance"
    spoken: ClassVar = {"openai-chat": Spoken(tokens="chunks"), "openai-completions": Spoken(tokens="chunks")}
    unknown_model = Refused("http_4xx", 400, "no-such-model")
    bad_parameter = Refused("http_4xx", 400, "temperature", {"temperature": -1})
    wrong_key = Refused("http_4xx", 401, "invalid_api_key")
    crowd = Waits(SLOTS)

    @contextmanager
    def running(self, folder: Path) -> Iterator[Running]:
        """Three processes."""
        assert isinstance(self.prefix, PythonPrefix)
        model = make_hf_model(self.prefix)
        ports = [free_port() for _ in range(3)]
        controller, worker, url = (f"http://127.0.0.1:{port}" for port in ports)
        log = folder / "server.log"

        def serve(name: str, port: int, *options: str) -> list[str]:
            assert isinstance(self.prefix, PythonPrefix)
            return [
                self.prefix.python,
                "-m",
                f"fastchat.serve.{name}",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                *options,
            ]

        at = ("--controller-address", controller)
        with ExitStack() as stack:
            stack.enter_context(
                process(serve("controller", ports[0]), folder / "controller.log", f"{controller}/test_connection", 120)
            )
            options = ("--worker-address", worker, "--model-path", str(model), "--model-names", self.model)
            limit = ("--device", "cpu", "--limit-worker-concurrency", str(SLOTS))
            ready = f"{worker}/docs"
            stack.enter_context(
                process(serve("model_worker", ports[1], *at, *options, *limit), folder / "worker.log", ready, 240)
            )
            keys = ("--api-keys", self.key)
            stack.enter_context(process(serve("openai_api_server", ports[2], *at, *keys), log, f"{url}/docs", 120))
            yield Running(url, log, {CONTROLLER: controller})

    def answered(self, running: Running) -> int:
        """Lines of its access log."""
        return running.logged('POST /v1/chat/completions HTTP/1.1" 200')
