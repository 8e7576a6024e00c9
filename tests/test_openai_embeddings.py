"""OpenAI embeddings: vectors are counted and measured, not read; a reply without text is a reply."""

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import run_directory_maker as maker
from hypothesis import given
from hypothesis import strategies as st
from wire_reply import JSON, SSE, Served, check_any_events, cuts, json_of

from tokenswarm.protocols.base import Generation, Usage, Vectors
from tokenswarm.protocols.openai_embeddings import OpenAIEmbeddings
from tokenswarm.results import console, read, summarise

PROTOCOL = OpenAIEmbeddings()
FLOATS = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=9)


def reply(*vectors: Any, **more: Any) -> bytes:
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    usage = {"prompt_tokens": 8, "total_tokens": 8}
    return json.dumps({"object": "list", "model": "m", "data": data, "usage": usage} | more).encode()


WHOLE = reply([0.5, -1e-7, 3], [1, 2, 3])


@given(cuts(WHOLE))
def test_vectors_are_a_reply_though_there_is_no_text(at: list[int]) -> None:
    served = Served(PROTOCOL, WHOLE, JSON, cuts=at)
    assert served.said == ("", "", "", None, None)
    assert served.reply.vectors == Vectors(inputs=2, size=3)
    assert served.reply.usage == Usage(8)
    assert served.line.at == [], "nothing is streamed, so there is no first token"


@given(FLOATS, st.integers(1, 5), st.sampled_from([None, 1]))
def test_size_is_the_number_of_numbers(vector: list[float], inputs: int, indent: int | None) -> None:
    body = json.dumps(json.loads(reply(*[vector] * inputs)), indent=indent).encode()
    assert Served(PROTOCOL, body, JSON).reply.vectors == Vectors(inputs, len(vector))


@given(FLOATS, st.booleans())
def test_base64_vectors_have_the_same_size(vector: list[float], escaped: bool) -> None:
    text = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    body = reply(text)
    served = Served(PROTOCOL, body.replace(b"/", b"\\/") if escaped else body, JSON)
    assert served.reply.vectors == Vectors(1, len(vector))


@pytest.mark.parametrize(
    ("body", "error_class"),
    [
        (reply(), "empty"),
        (reply([]), "malformed"),
        (reply([None, None]), "malformed"),
        (reply([[1, 2], [3, 4]]), "malformed"),
        (reply("AAA"), "malformed"),
        (reply("AAAA"), "malformed"),
        (reply({"a": 1}), "malformed"),
        (reply([1, 2], [1, 2, 3]), "malformed"),
        (b'{"object":"list"}', "malformed"),
        (b'{"data":[{"index":0}]}', "malformed"),
        (b"[" * 20_000, "malformed"),
        (b'{"error":{"message":"no embeddings here"}}', "stream_error"),
        (reply([1], error={"message": "died"}), "stream_error"),
    ],
)
def test_what_is_no_reply(body: bytes, error_class: str) -> None:
    assert Served(PROTOCOL, body, JSON).error_class == error_class


def test_encode_asks_for_nothing_that_is_generated() -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "你好"}]
    generation = Generation(model="m", stream=False, max_tokens=1, temperature=0.5, extra_body={"dimensions": 3})
    request = PROTOCOL.encode(messages, generation)  # type: ignore[arg-type]
    assert (request.path, request.accept) == ("/v1/embeddings", JSON.decode())
    assert json.loads(request.body) == {"model": "m", "input": "s\n\n你好", "dimensions": 3}


@given(st.lists(json_of("data", "embedding", "usage", "error", "prompt_tokens", "object"), max_size=2), st.binary())
def test_nothing_breaks_it(values: list[Any], junk: bytes) -> None:
    check_any_events(PROTOCOL, values, junk)
    assert Served(PROTOCOL, junk, SSE).error_class is not None


def test_results_tell_inputs_and_input_tokens_a_second(tmp_path: Path) -> None:
    """Two inputs of 50 tokens together a request, 20 requests a second."""

    def embed(record: maker.Record, _: int) -> None:
        for name in ("ttft_ms", "ttft_sent_ms", "ttft_due_ms", "ttft_low_ms", "ttfo_ms", "tpot_ms", "last_token_ms"):
            setattr(record, name, None)
        record.first_token_time = record.output_tokens = record.token_source = record.finish_reason = None
        record.chunks = record.output_chars = 0
        record.inputs, record.vector_size, record.input_tokens = 2, 384, 50

    maker.write(tmp_path, maker.closed_loop(users=10, e2e=0.5, change=embed), maker.boundaries(10, 2, 60, 60))
    found = summarise.summarise(read.load(tmp_path))
    rates = found["throughput"]
    assert rates["requests_per_s"] == pytest.approx(20)
    assert rates["inputs_per_s"] == pytest.approx(40)
    assert rates["input_tokens_per_s"] == pytest.approx(1000, rel=0.02)
    assert rates["output_tokens_per_s"] is None
    assert found["verdict"]["level"] == "valid", found["verdict"]["reasons"]
    assert "inputs embedded" in console.table(found)


def test_without_embeddings_there_are_no_inputs(tmp_path: Path) -> None:
    maker.write(tmp_path, maker.closed_loop(users=2, seconds=20), maker.boundaries(2, 2, 20, 20))
    assert summarise.summarise(read.load(tmp_path))["throughput"]["inputs_per_s"] is None
