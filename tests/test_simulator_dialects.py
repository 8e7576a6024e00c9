"""Each protocol as the simulator speaks it: shapes, counts and ends, read by the simplest means."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulator_process import Running, simulator
from spoken import MESSAGES, SPEAKERS, STREAMED, Spoken, ask, sse


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with simulator(tmp_path_factory.mktemp("dialects")) as running:
        yield running


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """It reasons, sends several tokens at a time, cuts its writes and sends empty events."""
    options = ("--reasoning", "5", "--tokens-per-chunk", "2", "--cut-writes", "--empty-chunks", "0.3")
    with simulator(tmp_path_factory.mktemp("thinker"), *options) as running:
        yield running


def post(server: Running, path: str, body: dict[str, Any]) -> Any:
    response = server.post(body, path=path)
    assert response.status == 200
    return json.loads(response.read())


# Streams


@SPEAKERS
def test_stream_tells_texts_counts_and_its_end_as_the_log_has_them(server: Running, spoken: Spoken) -> None:
    response = ask(server, spoken)
    said = spoken.read(response.read())
    record = server.logged(f"{spoken.name}-None")
    assert response.headers["Content-Type"] == spoken.content_type
    assert [len(piece) for piece in said.pieces] == record["chars"]
    assert (said.ended, said.finish_reason, said.usage) == (True, spoken.cut, (3, 8))
    assert (record["outcome"], record["output_tokens"], record["inexact"]) == ("ok", 8, [])
    assert record["end_ns"] >= record["done_ns"][-1]


@SPEAKERS
def test_reasoning_cut_writes_and_empty_events_lose_nothing(thinker: Running, spoken: Spoken) -> None:
    said = spoken.read(ask(thinker, spoken).read())
    record = thinker.logged(f"{spoken.name}-None")
    reasons = spoken.name not in ("openai-completions", "fastchat-worker", "tgi")
    assert sum(len(piece) for piece in said.thoughts + said.pieces) == sum(record["chars"])
    assert bool(said.thoughts) is any(record["reasoning"]) is reasons
    assert said.usage == (3, 8)


@SPEAKERS
def test_events_of_the_first_send_are_counted(server: Running, spoken: Spoken) -> None:
    body = ask(server, spoken, name=f"count-{spoken.name}").read()
    batched = server.logged(f"count-{spoken.name}")["batched"]
    assert set(batched[1:]) == {1}
    assert batched[0] == {"openai-chat": 2, "openai-responses": 5, "anthropic": 4}.get(spoken.name, 1)
    assert body.count(spoken.mark) >= sum(batched)


@SPEAKERS
def test_reply_that_ends_by_itself_says_so(server: Running, spoken: Spoken) -> None:
    body = json.loads(json.dumps(spoken.body).replace(": 8", ": 100000"))
    said = spoken.read(server.post(body, spoken.headers, spoken.path).read())
    own = {"openai-responses": "completed", "anthropic": "end_turn", "tgi": "eos_token"}
    assert said.ended
    assert said.finish_reason == own.get(spoken.name, "stop")


# What each has of its own


def test_responses_number_their_events_and_repeat_the_text_at_the_end(thinker: Running) -> None:
    spoken = next(each for each in STREAMED if each.name == "openai-responses")
    values = [json.loads(event["data"]) for event in sse(ask(thinker, spoken).read())]
    assert [value["sequence_number"] for value in values] == list(range(len(values)))
    kinds = [value["type"].removeprefix("response.") for value in values if not value["type"].endswith(".delta")]
    item = ["output_item.added", "content_part.added", "{}.done", "content_part.done", "output_item.done"]
    assert kinds == [
        "created",
        "in_progress",
        *(each.format("reasoning_text") for each in item),
        *(each.format("output_text") for each in item),
        "incomplete",
    ]
    output = values[-1]["response"]["output"]
    said = spoken.read(ask(thinker, spoken).read())
    assert [each["type"] for each in output] == ["reasoning", "message"]
    assert said.thoughts and said.pieces
    texts = {value["type"]: value["text"] for value in values if value["type"].endswith("text.done")}
    deltas = [value["delta"] for value in values if value["type"] == "response.output_text.delta"]
    assert texts["response.output_text.done"] == output[1]["content"][0]["text"] == "".join(deltas)


def test_ollama_streams_unless_told_not_to_and_its_durations_are_the_engines(tmp_path: Path) -> None:
    body = {"model": "simulator", "messages": MESSAGES, "options": {"num_predict": 20}, "ignore_eos": True}
    with simulator(
        tmp_path, "--prefill-base", "40", "--decode-base", "5", "--jitter", "0", "--max-batch", "1"
    ) as server:
        for stream in (True, False):
            response = server.post(body | {"stream": stream}, {"X-Request-Id": f"times-{stream}"}, "/api/chat")
            last = json.loads(response.read().splitlines()[-1])
            record = server.logged(f"times-{stream}")
            total = last["total_duration"]
            assert last["load_duration"] + last["prompt_eval_duration"] == 40_000_000 + 3 * 20_000
            assert last["load_duration"] + last["prompt_eval_duration"] + last["eval_duration"] == total
            assert last["eval_duration"] >= 19 * 5_000_000, "the first token comes with the end of the prefill"
            assert total <= record["end_ns"] - record["received_ns"]
            assert not stream or total >= record["sent_ns"][-1] - record["received_ns"]
            assert (last["done"], last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == (
                True,
                "length",
                3,
                20,
            )


def test_ollama_waiting_for_a_place_is_in_the_total_alone(tmp_path: Path) -> None:
    body = {"model": "simulator", "prompt": "Hello", "options": {"num_predict": 30}, "ignore_eos": True}
    with simulator(tmp_path, "--max-batch", "1", "--decode-base", "5") as server:
        first = server.post(body, path="/api/generate")
        second = server.post(body, path="/api/generate")
        first.read()
        last = json.loads(second.read().splitlines()[-1])
    parts = last["load_duration"] + last["prompt_eval_duration"] + last["eval_duration"]
    assert last["total_duration"] - parts > 50e6
    assert last["context"]


def test_ollama_thinks_unless_told_not_to(thinker: Running) -> None:
    body = {"model": "simulator:latest", "messages": MESSAGES, "stream": False}
    assert post(thinker, "/api/chat", body)["message"]["thinking"]
    assert "thinking" not in post(thinker, "/api/chat", body | {"think": False})["message"]


def test_fastchat_echoes_the_prompt_unless_told_not_to(server: Running) -> None:
    frame = post(server, "/worker_generate", {"prompt": 'Say "hi"', "max_new_tokens": 3})
    assert frame["text"].startswith('Say "hi"')
    assert (frame["error_code"], frame["usage"]["prompt_tokens"]) == (0, 2)
    body = {"prompt": 'Say "hi"', "max_new_tokens": 3}
    frames = server.post(body, path="/worker_generate_stream").read().split(b"\0")
    assert all(json.loads(each)["text"].startswith('Say "hi"') for each in frames[:-1])


def test_dashscope_streams_by_its_header_and_counts_in_every_event(server: Running) -> None:
    spoken = next(each for each in STREAMED if each.name == "dashscope")
    raw_events = ask(server, spoken).read().split(b"\n\n")
    assert raw_events[0].startswith(b"id:1\nevent:result\n:HTTP_STATUS/200\ndata:{")
    values = [json.loads(event["data"]) for event in sse(ask(server, spoken).read())]
    assert [value["usage"]["output_tokens"] for value in values] == [1, 2, 3, 4, 5, 6, 7, 8, 8]
    assert {value["output"]["choices"][0]["finish_reason"] for value in values[:-1]} == {"null"}
    whole = post(server, spoken.path, spoken.ask())
    assert whole["output"]["choices"][0]["finish_reason"] == "length"
    plain = post(server, spoken.path, {"model": "simulator", "input": {"prompt": "Hi"}})
    assert plain["output"]["text"]
    failed = ask(server, spoken, "stream-error", after=0).read()
    assert failed.startswith(b"id:1\nevent:error\n:HTTP_STATUS/500\ndata:{")


def test_anthropic_demands_max_tokens_and_signs_its_thoughts(thinker: Running) -> None:
    body = {"model": "simulator", "messages": MESSAGES}
    refused = thinker.post(body, path="/v1/messages")
    error = json.loads(refused.read())
    assert (refused.status, error["type"], error["error"]["type"]) == (400, "error", "invalid_request_error")
    message = post(thinker, "/v1/messages", body | {"max_tokens": 40, "ignore_eos": True, "system": "Be brief."})
    assert [block["type"] for block in message["content"]] == ["thinking", "text"]
    assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("max_tokens", 40)
    spoken = next(each for each in STREAMED if each.name == "anthropic")
    events = sse(ask(thinker, spoken).read())
    deltas = [json.loads(event["data"]) for event in events if event["event"] == "content_block_delta"]
    places = list(dict.fromkeys((delta["index"], delta["delta"]["type"]) for delta in deltas))
    assert places == [(0, "thinking_delta"), (0, "signature_delta"), (1, "text_delta")]
    assert [event["event"] for event in events if event["event"] != "content_block_delta"] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_stop",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_tgi_tells_its_details_only_when_asked(server: Running) -> None:
    body = {"inputs": "Hello", "parameters": {"max_new_tokens": 4}, "ignore_eos": True}
    assert set(post(server, "/generate", body)) == {"generated_text"}
    details = post(server, "/generate", body | {"parameters": {"max_new_tokens": 4, "details": True}})["details"]
    assert (details["finish_reason"], details["generated_tokens"]) == ("length", 4)
    events = [json.loads(event["data"]) for event in sse(server.post(body, path="/generate_stream").read())]
    assert [event["index"] for event in events] == [1, 2, 3, 4]
    assert events[-1]["generated_text"] and events[-1]["details"] is None


def test_chatglm_adds_to_the_history_and_counts_the_prompt_in_its_limit(server: Running) -> None:
    body = {"prompt": "你好", "history": [["a", "b"]], "max_length": 14, "ignore_eos": True}
    response = server.post(body, {"X-Request-Id": "chatglm"}, "/")
    reply = json.loads(response.read())
    assert reply["status"] == 200
    assert reply["history"] == [["a", "b"], ["你好", reply["response"]]]
    assert server.logged("chatglm")["output_tokens"] == 14 - 3
    refused = server.post({}, path="/")
    assert (refused.status, list(json.loads(refused.read()))) == (400, ["detail"])


def test_embeddings_are_unit_vectors_that_depend_on_the_text_alone(server: Running) -> None:
    body = {"model": "simulator", "input": ["one text", "another", "one text"]}
    before = server.metrics()
    reply = post(server, "/v1/embeddings", body)
    vectors = [entry["embedding"] for entry in reply["data"]]
    assert [entry["index"] for entry in reply["data"]] == [0, 1, 2]
    assert vectors[0] == vectors[2] != vectors[1]
    assert {len(vector) for vector in vectors} == {384}
    assert sum(number * number for number in vectors[0]) == pytest.approx(1.0)
    assert reply["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    packed = post(server, "/v1/embeddings", body | {"encoding_format": "base64", "dimensions": 64})["data"][0]
    assert len(struct.unpack("<64f", base64.b64decode(packed["embedding"]))) == 64
    ids = post(server, "/v1/embeddings", body | {"input": [[1, 2, 3], [4]]})
    assert (len(ids["data"]), ids["usage"]["prompt_tokens"]) == (2, 4)
    after = server.metrics()
    assert after["simulator_generation_tokens_total"] == before["simulator_generation_tokens_total"]
    assert after["simulator_prompt_tokens_total"] == before["simulator_prompt_tokens_total"] + 16
    assert post(server, "/v1/embeddings", body | {"simulator": {"fault": "empty"}})["data"] == []


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {"prompt": ["a", "b"]}, "prompt"),
        ("/v1/completions", {"prompt": []}, "prompt"),
        ("/v1/embeddings", {"input": []}, "input"),
        ("/v1/responses", {"input": []}, "input"),
    ],
)
def test_openai_refuses_what_cannot_be_one_reply(server: Running, path: str, body: dict[str, Any], param: str) -> None:
    response = server.post({"model": "simulator", **body}, path=path)
    assert (response.status, json.loads(response.read())["error"]["param"]) == (400, param)


def test_completions_take_token_numbers(server: Running) -> None:
    body = {"model": "simulator", "prompt": [5, 6, 7, 8, 9], "max_tokens": 4, "ignore_eos": True}
    reply = post(server, "/v1/completions", body)
    assert reply["usage"]["prompt_tokens"] == 5
    assert reply["choices"][0]["finish_reason"] == "length"


# Who is there, and where


def test_listings_name_the_model(server: Running) -> None:
    assert json.loads(server.get("/api/tags").read())["models"][0]["name"] == "simulator:latest"
    assert json.loads(server.get("/compatible-mode/v1/models").read())["data"][0]["id"] == "simulator"
    assert json.loads(server.get("/info").read())["model_id"] == "simulator"
    assert post(server, "/list_models", {}) == {"models": ["simulator"]}


def test_everything_is_served_under_the_base_path_and_the_controller_says_where(tmp_path: Path) -> None:
    with simulator(tmp_path, "--base-path", "/simulator") as server:
        for spoken in STREAMED:
            response = server.post(spoken.ask(), spoken.headers, f"/simulator{spoken.path}")
            assert spoken.read(response.read()).ended
        assert post(server, "/simulator/", {"prompt": "x"})["status"] == 200
        found = post(server, "/simulator/get_worker_address", {"model": "simulator"})
        assert found == {"address": server.url}
        assert post(server, "/simulator/get_worker_address", {"model": "other"}) == {"address": ""}


@SPEAKERS
def test_unknown_model_is_refused_where_there_are_names(server: Running, spoken: Spoken) -> None:
    response = server.post(spoken.ask() | {"model": "other"}, spoken.headers, spoken.path)
    nameless = spoken.name in ("fastchat-worker", "tgi")
    assert response.status == (200 if nameless else 404)


def test_key_is_taken_from_either_header(tmp_path: Path) -> None:
    with simulator(tmp_path, "--require-key", env={"SIMULATOR_API_KEY": "key-1"}) as server:
        for spoken in STREAMED:
            refused = server.post(spoken.ask(), spoken.headers, spoken.path)
            assert refused.status == 401
            for key in ({"Authorization": "Bearer key-1"}, {"x-api-key": "key-1"}):
                assert server.post(spoken.ask(), spoken.headers | key, spoken.path).status == 200
        assert server.get("/api/tags").status == 401
