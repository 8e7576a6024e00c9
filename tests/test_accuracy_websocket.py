"""Golden accuracy over a WebSocket: what a run recorded against the simulator's own log of what it sent, and when.

As tests/test_accuracy.py; but a turn has no headers, so its id goes into the question, and is its row's name.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from locust_process import LocustProcess, headless
from simulator_process import simulator
from test_accuracy import LATE_MS, monotonic_ns, sends

from tokenswarm.transport.receiver import MODE_VARIABLE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernel receive stamps are Linux's")

TALKER = """
import itertools
import time
import gevent
from locust import events, task
from tokenswarm.users import ChatUser

numbers = itertools.count()

class Talker(ChatUser):
    @task
    def talk(self):
        conversation = self.conversation()
        for _ in range(3):
            name = f"turn-{next(numbers)}"
            conversation.say("How are you?", name=name, extra_body={"id": name, "ignore_eos": True})
"""
HOG = """
@events.test_start.add_listener
def start(environment, **kwargs):
    def burn():
        while True:
            gevent.sleep(0.01)
            until = time.monotonic() + 0.06
            while time.monotonic() < until:
                pass
    gevent.spawn(burn)
"""
TOKENS = 30

SHAPES = {
    "one token a message": [],
    "several tokens a message": ["--tokens-per-chunk", "3"],
    "writes cut in two, code points too": ["--cut-writes"],
    "messages with nothing new": ["--empty-chunks", "0.3"],
}


def talk(folder: Path, url: str, code: str, *load: str, **env: str) -> LocustProcess:
    locustfile = folder / "talker.py"
    locustfile.write_text(code)
    options = ("--protocol", "websocket-chat", "--output-tokens", str(TOKENS), "--warmup", "0")
    return headless(folder, url.replace("http", "ws"), *load, *options, locustfile=locustfile, env=env)


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_say_what_was_sent_and_when(tmp_path: Path, shape: str) -> None:
    pace = ("--decode-base", "10", "--prefill-base", "30")
    with simulator(tmp_path, *pace, *SHAPES[shape]) as server:
        run = talk(tmp_path, server.url, TALKER, "-u", "10", "-r", "20", "-t", "3s")
        log = sends(server.log_path)
    rows = run.rows()
    assert len(rows) > 20
    assert {row["status"] for row in rows} == {"ok"}
    assert len(log) == len(rows) + 1, "every turn that the server saw has its row, but for the check's"
    assert sum(row["conn_reused"] == "false" for row in rows) == 10, "a connection for each user"
    assert {row["turn"] for row in rows} == {"1", "2", "3"}
    exact = 0
    for row in rows:
        sent = log[row["name"]]
        assert row["clock"] == "kernel"
        assert int(row["chunks"]) == len(sent["sent_ns"])
        assert int(row["output_chars"]) == sum(sent["chars"])
        assert sent["output_tokens"] == TOKENS
        started = monotonic_ns(run, row["start_time"])
        assert sent["received_ns"] - started > float(row["pool_ms"]) * 1e6, "the handshake came before the question"
        earliest, latest = ((sent[name][0] - started) / 1e6 for name in ("sent_ns", "done_ns"))
        assert float(row["ttft_low_ms"]) - LATE_MS <= latest
        assert earliest <= float(row["ttft_ms"]) + 0.01
        if sent["inexact"] or (float(row["client_lag_ms"]) > LATE_MS and int(row["max_read_chunks"]) > 1):
            continue
        exact += 1
        first = monotonic_ns(run, row["first_token_time"])
        assert sent["sent_ns"][0] - 10_000 <= first < sent["done_ns"][0] + LATE_MS * 1e6
        last = started + float(row["last_token_ms"]) * 1e6
        assert sent["sent_ns"][-1] - 10_000 <= last < sent["done_ns"][-1] + LATE_MS * 1e6
    assert exact > len(rows) / 10, "most chunks were merged: this shows nothing"


def test_a_busy_client_still_tells_the_servers_latency(tmp_path: Path, reading: str) -> None:
    with simulator(tmp_path, "--decode-base", "10", "--prefill-base", "30") as server:
        load = ("-u", "10", "-r", "20", "-t", "2s")
        run = talk(tmp_path, server.url, TALKER + HOG, *load, **{MODE_VARIABLE: reading})
        log = sends(server.log_path)
    rows = run.rows()
    late = [row for row in rows if float(row["client_lag_ms"]) > 40]
    assert len(late) > len(rows) / 2, "the client was not late, or this test shows nothing"
    merged = sum(line["late_merged_reads"] for line in run.intervals())
    assert reading == "thread" or merged > 10, "nothing was merged, or this test shows nothing"
    for row in rows:
        sent = log[row["name"]]
        if sent["inexact"]:
            continue
        started = monotonic_ns(run, row["start_time"])
        earliest, latest = ((sent[name][0] - started) / 1e6 for name in ("sent_ns", "done_ns"))
        assert float(row["ttft_low_ms"]) - LATE_MS <= latest
        assert earliest <= float(row["ttft_ms"]) + 0.01
        assert int(row["chunks"]) == len(sent["sent_ns"])
