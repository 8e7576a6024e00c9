"""Each fault in each protocol that the simulator speaks, met over real sockets."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from simulator_process import Running, simulator
from spoken import MESSAGES, SPEAKERS, Spoken, ask

ON_PURPOSE = "The server fails on purpose."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with simulator(tmp_path_factory.mktemp("faults")) as running:
        yield running


@SPEAKERS
def test_fault_status_and_rate_limit_have_the_own_envelope(server: Running, spoken: Spoken) -> None:
    for fault, status in (("status", 503), ("rate-limit", 429)):
        response = ask(server, spoken, fault)
        error = json.loads(response.read())
        assert response.status == status
        assert response.headers["Content-Type"] == "application/json"
        assert response.headers["Retry-After"] == ("1" if fault == "rate-limit" else None)
        assert ON_PURPOSE in json.dumps(error)
        assert server.logged(f"{spoken.name}-{fault}")["outcome"] == fault


@SPEAKERS
def test_fault_stream_error_comes_in_the_own_envelope_after_some_output(server: Running, spoken: Spoken) -> None:
    response = ask(server, spoken, "stream-error", after=2)
    said = spoken.read(response.read())
    assert response.status == 200
    assert (said.error, said.finish_reason) == (ON_PURPOSE, None)
    assert len(said.pieces) == 2


@SPEAKERS
@pytest.mark.parametrize("after", [0, 3])
def test_fault_no_done_ends_the_body_without_the_own_mark(server: Running, spoken: Spoken, after: int) -> None:
    said = spoken.read(ask(server, spoken, "no-done", after=after).read())
    assert (said.ended, said.error, len(said.pieces)) == (False, None, after)


@SPEAKERS
def test_fault_no_done_at_the_end_lacks_the_mark_alone(server: Running, spoken: Spoken) -> None:
    said = spoken.read(ask(server, spoken, "no-done", "no-done-late").read())
    assert (said.ended, len(said.pieces)) == (False, 8)


@SPEAKERS
@pytest.mark.parametrize(
    ("fault", "error"), [("truncate", http.client.IncompleteRead), ("reset", ConnectionResetError)]
)
def test_fault_that_breaks_the_connection_comes_after_whole_events(
    server: Running, spoken: Spoken, fault: str, error: type[Exception]
) -> None:
    with pytest.raises(error) as broken:
        ask(server, spoken, fault, after=4).read()
    if isinstance(broken.value, http.client.IncompleteRead):
        said = spoken.read(broken.value.partial)
        assert (len(said.pieces), said.ended) == (4, False)
    assert len(server.logged(f"{spoken.name}-{fault}")["sent_ns"]) == 4


@SPEAKERS
@pytest.mark.parametrize("after", [0, 3, 1000])
def test_fault_cut_event_ends_inside_an_event(server: Running, spoken: Spoken, after: int) -> None:
    body = raw(server, spoken, "cut-event", after=after).partition(b"\r\n\r\n")[2]
    data = b"".join(body.split(b"\r\n")[1::2])
    whole, _, rest = data.rpartition(spoken.mark)
    assert rest, "the last event is not whole"
    said = spoken.read(whole + spoken.mark if whole else b"")
    assert (len(said.pieces), said.ended) == (min(after, 8), False)


@SPEAKERS
def test_fault_malformed_breaks_one_event_and_goes_on(server: Running, spoken: Spoken) -> None:
    body = ask(server, spoken, "malformed", after=3).read()
    with pytest.raises(ValueError):
        spoken.read(body)
    good = [event for event in body.split(spoken.mark)[:-1] if event.endswith((b"}", b"[DONE]"))]
    assert len(good) == body.count(spoken.mark) - 1
    if not spoken.name.startswith("dashscope"):  # whose events are numbered
        said = spoken.read(spoken.mark.join([*good, b""]))
        assert (len(said.pieces), said.ended) == (8, True)


@SPEAKERS
def test_fault_empty_succeeds_and_says_nothing(server: Running, spoken: Spoken) -> None:
    response = ask(server, spoken, "empty")
    said = spoken.read(response.read())
    assert (response.status, said.pieces, said.error) == (200, [], None)
    assert said.finish_reason in (None, "completed")


@SPEAKERS
def test_fault_slow_brings_everything_in_dribs(server: Running, spoken: Spoken) -> None:
    said = spoken.read(ask(server, spoken, "slow").read())
    record = server.logged(f"{spoken.name}-slow")
    assert sum(len(piece) for piece in said.pieces) == sum(record["chars"])
    assert said.ended
    assert record["outcome"] == "slow"
    late = record["inexact"]
    assert late == list(range(3, len(record["sent_ns"]))), "from there on the log does not claim the times"
    assert record["end_ns"] - record["done_ns"][2] > 50_000_000


@SPEAKERS
def test_fault_of_usage_leaves_the_reply_whole(server: Running, spoken: Spoken) -> None:
    said = spoken.read(ask(server, spoken, "half-usage").read())
    assert (len(said.pieces), said.ended, said.usage) == (8, True, (3, 4))
    assert server.logged(f"{spoken.name}-half-usage")["output_tokens"] == 8


@SPEAKERS
def test_fault_close_delimited_ends_with_the_connection(server: Running, spoken: Spoken) -> None:
    response = ask(server, spoken, "close-delimited")
    assert not {"Transfer-Encoding", "Content-Length"} & set(response.headers)
    assert spoken.read(response.read()).ended


@SPEAKERS
def test_fault_wrong_type_is_a_page_with_200(server: Running, spoken: Spoken) -> None:
    response = ask(server, spoken, "wrong-type")
    assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert response.read().startswith(b"<!DOCTYPE html>")


@SPEAKERS
def test_fault_reset_early_comes_before_any_header(server: Running, spoken: Spoken) -> None:
    with pytest.raises(ConnectionResetError) as broken:
        ask(server, spoken, "reset-early")
    assert not isinstance(broken.value, http.client.RemoteDisconnected), "that would be an orderly end"
    assert server.logged(f"{spoken.name}-reset-early")["outcome"] == "reset-early"


@SPEAKERS
@pytest.mark.parametrize(("fault", "chunks"), [("stall", 2), ("silent", 0)])
def test_fault_that_stops_sending_keeps_the_connection_open(
    server: Running, spoken: Spoken, fault: str, chunks: int
) -> None:
    with pytest.raises(TimeoutError):
        raw(server, spoken, fault, after=2, timeout=0.2)
    record = server.logged(f"{spoken.name}-{fault}")
    assert (record["outcome"], len(record["sent_ns"])) == (fault, chunks)


def raw(server: Running, spoken: Spoken, fault: str, *, after: int, timeout: float = 10.0) -> bytes:
    """Everything that comes until the connection ends, HTTP's framing included."""
    body = json.dumps(spoken.ask(fault, after=after)).encode()
    headers = spoken.headers | {"Host": "x", "X-Request-Id": f"{spoken.name}-{fault}"}
    lines = [f"POST {spoken.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as client:
        client.sendall(head + body)
        while data := client.recv(65536):
            received += data
    return received


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "simulator", "input": "x", "dimensions": 16}),
        ("/", {"prompt": "x"}),
        ("/generate", {"inputs": "x"}),
        ("/api/chat", {"model": "simulator", "messages": MESSAGES, "stream": False}),
    ],
)
def test_faults_of_replies_that_are_never_streamed(server: Running, path: str, body: dict[str, Any]) -> None:
    def meet(fault: str) -> http.client.HTTPResponse:
        return server.post(body | {"simulator": {"fault": fault}}, {"X-Request-Id": f"{path}{fault}"}, path)

    assert meet("rate-limit").headers["Retry-After"] == "1"
    error = meet("stream-error")
    assert error.status == 200
    assert ON_PURPOSE in error.read().decode()
    assert json.loads(meet("slow").read())
    assert server.logged(f"{path}slow")["end_ns"] - server.logged(f"{path}slow")["received_ns"] > 20_000_000
    for fault in ("truncate", "cut-event"):
        with pytest.raises(http.client.IncompleteRead):
            meet(fault).read()
    with pytest.raises(ConnectionResetError):
        meet("reset-early")
    with pytest.raises(ValueError):
        json.loads(meet("malformed").read())
