"""The simulator over real sockets: what comes out of them, and whether the send log tells the truth about it."""

from __future__ import annotations

import http.client
import json
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulator_process import Running, chat, deltas, events, simulator

SO_TIMESTAMPNS = 35


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with simulator(tmp_path_factory.mktemp("simulator")) as running:
        yield running


def test_stream_has_role_text_finish_usage_and_done(server: Running) -> None:
    response = server.post(chat(), {"X-Request-Id": "shape"})
    parsed = events(response.read())
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert response.headers["X-Request-Id"] == "shape"
    assert parsed[0]["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ]
    assert len(deltas(parsed)) == 8
    assert parsed[-3]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    assert parsed[-2]["choices"] == []
    assert parsed[-2]["usage"] == {"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11}
    assert parsed[-1] == "[DONE]"
    assert {event["id"] for event in parsed[:-1]} == {"chatcmpl-shape"}
    assert {event["object"] for event in parsed[:-1]} == {"chat.completion.chunk"}


def test_usage_is_only_sent_when_asked_for(server: Running) -> None:
    parsed = events(server.post(chat(stream_options=None)).read())
    assert not any("usage" in event for event in parsed[:-1])


def test_log_tells_what_was_sent(server: Running) -> None:
    texts = deltas(events(server.post(chat(max_tokens=60), {"X-Request-Id": "log"}).read()))
    record = server.logged("log")
    assert record["outcome"] == "ok"
    assert (record["input_tokens"], record["output_tokens"]) == (3, 60)
    assert record["tokens"] == [1] * 60
    assert record["chars"] == [len(text) for text in texts]
    assert record["reasoning"] == [False] * 60
    assert record["batched"] == [2] + [1] * 59, "the role-only event goes out with the first token"
    assert record["inexact"] == []
    instants = [record["received_ns"]]
    for sent, done in zip(record["sent_ns"], record["done_ns"], strict=True):
        instants += [sent, done]
    instants.append(record["end_ns"])
    assert instants == sorted(instants)


def test_logged_times_are_those_of_the_real_sends(server: Running) -> None:
    """Over loopback the kernel stamps a segment's arrival within the sender's system call. Other streams are served in
    the same step, so that a write which is only queued would come out long after its logged time."""
    neighbours = [server.post(chat(max_tokens=2000)) for _ in range(30)]
    ahead_ns = min(time.time_ns() - time.monotonic_ns() for _ in range(100))
    body = json.dumps(chat(max_tokens=100, stream_options=None)).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Request-Id: kernel\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    stamps = []
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        client.sendall(head.encode() + body)
        received = b""
        while b"[DONE]" not in received:
            data, ancillary, _, _ = client.recvmsg(65536, 256)
            received += data
            seconds, nanoseconds = struct.unpack("@qq", ancillary[0][2])
            stamps.append((data.count(b'"finish_reason":null'), seconds * 10**9 + nanoseconds - ahead_ns))
    for neighbour in neighbours:
        neighbour.close()
    record = server.logged("kernel")
    first, *others = [(count, stamp) for count, stamp in stamps if count]
    assert first[0] == 2
    if any(count > 1 for count, _ in others):
        pytest.skip("this machine was too busy to read each chunk by itself")
    slack_ns = 10_000  # between the two clocks
    after_sent = []
    for (_, stamp), sent, done in zip([first, *others], record["sent_ns"], record["done_ns"], strict=True):
        if sent - slack_ns <= stamp <= done + slack_ns:
            after_sent.append(stamp - sent)
    assert len(after_sent) >= 95
    assert statistics.median(after_sent) < 100_000


def test_reply_that_is_not_streamed_has_text_and_usage(server: Running) -> None:
    response = server.post(chat(stream=False, max_tokens=40), {"X-Request-Id": "whole"})
    reply = json.loads(response.read())
    record = server.logged("whole")
    assert reply["choices"][0]["message"]["role"] == "assistant"
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 40
    assert (record["tokens"], record["chars"]) == ([40], [len(reply["choices"][0]["message"]["content"])])
    assert len(record["sent_ns"]) == len(record["done_ns"]) == 1


def test_connection_is_kept_for_the_next_request(server: Running) -> None:
    connection = server.connect()
    for stream in (True, False, True):
        connection.request("POST", "/v1/chat/completions", json.dumps(chat(stream=stream)))
        first_socket = connection.sock
        assert connection.getresponse().read()
        assert connection.sock is first_socket is not None


def test_replies_end_by_themselves_or_at_the_limit(server: Running) -> None:
    reasons = set()
    for limit in (1, 100_000):
        parsed = events(server.post(chat(ignore_eos=False, max_completion_tokens=limit)).read())
        reasons.add((limit, parsed[-3]["choices"][0]["finish_reason"]))
        assert parsed[-2]["usage"]["completion_tokens"] == len(deltas(parsed)) <= limit
    assert reasons == {(1, "length"), (100_000, "stop")}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b'{"model": "simulator", ', 400, None),
        (b'{"model": "simulator"}', 400, "messages"),
        (chat(messages=[]), 400, "messages"),
        (chat(messages=[{"role": "user", "content": 5}]), 400, "messages[0].content"),
        (chat(max_tokens="many"), 400, "max_tokens"),
        (chat(max_tokens=0), 400, "max_tokens"),
        (chat(max_tokens=10_000_000), 400, "messages"),
        (chat(simulator={"fault": "fire"}), 400, "simulator.fault"),
        (chat(model="other"), 404, "model"),
    ],
)
def test_wrong_requests_get_an_envelope_that_names_the_field(
    server: Running, body: dict[str, Any] | bytes, status: int, param: str | None
) -> None:
    response = server.post(body)
    error = json.loads(response.read())["error"]
    assert response.status == status
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert error["message"]


def test_models_health_and_unknown_paths(server: Running) -> None:
    assert [model["id"] for model in json.loads(server.get("/v1/models").read())["data"]] == ["simulator"]
    assert server.get("/health").status == 200
    missing = server.get("/v1/nonsense")
    assert missing.status == 404
    assert "/v1/nonsense" in json.loads(missing.read())["error"]["message"]


def test_unusable_request_id_is_replaced(server: Running) -> None:
    response = server.post(chat(), {"X-Request-Id": "two words"})
    assert response.headers["X-Request-Id"] != "two words"
    assert server.logged(response.headers["X-Request-Id"])["outcome"] == "ok"


def fault(kind: str, **fields: Any) -> dict[str, Any]:
    return {"fault": kind, **fields}


def test_fault_status(server: Running) -> None:
    response = server.post(chat(simulator=fault("status", status=529)), {"X-Request-Id": "status"})
    assert response.status == 529
    assert json.loads(response.read())["error"]["code"] == 529
    assert server.logged("status")["outcome"] == "status"


@pytest.mark.parametrize("after", [0, 2, 1000])
def test_fault_truncate_closes_without_a_terminator(server: Running, after: int) -> None:
    name = f"truncate-{after}"
    response = server.post(chat(simulator=fault("truncate", after=after)), {"X-Request-Id": name})
    with pytest.raises(http.client.IncompleteRead) as cut:
        response.read()
    assert len(deltas(events(cut.value.partial))) == min(after, 8)
    assert b'finish_reason":"' not in cut.value.partial
    record = server.logged(name)
    assert (record["outcome"], record["output_tokens"], record["end_ns"]) == ("truncate", min(after, 8), None)


def test_fault_reset_ends_with_a_reset_after_some_chunks(server: Running) -> None:
    response = server.post(chat(simulator=fault("reset", after=2)), {"X-Request-Id": "reset"})
    with pytest.raises(ConnectionResetError):
        response.read()
    assert len(server.logged("reset")["sent_ns"]) == 2


@pytest.mark.parametrize(("after", "chunks", "finished"), [(None, 8, True), (2, 2, False)])
def test_fault_no_done_ends_cleanly_without_done(
    server: Running, after: int | None, chunks: int, finished: bool
) -> None:
    parsed = events(server.post(chat(simulator=fault("no-done", after=after))).read())
    assert "[DONE]" not in parsed
    assert len(deltas(parsed)) == chunks
    assert ("usage" in parsed[-1]) is finished


def test_fault_stream_error_comes_after_status_200_and_before_done(server: Running) -> None:
    response = server.post(chat(simulator=fault("stream-error", after=4)), {"X-Request-Id": "error"})
    parsed = events(response.read())
    assert response.status == 200
    assert parsed[-1] == "[DONE]"
    assert parsed[-2]["error"]["code"] == 500
    assert len(deltas(parsed[:-2])) == 4
    assert server.logged("error")["outcome"] == "stream-error"


def test_fault_malformed_breaks_one_line_and_goes_on(server: Running) -> None:
    body = server.post(chat(simulator=fault("malformed", after=3))).read()
    with pytest.raises(ValueError):
        events(body)
    good = [part for part in body.split(b"\n\n") if part.endswith((b"}", b"[DONE]"))]
    assert len(body.split(b"\n\n")) - 1 == len(good) + 1
    assert len(deltas(events(b"\n\n".join([*good, b""])))) == 8


def test_fault_empty_is_200_and_done_and_nothing_else(server: Running) -> None:
    response = server.post(chat(simulator=fault("empty")))
    assert (response.status, response.read()) == (200, b"data: [DONE]\n\n")


def test_fault_close_delimited_ends_with_the_connection(server: Running) -> None:
    response = server.post(chat(simulator=fault("close-delimited")), {"X-Request-Id": "delimited"})
    assert response.headers["Connection"] == "close"
    assert not {"Transfer-Encoding", "Content-Length"} & set(response.headers)
    assert len(deltas(events(response.read()))) == 8
    assert server.logged("delimited")["outcome"] == "ok"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("kind", "told"), [("half-usage", 4), ("zero-usage", 0)])
def test_fault_of_usage_leaves_the_reply_whole(server: Running, kind: str, told: int, stream: bool) -> None:
    name = f"{kind}-{stream}"
    body = server.post(chat(simulator=fault(kind), stream=stream), {"X-Request-Id": name}).read()
    usages = [event["usage"] for event in (events(body)[:-1] if stream else [json.loads(body)]) if "usage" in event]
    assert [usage["completion_tokens"] for usage in usages] == [told]
    record = server.logged(name)
    assert (record["outcome"], record["output_tokens"]) == ("ok", 8)


@pytest.mark.parametrize(("kind", "chunks"), [("stall", 2), ("silent", 0)])
def test_fault_that_stops_sending_keeps_the_connection_open(server: Running, kind: str, chunks: int) -> None:
    body = json.dumps(chat(simulator=fault(kind, after=2))).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Request-Id: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.3) as client:
        client.sendall(head.encode() + body)
        with pytest.raises(TimeoutError):
            while True:
                data = client.recv(65536)
                assert data, "the connection was closed"
                received += data
    assert received.count(b'"finish_reason":null') == (chunks + 1 if chunks else 0)
    assert server.logged(kind)["outcome"] == kind


@pytest.mark.parametrize(
    ("kind", "error"),
    [("truncate", http.client.IncompleteRead), ("reset", ConnectionResetError), ("malformed", None)],
)
def test_faults_of_a_reply_that_is_not_streamed(server: Running, kind: str, error: type[Exception] | None) -> None:
    response = server.post(chat(stream=False, simulator=fault(kind)), {"X-Request-Id": f"whole-{kind}"})
    if error is None:
        with pytest.raises(ValueError):
            json.loads(response.read())
    else:
        with pytest.raises(error):
            response.read()
    record = server.logged(f"whole-{kind}")
    assert (record["outcome"], record["output_tokens"]) == (kind, 0)


def test_client_that_leaves_is_logged_as_cancelled(server: Running) -> None:
    response = server.post(chat(max_tokens=100_000), {"X-Request-Id": "leaver"})
    response.read(500)
    assert server.metrics()["simulator_requests_running"] == 1
    response.close()
    record = server.logged("leaver")
    assert record["outcome"] == "cancelled"
    assert 0 < record["output_tokens"] < 100_000
    assert record["end_ns"] is None


def test_metrics_count_what_happened(tmp_path: Path) -> None:
    with simulator(tmp_path) as server:
        for _ in range(3):
            server.post(chat()).read()
        server.post(chat(simulator=fault("empty"))).read()
        server.post(b"{}").read()
        page = server.metrics()
    assert page['simulator_requests_total{outcome="ok"}'] == 3
    assert page['simulator_requests_total{outcome="empty"}'] == 1
    assert page['simulator_requests_total{outcome="rejected"}'] == 1
    assert (page["simulator_prompt_tokens_total"], page["simulator_generation_tokens_total"]) == (9, 24)
    assert page["simulator_time_to_first_token_seconds_count"] == 3
    assert page["simulator_time_to_first_token_seconds_sum"] >= 3 * 0.004
    assert page["simulator_requests_running"] == page["simulator_requests_waiting"] == 0
    assert page["simulator_kv_cache_usage_ratio"] == 0
