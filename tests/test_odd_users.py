"""Locustfiles that do what people do: listeners that raise, greenlets of their own, waits and sleeps, odd endings."""

from __future__ import annotations

import itertools
import re
import resource
from pathlib import Path

import pytest
from locust_process import LocustProcess, headless, locust
from simulator_process import Running, simulator

HEAD = """
import time
import gevent
from locust import between, constant, events, task
from locust.exception import StopUser
from tokenswarm.users import ChatUser
"""


def written(folder: Path, body: str) -> Path:
    path = folder / "scenario.py"
    path.write_text(HEAD + body)
    return path


def check_books(run: LocustProcess) -> None:
    """One row for each request that was started, and a proper end."""
    manifest = run.json("run.json")
    assert manifest["end"] is not None
    assert manifest["rows"] == {"written": len(run.rows()), "lost": 0}
    assert sum(line["started"] for line in run.intervals()) == len(run.rows())
    assert len({row["id"] for row in run.rows()}) == len(run.rows())


def test_a_listener_that_stops_users_costs_no_row(tmp_path: Path) -> None:
    body = """
@events.output_tokens.add_listener
def stop(**kwargs):
    raise StopUser()

class Spawner(ChatUser):
    @task
    def spawn(self):
        gevent.spawn(self.chat, "hi")
        gevent.sleep(0.1)
"""
    with simulator(tmp_path, "--decode-base", "50", "--output-tokens", "5000") as slow:
        options = ("-u", "2", "-t", "2s", "--stop-timeout", "1")
        run = headless(tmp_path, slow.url, *options, locustfile=written(tmp_path, body), exit_code=None)
    check_books(run)
    assert {row["status"] for row in run.rows()} == {"incomplete"}
    assert len(run.rows()) > 10
    assert "A listener failed" in run.output
    assert (run.run_dir / "report.html").exists()


def test_greenlets_of_ones_own_end_with_the_run(tmp_path: Path, quick_simulator: Running) -> None:
    body = """
class Background(ChatUser):
    def forever(self):
        while True:
            self.chat("hi", max_tokens=3)

    @task
    def work(self):
        for _ in range(3):
            gevent.spawn(self.forever)
        gevent.sleep(60)

@events.test_stop.add_listener
def linger(**kwargs):
    gevent.spawn_later(0, gevent.sleep, 1)
"""
    options = ("-u", "2", "-t", "2s", "--stop-timeout", "1")
    run = headless(tmp_path, quick_simulator.url, *options, locustfile=written(tmp_path, body), exit_code=None)
    check_books(run)
    stats = run.locust_stats()
    done = [row for row in run.rows() if row["status"] == "ok"]
    assert int(stats["POST", "/v1/chat/completions"]["Request Count"]) == len(done) > 50


def test_a_users_own_work_before_its_request_is_not_our_delay(tmp_path: Path, quick_simulator: Running) -> None:
    body = """
class Worker(ChatUser):
    wait_time = constant(0.1)

    @task
    def work(self):
        gevent.sleep(0.3)
        self.chat("hi", max_tokens=3)
        gevent.sleep(0.2)
        self.chat("hi", max_tokens=3, name="second")
"""
    run = headless(tmp_path, quick_simulator.url, "-u", "1", "-t", "4s", locustfile=written(tmp_path, body))
    rows = run.rows()
    assert len(rows) > 6
    assert all(float(row["queue_ms"]) < 100 for row in rows), "0.2 s and 0.3 s are the user's own"
    starts = [float(row["start_time"]) for row in rows if row["name"] != "second"]
    assert all(later - earlier > 0.6 for earlier, later in itertools.pairwise(starts)), "it does wait"
    assert run.json("run.json")["user_classes"] == [{"name": "Worker", "think_time": True, "options": {}}]


def test_a_client_that_turns_round_late_says_so(tmp_path: Path, quick_simulator: Running) -> None:
    body = """
@events.test_start.add_listener
def start(**kwargs):
    def burn():
        while True:
            gevent.sleep(0.05)
            until = time.monotonic() + 0.1
            while time.monotonic() < until:
                pass
    gevent.spawn(burn)

class Late(ChatUser):
    wait_time = constant(0.02)
"""
    options = ("-u", "4", "-t", "3s", "--output-tokens", "3")
    run = headless(tmp_path, quick_simulator.url, *options, locustfile=written(tmp_path, body))
    late = [float(row["queue_ms"]) for row in run.rows()]
    assert sum(late) / len(late) > 10
    assert all(float(row["ttft_due_ms"]) >= float(row["ttft_ms"]) for row in run.rows() if row["ttft_ms"])


def test_no_request_begins_once_the_run_is_stopping(tmp_path: Path, quick_simulator: Running) -> None:
    options = ("-u", "100", "-r", "100", "-t", "2s", "--output-tokens", "5")
    run = headless(tmp_path, quick_simulator.url, *options)
    check_books(run)
    stopping = next(m["time"] for m in run.json("run.json")["boundaries"] if m["event"] == "stopping")
    assert {row["status"] for row in run.rows()} == {"ok"}
    assert [row for row in run.rows() if float(row["start_time"]) > stopping + 0.001] == []


def test_running_out_of_descriptors_is_failures_and_recorded(tmp_path: Path, quick_simulator: Running) -> None:
    with locust(tmp_path, "--headless", "--host", quick_simulator.url, "-u", "40", "-r", "10", "-t", "5s") as run:
        run.until(lambda: (run.run_dir / "intervals.jsonl").exists())
        _, hard = resource.prlimit(run.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(run.process.pid, resource.RLIMIT_NOFILE, (40, hard))
        run.until(lambda: len(run.intervals()) > 3)
        resource.prlimit(run.process.pid, resource.RLIMIT_NOFILE, (4096, hard))
        run.wait()
    check_books(run)
    rows = run.rows()
    assert {row["status"] for row in rows} == {"ok", "failed"}
    failed = [row for row in rows if row["status"] == "failed"]
    assert {row["error_class"] for row in failed} <= {"connect", "dns"}
    assert re.search("Too many open files", failed[0]["error"])


@pytest.mark.parametrize("goal", ["invalid", "errors"])
def test_a_goal_is_missed_when_nobody_can_tell(tmp_path: Path, quick_simulator: Running, goal: str) -> None:
    body = """
@events.test_stop.add_listener
def spoil(environment, **kwargs):
    (environment.tokenswarm.book.path / "summary.json").mkdir()

class Plain(ChatUser):
    pass
"""
    options = ("-u", "1", "-t", "1s", "--fail-on", goal)
    run = headless(tmp_path, quick_simulator.url, *options, locustfile=written(tmp_path, body), exit_code=3)
    assert "No report was written" in run.output
    check_books(run)
