"""A real llama.cpp server for tests: a tiny model of random weights, served by the `xllamacpp` wheel on loopback.

The model talks nonsense, but the server is the one that people run: its slots, queue, errors and counters are real.
Run as a program it is that server: `python llama_server.py MODEL chat|embeddings`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MISSING = [name for name in ("xllamacpp", "gguf") if find_spec(name) is None]
MODEL = "tiny"
SLOTS = 4
SLOT_CONTEXT = 4096
"""Tokens that a prompt and its reply may have together."""

# Wide enough that a token takes one core over a millisecond, so that eight users really wait for four slots.
EMBEDDING, LAYERS, FEED_FORWARD, HEADS = 256, 4, 1024, 4

WORDS = "a of in to is it on by we he that with this from they what when have their would there about could people"
LETTERS = "abcdefghijklmnopqrstuvwxyz.,!?\n"
UNKNOWN, BEGIN, END = range(3)
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


@dataclass(frozen=True)
class LlamaServer:
    """A server that listens."""

    url: str

    def counter(self, name: str) -> float:
        """One value of its metrics page."""
        with urllib.request.urlopen(f"{self.url}/metrics") as page:
            lines = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines() if line[:1] != "#")
        return float(lines[f"llamacpp:{name}"])

    def chat(self, prompt: str, **fields: Any) -> Any:
        """What it answers to one request that is not streamed."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **fields}
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", json.dumps(body).encode())
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


@contextmanager
def llama_server(folder: Path, purpose: str = "chat") -> Iterator[LlamaServer]:
    """A server on a free port, ended with the block, for "chat" or "embeddings". Its log is in `folder`."""
    model = folder / "tiny.gguf"
    make_model(model)
    with (folder / "llama.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, str(model), purpose], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    try:
        assert process.stdout is not None
        announced = next((line for line in process.stdout if line.startswith(b'{"url"')), None)
        assert announced, (folder / "llama.log").read_text(errors="replace")
        yield LlamaServer(json.loads(announced)["url"])
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def serve(model: str, purpose: str) -> None:
    """Serve until stdin is closed, as it is when the program that started us is gone."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * SLOT_CONTEXT
    params.cpuparams.n_threads = 1
    params.endpoint_metrics = True
    if purpose == "embeddings":
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    print(json.dumps({"url": server.listening_address}), flush=True)
    sys.stdin.buffer.read()


# The model: Llama's architecture with a vocabulary of bytes, a few words and letters, so that every text can be said.


def make_model(path: Path) -> None:
    """Write a GGUF file of some 17 MB; the same one every time."""
    import gguf

    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    special = len(tokens)
    tokens += ["▁", *(f"▁{word}" for word in WORDS.split()), *LETTERS]
    kind = gguf.TokenType
    ordinary = len(tokens) - special

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(SLOT_CONTEXT)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(EMBEDDING // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_vocab_size(len(tokens))
    writer.add_token_list(tokens)
    # The tokenizer merges what scores highest; bytes are its last resort.
    writer.add_token_scores([0.0] * 3 + [-1000.0] * 256 + [-float(rank) for rank in range(ordinary)])
    writer.add_token_types([kind.UNKNOWN, kind.CONTROL, kind.CONTROL, *[kind.BYTE] * 256, *[kind.NORMAL] * ordinary])
    writer.add_unk_token_id(UNKNOWN)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_chat_template(TEMPLATE)
    _add_weights(writer, len(tokens), special)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_weights(writer: Any, vocabulary: int, special: int) -> None:
    import numpy

    random = numpy.random.default_rng(0)

    def matrix(name: str, rows: int, columns: int, deviation: float = 0.3) -> None:
        weights = random.standard_normal((rows, columns), dtype=numpy.float32) * numpy.float32(deviation)
        writer.add_tensor(f"{name}.weight", weights)

    def ones(name: str) -> None:
        writer.add_tensor(f"{name}.weight", numpy.ones(EMBEDDING, dtype=numpy.float32))

    matrix("token_embd", vocabulary, EMBEDDING, deviation=1.0)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"{block}.{part}", EMBEDDING, EMBEDDING)
        ones(f"{block}.ffn_norm")
        matrix(f"{block}.ffn_gate", FEED_FORWARD, EMBEDDING)
        matrix(f"{block}.ffn_up", FEED_FORWARD, EMBEDDING)
        matrix(f"{block}.ffn_down", EMBEDDING, FEED_FORWARD)
    ones("output_norm")
    output = random.standard_normal((vocabulary, EMBEDDING), dtype=numpy.float32) * numpy.float32(0.2)
    output[:special] = 0.0  # a logit of 0: bytes and the end of the text are rare, not impossible
    writer.add_tensor("output.weight", output)


if __name__ == "__main__":
    serve(*sys.argv[1:])
