"""The simulator as a program: its options, its start and end, and how it behaves as a whole."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from simulator_process import Running, chat, deltas, events, simulator


def command_line(*options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tokenswarm.simulator", *options],
        capture_output=True,
        text=True,
        timeout=20,
        env=os.environ | (env or {}),
        check=False,
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "70000"], "--port: 70000 is out of range"),
        (["--decode-base", "fast"], "--decode-base: 'fast' is not a number"),
        (["--prefill-base", "-1"], "--prefill-base: -1 is out of range"),
        (["--max-batch", "0"], "--max-batch: 0 is out of range; it must be at least 1"),
        (["--fault", "fire:0.1"], "'fire' is no fault; the faults are status, truncate"),
        (["--fault", "reset:2"], "'reset:2': write KIND:RATE"),
        (["--fault", "reset:0.7", "--fault", "stall:0.7"], "add up to more than 1"),
        (["--api-key-env", "NO_SUCH_VARIABLE"], "the environment variable NO_SUCH_VARIABLE is not set"),
        (["--tls-key", "key.pem"], "--tls-key: give --tls-cert as well"),
        (["--tls-cert", "/nowhere/cert.pem"], "--tls-cert /nowhere/cert.pem"),
        (["--kv-cache-tokens", "10"], "--kv-cache-tokens 10: less than --max-model-len"),
        (["--log", "/nowhere/log"], "--log /nowhere/log: No such file"),
    ],
)
def test_wrong_options_are_refused_in_words(options: list[str], words: str, capfd: pytest.CaptureFixture[str]) -> None:
    from tokenswarm.simulator.__main__ import main

    try:
        code: int | str | None = main(options)
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert words in capfd.readouterr().err


def test_help_explains_every_fault_and_gives_examples() -> None:
    shown = command_line("--help").stdout
    assert "examples:" in shown
    assert all(f"\n  {kind} " in shown for kind in ("truncate", "no-done", "close-delimited"))


def test_busy_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = command_line("--port", str(port))
    assert ended.returncode == 1
    assert f"port {port} of 127.0.0.1 is in use" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_locust_and_gevent_stay_out() -> None:
    code = "import sys, tokenswarm.simulator.__main__; print(sorted({'locust', 'gevent'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_announcement_is_all_there_is_on_stdout_and_sigterm_ends_it_with_streams_open(tmp_path: Path) -> None:
    with simulator(tmp_path) as server:
        response = server.post(chat(max_tokens=100_000), {"X-Request-Id": "open"})
        response.read(300)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        stdout, stderr = server.process.communicate(timeout=10)
        assert server.process.returncode == 0
        assert time.monotonic() - start < 3
        assert stdout == b"", "one line, and that was read at the start"
        assert stderr == b""
        assert server.logged("open")["outcome"] == "cancelled"


def test_it_ends_with_its_stdin(tmp_path: Path) -> None:
    with simulator(tmp_path) as server:
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.wait(timeout=10) == 0


def test_key_is_demanded_when_told_to(tmp_path: Path) -> None:
    with simulator(tmp_path, "--require-key", env={"SIMULATOR_API_KEY": "key-1"}) as server:
        for headers in ({}, {"Authorization": "Bearer key-2"}):
            refused = server.post(chat(), headers)
            assert refused.status == 401
            assert json.loads(refused.read())["error"]["code"] == "invalid_api_key"
        assert server.get("/v1/models").status == 401
        assert server.get("/health").status == 200
        assert server.post(chat(), {"Authorization": "Bearer key-1"}).status == 200


def test_full_queue_answers_429_and_a_waiting_request_starts_after_the_running_one(tmp_path: Path) -> None:
    with simulator(tmp_path, "--max-batch", "1", "--max-queue", "1") as server:
        first = server.post(chat(max_tokens=150), {"X-Request-Id": "first"})
        second = server.post(chat(), {"X-Request-Id": "second"})
        refused = server.post(chat())
        assert (refused.status, json.loads(refused.read())["error"]["type"]) == (429, "rate_limit_error")
        page = server.metrics()
        assert (page["simulator_requests_running"], page["simulator_requests_waiting"]) == (1, 1)
        first.read(), second.read()
        assert server.logged("second")["sent_ns"][0] > server.logged("first")["sent_ns"][-1]


def replies(folder: Path, seed: int) -> list[tuple[list[str], str]]:
    with simulator(folder, "--seed", str(seed), "--output-tokens", "20") as server:
        parsed = [events(server.post(chat(ignore_eos=False, max_tokens=40)).read()) for _ in range(6)]
    return [(deltas(each), each[-3]["choices"][0]["finish_reason"]) for each in parsed]


def test_same_seed_gives_the_same_replies(tmp_path: Path) -> None:
    once = replies(tmp_path, 1)
    assert once == replies(tmp_path, 1)
    assert once != replies(tmp_path, 2)
    assert len({len(texts) for texts, _ in once}) > 2, "lengths vary"


def test_server_wide_fault_and_a_request_without_it(tmp_path: Path) -> None:
    with simulator(tmp_path, "--fault", "status:1") as server:
        assert server.post(chat()).status == 503
        assert server.post(chat(simulator={"fault": "none"})).status == 200


def test_all_ways_of_cutting_together_lose_nothing(tmp_path: Path) -> None:
    options = ("--cut-writes", "--empty-chunks", "0.3", "--reasoning", "10", "--tokens-per-chunk", "3")
    with simulator(tmp_path, *options) as server:
        parsed = events(server.post(chat(max_tokens=200), {"X-Request-Id": "cut"}).read())
        record = server.logged("cut")
    texts = [text for field in ("reasoning_content", "content") for text in deltas(parsed, field)]
    assert [len(text) for text in texts] == record["chars"]
    assert sum(record["tokens"]) == 200 == parsed[-2]["usage"]["completion_tokens"]
    assert sum(n for n, thought in zip(record["tokens"], record["reasoning"], strict=True) if thought) == 10


def dead_reader(server: Running, tokens: int) -> socket.socket:
    """A client with a small receive buffer that asks for a long reply and does not read it."""
    body = json.dumps(chat(max_tokens=tokens)).encode()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(10)
    client.connect(("127.0.0.1", server.port))
    headers = f"Host: x\r\nConnection: close\r\nX-Request-Id: dead\r\nContent-Length: {len(body)}"
    client.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{headers}\r\n\r\n".encode() + body)
    return client


def unchunked(response: bytes) -> bytes:
    """The body of a chunked response; every chunk's size has to be right."""
    at, body = response.index(b"\r\n\r\n") + 4, []
    while True:
        start = response.index(b"\r\n", at) + 2
        size = int(response[at : start - 2], 16)
        at = start + size + 2
        assert response[at - 2 : at] == b"\r\n"
        if not size:
            assert at == len(response)
            return b"".join(body)
        body.append(response[start : start + size])


def test_dead_reader_costs_no_memory_stalls_nobody_and_gets_everything_in_the_end(tmp_path: Path) -> None:
    tokens = 80_000  # 17 MB of events, of which the kernel takes about 5
    with simulator(tmp_path, "--prefill-base", "0", "--decode-base", "0") as server:
        before = psutil.Process(server.process.pid).memory_info().rss
        client = dead_reader(server, tokens)
        while server.metrics()["simulator_generation_tokens_total"] < tokens:
            assert len(deltas(events(server.post(chat()).read()))) == 8
            time.sleep(0.05)
        assert psutil.Process(server.process.pid).memory_info().rss - before < 8_000_000
        received = b""
        while data := client.recv(1 << 16):
            received += data
        client.close()
        record = server.logged("dead")
    assert [len(text) for text in deltas(events(unchunked(received)))] == record["chars"], "nothing was overtaken"
    assert (record["outcome"], sum(record["tokens"])) == ("ok", tokens)
    assert record["inexact"], "what had to wait is marked"
    assert max(record["tokens"]) > 1


def test_tls_works_and_says_that_its_send_times_are_not_exact(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    pem = tmp_path / "cert.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(pem)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with simulator(tmp_path, "--tls-cert", str(pem)) as server:
        assert server.url.startswith("https://")
        request = urllib.request.Request(
            f"{server.url}/v1/chat/completions", json.dumps(chat()).encode(), {"X-Request-Id": "tls"}
        )
        with urllib.request.urlopen(request, context=context) as response:
            assert len(deltas(events(response.read()))) == 8
        assert server.logged("tls")["inexact"] == list(range(8))


def test_everything_is_served_under_the_base_path(tmp_path: Path) -> None:
    with simulator(tmp_path, "--base-path", "/simulator") as server:
        assert server.url.endswith("/simulator")
        assert server.get("/simulator/v1/models").status == 200
        assert server.get("/v1/models").status == 404
