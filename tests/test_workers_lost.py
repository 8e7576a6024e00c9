"""What a process of the run costs that is killed, or that stops for a while: at most what is named as lost.

Here time has to pass, up to a minute of silence. So all of it happens at the same time, in one test.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from locust_process import read_rows
from simulator_process import Running, simulator
from swarm_process import (
    Swarm,
    all_hold,
    each_served_request_has_one_row,
    free_port,
    headless_swarm,
    ids_of,
    is_whole,
    pause,
    resume,
    served,
    swarm,
)
from test_web_ui import Page

LOAD = ("-u", "4", "-r", "4")
PATIENCE = 120.0
"""Seconds that anything here may take, on a machine that does all of it at once."""


def test_nothing_is_lost_that_is_not_named(tmp_path: Path) -> None:
    all_hold(
        tmp_path,
        a_killed_master_costs_nothing,
        a_worker_that_wakes_after_the_run_is_late_and_its_rows_are_in,
        a_worker_that_sleeps_for_longer_keeps_its_rows,
        a_paused_master_costs_nothing,
        a_killed_worker_of_another_machine_costs_its_last_second,
        a_paused_worker_delivers_what_it_held,
        a_worker_that_sleeps_through_the_stop_is_waited_for,
        a_killed_worker_costs_its_last_second,
        at_once=8,
    )


def at_work(folder: Path, server: Running, workers: int, *options: str, **settings: Any) -> Any:
    """A headless run of so many workers."""
    return headless_swarm(folder, workers, server.url, *LOAD, *options, **settings)


def of_worker(ids: set[str], rank: int) -> bool:
    """Whether all these requests were this worker's."""
    return {request_id.split("-")[1] for request_id in ids} <= {str(rank)}


def a_paused_worker_delivers_what_it_held(folder: Path) -> None:
    """30 s of silence in mid-run."""
    with simulator(folder, "--output-tokens", "20", quick=False) as server:
        with at_work(folder, server, 2) as run:
            run.until(run.all_at_work, PATIENCE)
            sleeper = run.workers[0]
            rank = run.entry(sleeper)["index"]
            pause(sleeper)
            time.sleep(30)
            resume(sleeper)
            before = len(run.rows_by_worker()[rank])
            run.until(lambda: len(run.rows_by_worker()[rank]) > before + 10, PATIENCE)
            run.master.interrupt()
            run.wait(seconds=PATIENCE)
        assert is_whole(run, server)


def a_worker_that_sleeps_through_the_stop_is_waited_for(folder: Path) -> None:
    with simulator(folder, "--output-tokens", "20", quick=False) as server:
        with at_work(folder, server, 2) as run:
            run.until(run.all_at_work, PATIENCE)
            pause(run.workers[1])
            run.master.interrupt()
            time.sleep(25)
            resume(run.workers[1])
            run.wait(seconds=PATIENCE)
        assert is_whole(run, server)


def a_worker_that_sleeps_for_longer_keeps_its_rows(folder: Path) -> None:
    """The master gives it up and is gone when it wakes; its own machine then has what is missing."""
    with simulator(folder, "--output-tokens", "20", quick=False) as server:
        with at_work(folder, server, 2) as run:
            run.until(run.all_at_work, PATIENCE)
            sleeper = run.workers[1]
            rank = run.entry(sleeper)["index"]
            pause(sleeper)
            run.master.interrupt()
            assert run.master.wait(PATIENCE) == 4, run.output
            entry = run.entry(sleeper)
            assert entry["status"] == "lost"
            assert any(f"Worker {rank}" in problem and "lost" in problem for problem in run.manifest["problems"])
            assert run.master.json("summary.json")["verdict"]["level"] == "invalid"
            resume(sleeper)
            sleeper.wait(PATIENCE)
        assert str(run.rescue(rank)) in sleeper.output
        missing = set(served(server)) - ids_of(run.run_dir).keys()
        assert missing
        assert of_worker(missing, rank)
        assert each_served_request_has_one_row(server, run.run_dir, run.rescue(rank))
        report(run.rescue(rank))


def a_worker_that_wakes_after_the_run_is_late_and_its_rows_are_in(folder: Path) -> None:
    """With a web page, the master is still there."""
    with simulator(folder, "--output-tokens", "20", quick=False) as server:
        with swarm(folder, 2, "--host", server.url, "--web-port", free_port()) as run:
            page = Page(run.master)
            run.until(lambda: "2 workers connected" in run.master.output, PATIENCE)
            page.swarm(4)
            run.until(run.all_at_work, PATIENCE)
            sleeper = run.workers[1]
            pause(sleeper)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(page.stop, PATIENCE)
                run.until(lambda: run.manifest["end"] is not None, PATIENCE)
                assert run.entry(sleeper)["status"] == "lost"
                resume(sleeper)
            run.until(lambda: run.entry(sleeper)["status"] == "late", PATIENCE)
            run.until(lambda: "came back" in run.master.output, PATIENCE)
            run.master.interrupt()
            run.master.wait(PATIENCE)
            sleeper.wait(PATIENCE)
        assert each_served_request_has_one_row(server, run.run_dir)
        assert run.entry(sleeper)["missing_batches"] == 0
        assert run.manifest["rows"]["written"] == len(read_rows(run.run_dir))


def a_killed_worker_of_another_machine_costs_its_last_second(folder: Path) -> None:
    """In a process namespace of its own, so that the master cannot see that it is dead."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return
    other_machine = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    with simulator(folder, "--output-tokens", "20", quick=False) as server:
        with at_work(folder, server, 1, "--expect-workers", "2") as run:
            victim = run.join(prefix=other_machine)
            run.until(run.all_at_work, PATIENCE)
            run.until(lambda: len(run.master.intervals()) > 8, PATIENCE)
            rank = 1 - run.entry(run.workers[0])["index"]
            killed_at = time.monotonic_ns()
            victim.process.kill()
            time.sleep(3)
            run.master.interrupt()
            assert run.master.wait(PATIENCE) == 4, run.output
        loss_is_named(run, server, rank, killed_at)


def a_killed_worker_costs_its_last_second(folder: Path) -> None:
    with simulator(folder, "--output-tokens", "20", quick=False) as server:
        with at_work(folder, server, 3) as run:
            run.until(run.all_at_work, PATIENCE)
            run.until(lambda: len(run.master.intervals()) > 8, PATIENCE)
            victim = run.workers[1]
            rank = run.entry(victim)["index"]
            killed_at = time.monotonic_ns()
            victim.process.kill()
            victim.wait()
            time.sleep(3)
            run.master.interrupt()
            assert run.master.wait(30) == 4, "nobody waits for a process that is known to be dead"
        loss_is_named(run, server, rank, killed_at)


def loss_is_named(run: Swarm, server: Running, rank: int, killed_at: int) -> None:
    """The rows that a killed worker took along are few, and the run says which they can be."""
    missing = set(served(server)) - ids_of(run.run_dir).keys()
    assert of_worker(missing, rank)
    ended = {line["id"]: line["end_ns"] for line in map(json.loads, server.log_path.read_text().splitlines())}
    early = [request_id for request_id in missing if ended[request_id] and ended[request_id] < killed_at - 3e9]
    assert not early, "what ended seconds before the kill had been delivered"
    assert each_row_is_of_its_own(run)
    manifest, summary = run.manifest, run.master.json("summary.json")
    assert [entry["status"] for entry in manifest["workers"]].count("lost") == 1
    (entry,) = (entry for entry in manifest["workers"] if entry["index"] == rank)
    assert entry["status"] == "lost"
    assert manifest["start"]["time"] < entry["last_report"] < manifest["end"]["time"]
    assert entry["rows"] == len(run.rows_by_worker()[rank])
    assert entry["in_flight"] == run.master.intervals_of(rank)[-1]["in_flight"]
    (problem,) = (problem for problem in manifest["problems"] if "lost" in problem)
    assert problem.startswith(f"Worker {rank}")
    assert problem in run.master.output
    assert summary["verdict"]["level"] == "invalid"
    assert f"{rank}" in json.dumps(summary["verdict"])


def each_row_is_of_its_own(run: Swarm) -> bool:
    return set(ids_of(run.run_dir).values()) == {1}


def a_killed_master_costs_nothing(folder: Path) -> None:
    """What it had written is there; what it had not, its workers write down when they see that it is gone, each on its
    own machine."""
    with simulator(folder, "--output-tokens", "20", quick=False) as server:
        with at_work(folder, server, 2, "--run-dir", "run") as run:
            run.until(run.all_at_work, PATIENCE)
            run.master.process.kill()
            run.master.wait()
            for worker in run.workers:
                worker.wait(PATIENCE)
        rescues = []
        for worker in run.workers:
            (rescue,) = worker.folder.glob("run-worker-*")
            assert str(rescue) in worker.output
            assert {f"run-worker-{row['worker']}" for row in read_rows(rescue)} == {rescue.name}
            rescues.append(rescue)
        assert each_served_request_has_one_row(server, run.run_dir, *rescues)
        for directory in (run.run_dir, *rescues):
            report(directory)


def report(directory: Path) -> None:
    command = [sys.executable, "-m", "tokenswarm", "report", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (directory / "report.html").exists()


def a_paused_master_costs_nothing(folder: Path) -> None:
    """45 s, over the end of its run: a laptop that was closed."""
    with simulator(folder, "--output-tokens", "20", quick=False) as server:
        with at_work(folder, server, 1, "-t", "10s") as run:
            run.until(run.all_at_work, PATIENCE)
            pause(run.master)
            time.sleep(45)
            resume(run.master)
            run.wait(seconds=PATIENCE)
        assert is_whole(run, server)
