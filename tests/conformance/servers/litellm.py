"""LiteLLM's proxy in front of llama.cpp: what a gateway makes of a server's stream, errors and limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from conformance.prefix import PythonPrefix
from conformance.server import Refused, Refuses, Running, Server, free_port, process
from conformance.servers.llama_cpp import LlamaCpp

LIMITED = "limited"
"""A name of the same model, with a limit of its own."""
REQUESTS_A_MINUTE = 4
PORT_OF_THE_MODEL = "model server"


class LiteLLM(Server):
    """It makes its own errors, and passes on what the server behind it says."""

    name = "LiteLLM"
    prefix = PythonPrefix("litellm", ("litellm[proxy]==1.100.5",))
    key = "sk-conformance"
    spoken: ClassVar = LlamaCpp.spoken
    long_body: ClassVar = {"ignore_eos": True}
    unknown_model = Refused("http_4xx", 400, "no-such-model")
    bad_parameter = Refused("http_4xx", 400, "top_k", {"top_k": "many"})
    # It looks keys up in a database, and this one has none.
    wrong_key = Refused("http_4xx", 400, "No connected db")
    crowd = Refuses(REQUESTS_A_MINUTE, Refused("rate_limited", 429, "No deployments available"), ("--model", LIMITED))
    behind = LlamaCpp()

    def missing(self) -> str | None:
        """What the server behind it needs."""
        return self.behind.missing()

    @contextmanager
    def running(self, folder: Path) -> Iterator[Running]:
        """The proxy, and behind it the server."""
        with self.behind.running(folder) as model:
            to = {"model": f"openai/{self.behind.model}", "api_base": f"{model.url}/v1", "api_key": "none"}
            config = {
                "model_list": [
                    {"model_name": self.model, "litellm_params": to},
                    {"model_name": LIMITED, "litellm_params": {**to, "rpm": REQUESTS_A_MINUTE}},
                ],
                "router_settings": {"enable_pre_call_checks": True, "num_retries": 0},
                "general_settings": {"master_key": self.key},
            }
            path = folder / "litellm.yaml"
            path.write_text(json.dumps(config))  # which is YAML, too
            port, log = free_port(), folder / "litellm.log"
            assert self.prefix is not None
            command = [str(self.prefix.folder / "bin" / "litellm"), "--config", str(path), "--host", "127.0.0.1"]
            env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
            url = f"http://127.0.0.1:{port}"
            with process([*command, "--port", str(port)], log, f"{url}/health/readiness", 120, env):
                yield Running(url, log, {PORT_OF_THE_MODEL: model.url})

    def generated(self, running: Running) -> int:
        """By the counter of the server behind it."""
        return self.behind.generated(behind(running))

    def busy(self, running: Running) -> int:
        """By the gauges of the server behind it."""
        return self.behind.busy(behind(running))


def behind(running: Running) -> Running:
    """The server that the proxy asks."""
    return Running(running.url_of(PORT_OF_THE_MODEL), running.log)
