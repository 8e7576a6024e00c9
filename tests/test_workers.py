"""Many processes, one run: what a master and its workers leave is what the simulator served, row by row."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from locust_process import headless, locust, read_rows
from simulator_process import Running, simulator
from swarm_process import headless_swarm, is_whole, processes, served

from tokenswarm.workload.prompts import bundled_prompts


@pytest.fixture
def server(tmp_path: Path) -> Any:
    """A simulator of the test's own: all that it serves is the test's."""
    with simulator(tmp_path, "--output-tokens", "20") as running:
        yield running


def asked(run_dir: Path) -> dict[int, list[str]]:
    """The prompts in the order in which each worker asked them."""
    rows = {row["id"]: row for row in read_rows(run_dir)}
    saved = [json.loads(line) for line in (run_dir / "responses.jsonl").read_text().splitlines()]
    order: dict[int, list[str]] = {}
    for entry in sorted(saved, key=lambda entry: float(rows[entry["id"]]["start_time"])):
        order.setdefault(int(rows[entry["id"]]["worker"]), []).append(entry["messages"][-1]["content"])
    return order


def test_three_workers_make_one_run(tmp_path: Path, server: Running) -> None:
    with headless_swarm(tmp_path, 3, server.url, "-u", "6", "-r", "6", "-t", "4s") as run:
        run.wait()
    assert is_whole(run, server)
    rows, manifest = read_rows(run.run_dir), run.manifest
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["worker"] for row in rows} == {"0", "1", "2"}
    assert {entry["pid"] for entry in manifest["workers"]} == {worker.process.pid for worker in run.workers}
    assert len({entry["client_id"] for entry in manifest["workers"]}) == 3
    assert manifest["problems"] == []
    assert manifest["end"] is not None
    assert (run.run_dir / "report.html").exists()
    for entry in manifest["workers"]:
        assert abs(entry["clock_offset_ms"]) <= entry["clock_uncertainty_ms"] < 50, "they share this machine's clock"
        assert entry["joined"] <= manifest["end"]["time"]
        assert manifest["start"]["time"] < entry["last_report"] <= manifest["end"]["time"] + 1
    posts = run.master.locust_stats()["POST", "/v1/chat/completions"]
    assert int(posts["Request Count"]) == len(rows), "Locust's own table is complete as well"


def test_what_the_simulator_counts_is_what_the_run_says(tmp_path: Path) -> None:
    """Locust's tables and the rows of all workers together, failures among them, against the server's own counters."""
    with simulator(tmp_path, "--output-tokens", "20", "--fault", "truncate:0.3") as server:
        with headless_swarm(tmp_path, 2, server.url, "-u", "4", "-r", "4", "-t", "2s", "--no-check") as run:
            run.wait(exit_code=1)
        counted = server.metrics()
    assert is_whole(run, server)
    rows = Counter(row["error_class"] or row["status"] for row in read_rows(run.run_dir))
    outcomes = {"ok": "ok", "truncated": "truncate"}
    assert rows == {ours: counted[f'simulator_requests_total{{outcome="{its}"}}'] for ours, its in outcomes.items()}
    posts = run.master.locust_stats()["POST", "/v1/chat/completions"]
    assert (int(posts["Request Count"]), int(posts["Failure Count"])) == (rows.total(), rows["truncated"])


@pytest.mark.parametrize("count", [2, -1])
def test_processes_share_one_simulator_and_make_one_run(tmp_path: Path, count: int) -> None:
    options = ("--headless", *processes(count), "-u", "4", "-r", "4", "-t", "3s")
    simulators: set[int] = set()
    with locust(tmp_path, *options) as run:

        def done() -> bool:
            for process in psutil.Process(run.process.pid).children(recursive=True):
                if "tokenswarm.simulator" in command_line(process):
                    simulators.add(process.pid)
            return run.process.poll() is not None

        run.until(done, 60)
        assert run.wait() == 0, run.output
    assert len(simulators) == 1
    manifest, rows, lines = run.json("run.json"), run.rows(), run.intervals()
    assert manifest["target"]["simulator"] is True
    workers = range(2 if count == 2 else os.cpu_count() or 0)
    assert [worker["index"] for worker in manifest["workers"]] == [*workers]
    assert {int(row["worker"]) for row in rows} == {*workers}
    assert len({row["id"] for row in rows}) == len(rows) == sum(line["started"] for line in lines)
    assert manifest["rows"] == {"written": len(rows), "lost": 0}
    assert manifest["problems"] == []
    assert not [pid for pid in simulators if psutil.pid_exists(pid)], "the simulator has gone with the run"


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_no_prompt_is_asked_twice_before_all_were_and_the_same_seed_asks_the_same_again(tmp_path: Path) -> None:
    """Once with workers of a master, once with forked ones: what counts is a worker's rank, and how many there are."""
    load = ("-u", "3", "-r", "3", "-t", "4s", "--seed", "7", "--save-responses", "--output-tokens", "3")
    prompts = {prompt.messages[-1]["content"] for prompt in bundled_prompts()}
    share = len(prompts) // 3
    orders = []
    with simulator(tmp_path, "--prefill-base", "2", "--prefill-per-token", "0") as server:
        (tmp_path / "forked").mkdir()
        with headless_swarm(tmp_path, 3, server.url, *load) as run:
            run.wait()
        orders.append(asked(run.run_dir))
        forked = headless(tmp_path / "forked", server.url, *processes(3), *load)
        orders.append(asked(forked.run_dir))
    for order in orders:
        assert {rank: len(texts) > share for rank, texts in order.items()} == {0: True, 1: True, 2: True}
        first = Counter(text for texts in order.values() for text in texts[:share])
        assert set(first.values()) == {1}
        assert first.keys() <= prompts
    for rank, texts in orders[0].items():
        again = orders[1][rank]
        both = min(len(texts), len(again))
        assert texts[:both] == again[:both]


def test_forked_workers_roll_different_dice_and_the_same_ones_again(tmp_path: Path, quick_simulator: Running) -> None:
    locustfile = tmp_path / "dice.py"
    locustfile.write_text(
        "import random\n"
        "import numpy\n"
        "from locust import task\n"
        "from tokenswarm.users import ChatUser\n"
        "class Dice(ChatUser):\n"
        "    @task\n"
        "    def roll(self):\n"
        "        self.chat(f'{random.random()} {numpy.random.random()}')\n"
    )
    rolled: list[dict[int, list[str]]] = []
    for again in ("once", "again"):
        (tmp_path / again).mkdir()
        options = (*processes(2), "-u", "2", "-r", "2", "-t", "2s", "--save-responses", "--seed", "3")
        run = headless(tmp_path / again, quick_simulator.url, *options, locustfile=locustfile)
        rolled.append(asked(run.run_dir))
    for texts in rolled:
        for die in (0, 1):
            rolls = [text.split()[die] for own in texts.values() for text in own]
            assert len(set(rolls)) == len(rolls)
    for rank, texts in rolled[0].items():
        assert texts[:5] == rolled[1][rank][:5]


def test_a_worker_that_joins_late_works_and_is_in_the_books(tmp_path: Path, server: Running) -> None:
    with headless_swarm(tmp_path, 1, server.url, "-u", "4", "-r", "4", "-t", "14s") as run:
        run.until(lambda: run.all_at_work())
        late = run.join()
        run.until(lambda: run.all_at_work(2))
        run.wait()
    assert is_whole(run, server)
    manifest, entry = run.manifest, run.entry(late)
    assert entry["index"] == 1
    assert manifest["start"]["time"] + 1 < entry["joined"] <= float(run.rows_by_worker()[1][0]["start_time"])


def test_options_come_from_the_master(tmp_path: Path, server: Running) -> None:
    load = ("-u", "2", "-r", "2", "-t", "2s", "--output-tokens", "5", "--label", "masters")
    with headless_swarm(tmp_path, 0, server.url, *load) as run:
        run.join("--output-tokens", "9", "--label", "workers", "--host", "http://127.0.0.1:9")
        run.wait()
    assert is_whole(run, server)
    assert {row["asked_output_tokens"] for row in read_rows(run.run_dir)} == {"5"}
    assert (run.manifest["label"], run.manifest["target"]["host"]) == ("masters", server.url)


def test_without_a_host_a_master_on_loopback_starts_one_simulator(tmp_path: Path) -> None:
    with headless_swarm(tmp_path, 2, None, "-u", "2", "-r", "2", "-t", "2s") as run:
        run.wait()
    assert run.manifest["target"]["simulator"] is True
    assert len(run.rows_by_worker()) == 2
    assert "SIMULATOR" in run.master.output


def test_a_master_for_other_machines_needs_a_host(tmp_path: Path) -> None:
    with locust(tmp_path, "--headless", "--master", "--master-bind-host", "0.0.0.0", "-t", "2s") as run:
        assert run.wait() == 2, run.output
    assert "--host" in run.output
    assert not run.run_dir.exists()


def test_workers_that_cannot_reach_the_target_are_a_reason_not_to_start(tmp_path: Path) -> None:
    with headless_swarm(tmp_path, 2, "http://127.0.0.1:9", "-u", "2", "-t", "20s") as run:
        run.wait(exit_code=2, seconds=40)
    assert "127.0.0.1:9" in run.master.output
    assert "refused" in run.master.output
    assert "127.0.0.1:9" in run.manifest["problems"][0]
    assert read_rows(run.run_dir) == []


def test_one_worker_that_cannot_use_the_target_is_enough(tmp_path: Path) -> None:
    key = {"SIMULATOR_API_KEY": "secret-of-the-test"}
    with (
        simulator(tmp_path, "--require-key", env=key) as server,
        headless_swarm(tmp_path, 0, server.url, "--expect-workers", "2", "-u", "2", "-t", "20s") as run,
    ):
        run.join(env={"LLM_API_KEY": key["SIMULATOR_API_KEY"]})
        run.join(env={"LLM_API_KEY": "another-key"})
        run.wait(exit_code=2, seconds=40)
        assert served(server) == []
    assert "401" in run.master.output
    assert "another-key" not in run.output


def test_a_run_with_more_workers_than_users_is_whole(tmp_path: Path, server: Running) -> None:
    with headless_swarm(tmp_path, 3, server.url, "-u", "1", "-t", "2s") as run:
        run.wait()
    assert is_whole(run, server)
    assert len(run.manifest["workers"]) == 3
