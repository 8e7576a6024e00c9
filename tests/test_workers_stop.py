"""However a run of many processes is stopped, while long answers stream: every request has its row, and says how it
ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from locust_process import CHAT, LocustProcess, locust, read_rows
from simulator_process import Running, simulator
from swarm_process import each_served_request_has_one_row, headless_swarm, is_whole, processes

USERS = 6


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Running]:
    """Replies of two seconds: there is always something in flight."""
    with simulator(tmp_path, "--decode-base", "20", "--output-tokens", "100") as running:
        yield running


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[Running]:
    """Replies of minutes."""
    with simulator(tmp_path, "--decode-base", "50", "--output-tokens", "5000") as running:
        yield running


def options(*more: str) -> tuple[str, ...]:
    return ("-u", str(USERS), "-r", str(USERS), "-t", "60s", *more)


def streaming(run: LocustProcess, users: int = USERS) -> bool:
    """Whether the workers' last lines have all users in flight."""
    last = {line["worker"]: line["in_flight"] for line in run.intervals()}
    return sum(last.values()) == users


def draining(run: LocustProcess) -> bool:
    return "in flight" in run.output and "Waiting" in run.output


STOPS = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}


@pytest.mark.parametrize("how", STOPS)
def test_a_stop_drains_all_workers(tmp_path: Path, slow: Running, how: str) -> None:
    with headless_swarm(tmp_path, 2, slow.url, *options()) as run:
        run.until(lambda: run.all_at_work() and streaming(run.master))
        run.master.process.send_signal(STOPS[how])
        run.wait()
    assert is_whole(run, slow)
    assert {row["status"] for row in read_rows(run.run_dir)} == {"ok"}, "what was in flight had time to end"
    assert run.manifest["end"] is not None
    assert (run.run_dir / "report.html").exists()
    assert [worker.process.returncode for worker in run.workers] == [0, 0]


def test_a_second_ctrl_c_cuts_on_all_workers(tmp_path: Path, endless: Running) -> None:
    with headless_swarm(tmp_path, 2, endless.url, *options()) as run:
        run.until(lambda: streaming(run.master))
        run.master.interrupt()
        run.until(lambda: draining(run.master))
        run.master.interrupt()
        run.master.wait(20)
        for worker in run.workers:
            worker.wait(20)
    assert is_whole(run, endless)
    assert [row["status"] for row in read_rows(run.run_dir)] == ["incomplete"] * USERS
    assert run.manifest["end"] is not None
    assert "Verdict" in run.master.output


def test_the_stop_timeout_cuts_on_all_workers(tmp_path: Path, endless: Running) -> None:
    with headless_swarm(tmp_path, 2, endless.url, *options("-t", "3s", "--stop-timeout", "2")) as run:
        run.wait(seconds=30)
    assert is_whole(run, endless)
    assert [row["status"] for row in read_rows(run.run_dir)] == ["incomplete"] * USERS


def interrupt_group(run: LocustProcess) -> None:
    """What a terminal does at Ctrl-C: a signal to the master and all its workers."""
    os.killpg(run.process.pid, signal.SIGINT)


def test_ctrl_c_in_a_terminal_drains_forked_workers(tmp_path: Path, slow: Running) -> None:
    with locust(tmp_path, "--headless", "--host", slow.url, *processes(2), *options()) as run:
        run.until(lambda: streaming(run))
        interrupt_group(run)
        assert run.wait() == 0, run.output
    assert each_served_request_has_one_row(slow, run.run_dir)
    assert {row["status"] for row in run.rows()} == {"ok"}, run.output
    assert run.json("run.json")["problems"] == []
    assert "Traceback" not in run.output


def test_a_second_ctrl_c_in_a_terminal_cuts_forked_workers(tmp_path: Path, endless: Running) -> None:
    with locust(tmp_path, "--headless", "--host", endless.url, *processes(2), *options()) as run:
        run.until(lambda: streaming(run))
        interrupt_group(run)
        run.until(lambda: draining(run))
        interrupt_group(run)
        run.wait(20)
    assert each_served_request_has_one_row(endless, run.run_dir)
    assert [row["status"] for row in run.rows()] == ["incomplete"] * USERS, run.output
    assert run.json("run.json")["rows"] == {"written": USERS, "lost": 0}
    assert "Traceback" not in run.output


def test_ctrl_c_while_users_are_still_being_spawned(tmp_path: Path, slow: Running) -> None:
    spawning = ("-u", "40", "-r", "4", "-t", "60s")
    with headless_swarm(tmp_path, 2, slow.url, *spawning) as run:
        run.until(run.all_at_work)
        run.master.interrupt()
        run.wait()
    assert is_whole(run, slow)
    assert {row["status"] for row in read_rows(run.run_dir)} == {"ok"}


LEAVINGS = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}


@pytest.mark.parametrize("how", LEAVINGS)
def test_one_worker_may_leave_in_order(tmp_path: Path, slow: Running, how: str) -> None:
    """`docker stop` of one of them, say. What it had in flight it ends or cuts, and hands over; the others go on."""
    with headless_swarm(tmp_path, 2, slow.url, *options("-t", "12s")) as run:
        run.until(lambda: run.all_at_work() and streaming(run.master))
        leaver = run.workers[1]
        leaver.process.send_signal(LEAVINGS[how])
        leaver.wait(40)
        run.wait()
    assert each_served_request_has_one_row(slow, run.run_dir)
    rank = run.entry(leaver)["index"]
    assert run.entry(leaver)["status"] == "finished"
    assert run.manifest["rows"]["written"] == len(read_rows(run.run_dir))
    assert {row["status"] for row in run.rows_by_worker()[1 - rank]} == {"ok"}


def test_a_shape_ends_on_all_workers(tmp_path: Path, slow: Running) -> None:
    locustfile = shape(tmp_path, seconds=4)
    with headless_swarm(tmp_path, 2, slow.url, locustfile=locustfile) as run:
        run.wait()
    assert is_whole(run, slow)
    assert {row["status"] for row in read_rows(run.run_dir)} == {"ok"}
    assert (run.run_dir / "report.html").exists()


def test_sigterm_ends_a_shape_on_all_workers(tmp_path: Path, slow: Running) -> None:
    with headless_swarm(tmp_path, 2, slow.url, locustfile=shape(tmp_path, seconds=60)) as run:
        run.until(run.all_at_work)
        run.master.process.terminate()
        run.wait()
    assert is_whole(run, slow)
    assert (run.run_dir / "report.html").exists()


def shape(folder: Path, seconds: int) -> Path:
    """A locustfile whose load goes by a shape: four users for so long."""
    locustfile = folder / "shape.py"
    locustfile.write_text(
        CHAT.read_text()
        + "from locust import LoadTestShape\n"
        + "class Flat(LoadTestShape):\n"
        + "    def tick(self):\n"
        + f"        return (4, 10) if self.get_run_time() < {seconds} else None\n"
    )
    return locustfile


def test_a_run_stopped_before_its_workers_came_leaves_nothing(tmp_path: Path, slow: Running) -> None:
    with headless_swarm(tmp_path, 1, slow.url, "--expect-workers", "2", *options()) as run:
        run.until(lambda: "workers connected" in run.master.output)
        run.master.interrupt()
        run.master.wait(20)
        run.workers[0].wait(20)
    assert not run.run_dir.exists()
    assert "Traceback" not in run.output

