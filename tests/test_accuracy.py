"""Golden accuracy: what a run recorded against the simulator's own log of what it really sent, and when.

Times are compared with the log, never with a setting; counts and texts exactly.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from locust_process import LocustProcess, headless
from simulator_process import simulator

from tokenswarm.transport.receiver import MODE_VARIABLE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernel receive stamps are Linux's")

LATE_MS = 5.0
"""Between the note before a send and the kernel's stamp lies one system call; the machine may be busy with others."""

SHAPES = {
    "one token a chunk": [],
    "several tokens a chunk": ["--tokens-per-chunk", "3"],
    "writes cut in two, code points too": ["--cut-writes"],
    "chunks without content": ["--empty-chunks", "0.3"],
    "reasoning first": ["--reasoning", "6"],
}


def sends(path: Path) -> dict[str, dict[str, Any]]:
    return {line["id"]: line for line in map(json.loads, path.read_text().splitlines())}


def monotonic_ns(run: LocustProcess, epoch: str) -> float:
    """A time of the run directory back on the clock that it was measured on."""
    start = run.json("run.json")["start"]
    return float(start["monotonic_ns"] + (float(epoch) - start["time"]) * 1e9)


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocustProcess, dict[str, dict[str, Any]]]:
    """A run whose requests go round servers of all shapes, and what each of them sent."""
    folder = tmp_path_factory.mktemp("golden")
    body = ["--output-tokens", "30", "--extra-body", '{"ignore_eos": true}', "--save-responses"]
    pace = ("--decode-base", "10", "--prefill-base", "30")
    with ExitStack() as stack:
        servers = {shape: stack.enter_context(simulator(folder, *pace, *own)) for shape, own in SHAPES.items()}
        hosts = ",".join(server.url for server in servers.values())
        run = headless(folder, hosts, "-u", "20", "-r", "40", "-t", "3s", *body)
        return run, {shape: sends(server.log_path) for shape, server in servers.items()}


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_say_what_was_sent_and_when(golden: tuple[LocustProcess, dict[str, Any]], shape: str) -> None:
    run, logs = golden
    log = logs[shape]
    assert sum(map(len, logs.values())) == len(run.rows()) + len(SHAPES), "a row for each request that a server saw"
    rows = [row for row in run.rows() if row["id"] in log]
    texts = {
        saved["id"]: saved for saved in map(json.loads, (run.run_dir / "responses.jsonl").read_text().splitlines())
    }
    assert len(rows) > 20
    assert len(log) == len(rows) + 1, "every request that the server saw has its row, but for the check's"
    exact = 0
    for row in rows:
        sent = log[row["id"]]
        assert row["status"] == "ok"
        assert row["clock"] == "kernel"
        assert int(row["output_tokens"]) == sent["output_tokens"] == sum(sent["tokens"]) == 30
        assert int(row["input_tokens"]) == sent["input_tokens"]
        assert int(row["chunks"]) == len(sent["sent_ns"])
        assert int(row["output_chars"]) == sum(sent["chars"])
        reasoned = sum(n for n, hidden in zip(sent["chars"], sent["reasoning"], strict=True) if hidden)
        assert len(texts[row["id"]]["reasoning"]) == reasoned
        assert len(texts[row["id"]]["text"]) == sum(sent["chars"]) - reasoned
        started = monotonic_ns(run, row["start_time"])
        earliest, latest = ((sent[name][0] - started) / 1e6 for name in ("sent_ns", "done_ns"))
        assert float(row["ttft_low_ms"]) - LATE_MS <= latest
        assert earliest <= float(row["ttft_ms"]) + 0.01
        if sent["inexact"] or (float(row["client_lag_ms"]) > LATE_MS and int(row["max_read_chunks"]) > 1):
            continue  # merged chunks have bounds only; the next test is about them
        exact += 1
        first = monotonic_ns(run, row["first_token_time"])
        assert sent["sent_ns"][0] - 10_000 <= first < sent["done_ns"][0] + LATE_MS * 1e6
        last = started + float(row["last_token_ms"]) * 1e6
        assert sent["sent_ns"][-1] - 10_000 <= last < sent["done_ns"][-1] + LATE_MS * 1e6
        if sent["reasoning"][0]:
            answer = sent["sent_ns"][sent["reasoning"].index(False)]
            assert -0.01 <= (started - answer) / 1e6 + float(row["ttfo_ms"]) < LATE_MS
        true_tpot = (sent["sent_ns"][-1] - sent["sent_ns"][0]) / 1e6 / (30 - 1)
        assert float(row["tpot_ms"]) == pytest.approx(true_tpot, abs=LATE_MS / 29)
    assert exact >= 5, "a busy server sends late, but not always"


def test_a_busy_client_still_tells_the_servers_latency(tmp_path: Path, reading: str) -> None:
    """A locustfile that hogs the processor. The receive thread is not late; what Python reads late was stamped on time,
    or has bounds that hold."""
    hog = tmp_path / "hog.py"
    hog.write_text(
        "import time\n"
        "import gevent\n"
        "from locust import events\n"
        "from tokenswarm.users import ChatUser\n"
        "@events.test_start.add_listener\n"
        "def start(environment, **kwargs):\n"
        "    def burn():\n"
        "        while True:\n"
        "            gevent.sleep(0.01)\n"
        "            until = time.monotonic() + 0.06\n"
        "            while time.monotonic() < until:\n"
        "                pass\n"
        "    gevent.spawn(burn)\n"
        "class Hogged(ChatUser):\n"
        "    pass\n"
    )
    body = ("--output-tokens", "30", "--extra-body", '{"ignore_eos": true}')
    with simulator(tmp_path, "--decode-base", "10", "--prefill-base", "30") as server:
        load = ("-u", "10", "-r", "20", "-t", "2s")
        run = headless(tmp_path, server.url, *load, *body, locustfile=hog, env={MODE_VARIABLE: reading})
        log = sends(server.log_path)
    rows = run.rows()
    late = [row for row in rows if float(row["client_lag_ms"]) > 40]
    assert len(late) > len(rows) / 2, "the client was not late, or this test shows nothing"
    merged = sum(line["late_merged_reads"] for line in run.intervals())
    chunks = sum(line["chunks"] for line in run.intervals())
    # The thread needs a processor now and then; what Python reads is merged nearly always.
    assert merged < chunks / 5 if reading == "thread" else merged > 10
    for row in rows:
        sent = log[row["id"]]
        if sent["inexact"]:
            continue
        started = monotonic_ns(run, row["start_time"])
        earliest, latest = ((sent[name][0] - started) / 1e6 for name in ("sent_ns", "done_ns"))
        assert float(row["ttft_low_ms"]) - LATE_MS <= latest
        assert earliest <= float(row["ttft_ms"]) + 0.01
        assert int(row["chunks"]) == len(sent["sent_ns"])
    unmerged = [row for row in rows if row["ttft_low_ms"] == row["ttft_ms"]]
    wrong = [
        row
        for row in unmerged
        if monotonic_ns(run, row["first_token_time"]) - log[row["id"]]["done_ns"][0] > LATE_MS * 1e6
    ]
    assert unmerged
    assert len(wrong) <= len(unmerged) / 20, "what claims to be exact is, however late it was read"
