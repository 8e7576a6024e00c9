"""What a process of the run costs that is killed, or that stops for a while: at most what is named as lost.

Here time has to pass, up to a minute of silence. So all of it happens at the same time, in one test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from locust_process import read_rows
from simulator_process import Running, simulator
from swarm_process import (
    PATIENCE,
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

UNSHIPPED_SECONDS = 3.0
"""A worker ships its rows every second, and a busy machine may be late with it."""


def test_nothing_is_lost_that_is_not_named(tmp_path: Path) -> None:
    all_hold(
        tmp_path,
        a_killed_master_costs_nothing,
        a_worker_that_wakes_after_the_run_is_late_and_its_rows_are_in,
        a_worker_that_wakes_when_the_master_is_gone_keeps_its_rows,
        a_paused_master_costs_nothing,
        a_paused_worker_delivers_what_it_held,
        a_killed_worker_costs_its_last_second,
        a_run_whose_workers_are_all_gone_ends,
    )


@contextmanager
def at_work(folder: Path, workers: int, *options: str) -> Iterator[tuple[Swarm, Running]]:
    """A headless run whose workers have all delivered rows."""
    load = ("-u", "4", "-r", "4", *options)
    with (
        simulator(folder, "--output-tokens", "20", quick=False) as server,
        headless_swarm(folder, workers, server.url, *load) as run,
    ):
        run.until(run.all_at_work)
        yield run, server


def a_paused_worker_delivers_what_it_held(folder: Path) -> None:
    """30 s of silence in mid-run; and then another one, from before the stop to long after it."""
    with at_work(folder, 2) as (run, server):
        first, second = run.workers
        rank = run.entry(first)["index"]
        pause(first)
        time.sleep(30)
        resume(first)
        before = len(run.rows_by_worker()[rank])
        run.until(lambda: len(run.rows_by_worker()[rank]) > before + 10)
        pause(second)
        run.master.interrupt()
        run.until(lambda: run.master.output.count("setting state to missing") == 2)
        resume(second)
        run.wait()
    assert is_whole(run, server)


def a_worker_that_wakes_when_the_master_is_gone_keeps_its_rows(folder: Path) -> None:
    """The master gave it up; its own machine then has what is missing."""
    with at_work(folder, 2) as (run, server):
        sleeper = run.workers[1]
        rank = run.entry(sleeper)["index"]
        pause(sleeper)
        run.master.interrupt()
        assert run.master.wait() == 4, run.output
        assert run.entry(sleeper)["status"] == "lost"
        assert any(f"Worker {rank}" in problem and "lost" in problem for problem in run.manifest["problems"])
        assert run.json("summary.json")["verdict"]["level"] == "invalid"
        resume(sleeper)
        sleeper.wait()
    assert str(run.rescue(rank)) in sleeper.output
    missing = set(served(server)) - ids_of(run.run_dir).keys()
    assert missing
    assert workers_of(missing) == {rank}
    assert each_served_request_has_one_row(server, run.run_dir, run.rescue(rank))
    report(run.rescue(rank))


def a_worker_that_wakes_after_the_run_is_late_and_its_rows_are_in(folder: Path) -> None:
    """With a web page the master is still there."""
    with (
        simulator(folder, "--output-tokens", "20", quick=False) as server,
        swarm(folder, 2, "--host", server.url, "--web-port", free_port()) as run,
    ):
        page = Page(run.master)
        run.until(lambda: "2 workers connected" in run.master.output)
        page.swarm(4)
        run.until(run.all_at_work)
        sleeper = run.workers[1]
        pause(sleeper)
        with ThreadPoolExecutor(1) as pool:
            stopped = pool.submit(page.stop, PATIENCE)
            run.until(lambda: run.manifest["end"] is not None)
            assert run.entry(sleeper)["status"] == "lost"
            resume(sleeper)
            run.until(lambda: run.entry(sleeper)["status"] == "late")
            stopped.result()
        assert "came back" in run.master.output
        run.master.interrupt()
        run.master.wait()
        sleeper.wait()
    assert each_served_request_has_one_row(server, run.run_dir)
    assert run.entry(sleeper)["missing_batches"] == 0
    assert run.manifest["rows"] == {"written": len(run.rows()), "lost": 0}


def a_killed_worker_costs_its_last_second(folder: Path) -> None:
    """One on the master's machine, and, where we may make one, one on another, whose death the master cannot see."""
    with at_work(folder, 2) as (run, server):
        victims = [run.workers[1]]
        if os.geteuid() == 0:
            victims.append(run.join(prefix=("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")))
            run.until(run.all_at_work)
        alive = {run.entry(run.workers[0])["index"]}
        lost = {*range(len(run.workers))} - alive
        run.until(lambda: all(len(run.master.intervals_of(rank)) > 4 for rank in lost))
        killed_at = time.monotonic_ns()
        for victim in victims:
            victim.process.kill()
            victim.wait()
        time.sleep(UNSHIPPED_SECONDS)
        run.master.interrupt()
        assert run.master.wait() == 4, run.output
    missing = set(served(server)) - ids_of(run.run_dir).keys()
    assert workers_of(missing) <= lost
    ended = {line["id"]: line["end_ns"] for line in map(json.loads, server.log_path.read_text().splitlines())}
    shipped = killed_at - UNSHIPPED_SECONDS * 1e9
    assert not [request_id for request_id in missing if ended[request_id] and ended[request_id] < shipped]
    assert set(ids_of(run.run_dir).values()) == {1}
    manifest, summary = run.manifest, run.json("summary.json")
    assert summary["verdict"]["level"] == "invalid"
    for entry in manifest["workers"]:
        rank = entry["index"]
        assert entry["status"] == ("lost" if rank in lost else "finished")
        assert entry["rows"] == len(run.rows_by_worker()[rank])
        if rank in lost:
            assert manifest["start"]["time"] < entry["last_report"] < manifest["end"]["time"]
            assert entry["in_flight"] == run.master.intervals_of(rank)[-1]["in_flight"]
            (problem,) = (text for text in manifest["problems"] if text.startswith(f"Worker {rank} "))
            assert "lost" in problem
            assert problem in run.master.output


def a_killed_master_costs_nothing(folder: Path) -> None:
    """What it had written is there; what it had not, its workers write down when they see that it is gone, each on its
    own machine."""
    with at_work(folder, 2, "--run-dir", "run") as (run, server):
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


def a_paused_master_costs_nothing(folder: Path) -> None:
    """45 s, over the end of its run: a laptop that was closed."""
    with at_work(folder, 1, "-t", "10s") as (run, server):
        pause(run.master)
        time.sleep(45)
        resume(run.master)
        run.wait()
    assert is_whole(run, server)


def workers_of(ids: set[str]) -> set[int]:
    """Whose requests these were, by their ids."""
    return {int(request_id.split("-")[1], 16) for request_id in ids}


def report(directory: Path) -> None:
    command = [sys.executable, "-m", "tokenswarm", "report", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (directory / "report.html").exists()


def a_run_whose_workers_are_all_gone_ends(folder: Path) -> None:
    """By itself, without a run time; nobody is there who could start another."""
    with at_work(folder, 1) as (run, _):
        run.workers[0].process.kill()
        run.workers[0].wait()
        assert run.master.wait() == 4, run.output
    assert run.manifest["ended_by"] == "no_workers"
