"""Many processes, one run: what a master and its workers leave is what the simulator served, row by row."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import psutil
from locust_process import headless, locust, read_rows
from simulator_process import simulator
from swarm_process import all_hold, free_port, headless_swarm, is_whole, processes, served

from tokenswarm.workload.prompts import bundled_prompts


def test_workers_make_one_run(tmp_path: Path) -> None:
    all_hold(
        tmp_path,
        no_prompt_is_asked_twice_and_the_same_seed_gives_the_same_load_again,
        workers_that_join_late_work_or_are_sent_away,
        three_workers_leave_the_rows_of_one_run,
        forked_workers_share_one_simulator,
        options_come_from_the_master_and_without_a_host_its_simulator,
    )


def test_what_cannot_go_well_is_not_started(tmp_path: Path) -> None:
    all_hold(
        tmp_path,
        a_master_for_other_machines_needs_a_host,
        workers_that_cannot_reach_the_target_say_why,
        one_worker_that_cannot_use_the_target_is_enough,
        forked_workers_go_with_a_master_that_refuses,
    )


def three_workers_leave_the_rows_of_one_run(folder: Path) -> None:
    with simulator(folder, "--output-tokens", "20") as server:
        with headless_swarm(folder, 3, server.url, "-u", "6", "-r", "6", "-t", "4s", "--no-check") as run:
            run.wait()
        counted = server.metrics()
    assert is_whole(run, server)
    rows, manifest = run.rows(), run.manifest
    assert {row["worker"] for row in rows} == {"0", "1", "2"}
    assert Counter(row["status"] for row in rows) == {"ok": counted['simulator_requests_total{outcome="ok"}']}
    posts = run.master.locust_stats()["POST", "/v1/chat/completions"]
    assert int(posts["Request Count"]) == len(rows), "Locust's own table is complete as well"
    assert manifest["problems"] == []
    assert (run.run_dir / "report.html").exists()
    assert {entry["pid"] for entry in manifest["workers"]} == {worker.process.pid for worker in run.workers}
    assert len({entry["client_id"] for entry in manifest["workers"]}) == 3
    for entry in manifest["workers"]:
        assert abs(entry["clock_offset_ms"]) <= entry["clock_uncertainty_ms"] < 50, "they share this machine's clock"
        assert manifest["start"]["time"] < entry["joined"] < entry["last_report"] <= manifest["end"]["time"]


def forked_workers_share_one_simulator(folder: Path) -> None:
    """One worker for each processor, started by --processes -1."""
    simulators: set[int] = set()
    workers = range(os.cpu_count() or 0)
    with locust(folder, "--headless", *processes(-1), "-u", "4", "-r", "4") as run:

        def all_at_work() -> bool:
            for process in psutil.Process(run.process.pid).children(recursive=True):
                if "tokenswarm.simulator" in command_line(process):
                    simulators.add(process.pid)
            rows = run.rows() if (run.run_dir / "requests.csv").exists() else []
            return {int(row["worker"]) for row in rows} == {*workers}

        run.until(all_at_work)
        run.interrupt()
        assert run.wait() == 0, run.output
    manifest, rows = run.json("run.json"), run.rows()
    assert len(simulators) == 1
    assert not [pid for pid in simulators if psutil.pid_exists(pid)], "it has gone with the run"
    assert manifest["target"]["simulator"] is True
    assert [worker["index"] for worker in manifest["workers"]] == [*workers]
    assert {int(row["worker"]) for row in rows} == {*workers}
    assert len({row["id"] for row in rows}) == len(rows) == sum(line["started"] for line in run.intervals())
    assert manifest["rows"] == {"written": len(rows), "lost": 0}
    assert manifest["problems"] == []


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


DICE = """
import random
import numpy
from tokenswarm.users import ChatUser

class Dice(ChatUser):
    def on_start(self):
        self.chat(f"rolled {random.random()} {numpy.random.random()}")
"""


def no_prompt_is_asked_twice_and_the_same_seed_gives_the_same_load_again(folder: Path) -> None:
    """Once with workers of a master, once with forked ones: what counts is a worker's rank, and how many there are. All
    that is random on our side is the same again, and none of it is the same on two workers."""
    locustfile = folder / "dice.py"
    locustfile.write_text(DICE)
    load = ("-u", "3", "-r", "3", "-t", "4s", "--seed", "7", "--save-responses", "--output-tokens", "3")
    (folder / "forked").mkdir()
    orders = []
    with simulator(folder, "--prefill-base", "2", "--prefill-per-token", "0") as server:
        with headless_swarm(folder, 3, server.url, *load, locustfile=locustfile) as run:
            run.wait()
        orders.append(asked(run.run_dir))
        forked = headless(folder / "forked", server.url, *processes(3), *load, locustfile=locustfile)
        orders.append(asked(forked.run_dir))
    prompts = {prompt.messages[-1]["content"] for prompt in bundled_prompts()}
    share = len(prompts) // 3
    for order in orders:
        rolls = [order[rank].pop(0).split() for rank in (0, 1, 2)]
        for rolled in zip(*rolls, strict=True):
            assert len(set(rolled)) == (1 if rolled[0] == "rolled" else 3)
        assert all(texts for texts in order.values())
        first = Counter(text for texts in order.values() for text in texts[:share])
        assert set(first.values()) == {1}
        assert first.keys() <= prompts
        order[-1] = [number for roll in rolls for number in roll]
    for rank, texts in orders[0].items():
        again = orders[1][rank]
        both = min(len(texts), len(again))
        assert texts[:both] == again[:both]


def asked(run_dir: Path) -> dict[int, list[str]]:
    """The prompts in the order in which each worker asked them."""
    rows = {row["id"]: row for row in read_rows(run_dir)}
    saved = [json.loads(line) for line in (run_dir / "responses.jsonl").read_text().splitlines()]
    order: dict[int, list[str]] = {}
    for entry in sorted(saved, key=lambda entry: float(rows[entry["id"]]["start_time"])):
        order.setdefault(int(rows[entry["id"]]["worker"]), []).append(entry["messages"][-1]["content"])
    return order


def workers_that_join_late_work_or_are_sent_away(folder: Path) -> None:
    """One works from then on, and is in the books; another one has no way to the target, and the run goes on."""
    key = {"SIMULATOR_API_KEY": "secret-of-the-test"}
    ours = {"LLM_API_KEY": key["SIMULATOR_API_KEY"]}
    with (
        simulator(folder, "--output-tokens", "20", "--require-key", env=key) as server,
        headless_swarm(folder, 0, server.url, "-u", "4", "-r", "4") as run,
    ):
        run.join(env=ours)
        run.until(lambda: run.all_at_work(1))
        late = run.join(env=ours)
        run.until(lambda: run.all_at_work(2))
        run.join(env={"LLM_API_KEY": "another-key"})
        run.until(lambda: "HTTP 401" in run.master.output)
        before = len(run.rows())
        run.until(lambda: len(run.rows()) > before + 50)
        run.master.interrupt()
        run.wait()
    assert is_whole(run, server)
    assert {row["status"] for row in run.rows()} == {"ok"}
    manifest, entry = run.manifest, run.entry(late)
    assert entry["index"] == 1
    assert manifest["start"]["time"] + 1 < entry["joined"] <= float(run.rows_by_worker()[1][0]["start_time"])
    (problem,) = manifest["problems"]
    assert "HTTP 401" in problem
    assert "another-key" not in run.output


def options_come_from_the_master_and_without_a_host_its_simulator(folder: Path) -> None:
    """A worker that has nothing to do, since there are fewer users than workers, is none that is lost."""
    load = ("-u", "1", "-t", "2s", "--output-tokens", "5", "--label", "masters")
    with headless_swarm(folder, 1, None, "--expect-workers", "2", *load) as run:
        run.join("--output-tokens", "9", "--label", "workers", "--host", "http://127.0.0.1:9")
        run.wait()
    manifest = run.manifest
    assert {row["asked_output_tokens"] for row in run.rows()} == {"5"}
    assert (manifest["label"], manifest["target"]["simulator"]) == ("masters", True)
    assert "SIMULATOR" in run.master.output
    assert [worker["status"] for worker in manifest["workers"]] == ["finished"] * 2


# What is not started


def a_master_for_other_machines_needs_a_host(folder: Path) -> None:
    elsewhere = ("--master", "--master-bind-host", "0.0.0.0", "--master-bind-port", free_port())
    with locust(folder, "--headless", *elsewhere, "-t", "2s") as run:
        assert run.wait() == 2, run.output
    assert "--host" in run.output
    assert not run.run_dir.exists()


def workers_that_cannot_reach_the_target_say_why(folder: Path) -> None:
    with headless_swarm(folder, 2, "http://127.0.0.1:9", "-u", "2", "-t", "20s") as run:
        run.wait(exit_code=2)
    assert "127.0.0.1:9" in run.master.output
    assert "refused" in run.master.output
    for problem in run.manifest["problems"]:
        assert "127.0.0.1:9" in problem, "that is all there is to say: nobody was lost in a run that was not started"
    assert run.rows() == []


def one_worker_that_cannot_use_the_target_is_enough(folder: Path) -> None:
    key = {"SIMULATOR_API_KEY": "secret-of-the-test"}
    with (
        simulator(folder, "--require-key", env=key) as server,
        headless_swarm(folder, 0, server.url, "--expect-workers", "2", "-u", "2", "-t", "20s") as run,
    ):
        run.join(env={"LLM_API_KEY": key["SIMULATOR_API_KEY"]})
        run.join(env={"LLM_API_KEY": "another-key"})
        run.wait(exit_code=2)
        assert len(served(server)) <= len(run.rows()), "what the other one asked before it was told has its rows"
    assert "HTTP 401" in run.master.output
    assert "another-key" not in run.output


def forked_workers_go_with_a_master_that_refuses(folder: Path) -> None:
    """Else they would wait for one, and come to whichever is started next at this port."""
    with locust(folder, "--headless", *processes(2), "--output-tokens", "some", "-t", "5s") as run:
        assert run.wait() == 2, run.output
        run.until(lambda: not group(run.process.pid))
    assert "--output-tokens" in run.output


def group(leader: int) -> list[int]:
    """The processes that are left of those that one started."""
    return [process.pid for process in psutil.process_iter() if in_group(process.pid, leader)]


def in_group(pid: int, leader: int) -> bool:
    try:
        return os.getpgid(pid) == leader and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
