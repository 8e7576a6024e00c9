"""However a run of many processes is stopped, while long answers stream: every request has its row, and says how it
ended."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from locust_process import CHAT, LocustProcess, locust
from simulator_process import simulator
from swarm_process import all_hold, each_served_request_has_one_row, headless_swarm, is_whole, processes

USERS = 6
LOAD = ("-u", str(USERS), "-r", str(USERS), "-t", "60s")
SLOW = ("--decode-base", "20", "--output-tokens", "100")
"""Replies of two seconds: there is always something in flight."""
ENDLESS = ("--decode-base", "50", "--output-tokens", "5000")
"""Replies of minutes."""


def test_a_stop_drains(tmp_path: Path) -> None:
    all_hold(
        tmp_path,
        one_worker_may_leave_and_the_others_go_on,
        ctrl_c_drains_while_users_are_still_being_spawned,
        ctrl_c_in_a_terminal_drains_forked_workers,
        sigterm_ends_a_shape,
        a_run_time_that_is_over_in_the_middle_of_a_drain_changes_nothing,
    )


def test_what_is_not_waited_for_is_cut_and_has_its_row(tmp_path: Path) -> None:
    all_hold(
        tmp_path,
        a_second_ctrl_c_cuts_on_all_workers,
        a_second_ctrl_c_in_a_terminal_cuts_forked_workers,
        the_stop_timeout_cuts_on_all_workers,
        a_stop_before_the_target_was_checked_leaves_no_rows,
        a_stop_before_all_workers_came_leaves_nothing,
    )


def streaming(run: LocustProcess) -> bool:
    """Whether by the workers' last lines all users are in flight."""
    return sum({line["worker"]: line["in_flight"] for line in run.intervals()}.values()) == USERS


def draining(run: LocustProcess) -> bool:
    return "requests in flight" in run.output


def interrupt_group(run: LocustProcess) -> None:
    """What a terminal does at Ctrl-C: a signal to the master and all its workers."""
    os.killpg(run.process.pid, signal.SIGINT)


def ctrl_c_drains_while_users_are_still_being_spawned(folder: Path) -> None:
    with (
        simulator(folder, *SLOW) as server,
        headless_swarm(folder, 2, server.url, "-u", "60", "-r", "5", "-t", "60s") as run,
    ):
        run.until(run.all_at_work)
        run.master.interrupt()
        run.wait()
    assert is_whole(run, server)
    assert {row["status"] for row in run.rows()} == {"ok"}, "what was in flight had time to end"
    assert run.manifest["end"] is not None
    assert (run.run_dir / "report.html").exists()
    assert [worker.process.returncode for worker in run.workers] == [0, 0]


def sigterm_ends_a_shape(folder: Path) -> None:
    locustfile = folder / "shape.py"
    locustfile.write_text(
        CHAT.read_text()
        + "from locust import LoadTestShape\n"
        + "class Flat(LoadTestShape):\n"
        + "    def tick(self):\n"
        + "        return (4, 10) if self.get_run_time() < 60 else None\n"
    )
    with (
        simulator(folder, *SLOW) as server,
        headless_swarm(folder, 2, server.url, locustfile=locustfile) as run,
    ):
        run.until(run.all_at_work)
        run.master.process.terminate()
        run.wait()
    assert is_whole(run, server)
    assert {row["status"] for row in run.rows()} == {"ok"}
    assert (run.run_dir / "report.html").exists()


def a_run_time_that_is_over_in_the_middle_of_a_drain_changes_nothing(folder: Path) -> None:
    with (
        simulator(folder, "--decode-base", "40", "--output-tokens", "100") as server,
        headless_swarm(folder, 2, server.url, *LOAD, "-t", "6s") as run,
    ):
        run.until(lambda: streaming(run.master))
        run.until(lambda: run.master.intervals()[-1]["time"] > run.manifest["start"]["time"] + 4.5)
        run.master.interrupt()
        run.until(lambda: "--run-time limit reached" in run.master.output)
        run.wait()
    assert is_whole(run, server)
    assert {row["status"] for row in run.rows()} == {"ok"}


def ctrl_c_in_a_terminal_drains_forked_workers(folder: Path) -> None:
    with (
        simulator(folder, *SLOW) as server,
        locust(folder, "--headless", "--host", server.url, *processes(2), *LOAD) as run,
    ):
        run.until(lambda: streaming(run))
        interrupt_group(run)
        assert run.wait() == 0, run.output
    assert each_served_request_has_one_row(server, run.run_dir)
    assert {row["status"] for row in run.rows()} == {"ok"}, run.output
    assert run.json("run.json")["problems"] == []
    assert "Traceback" not in run.output


def one_worker_may_leave_and_the_others_go_on(folder: Path) -> None:
    """`docker stop` of one, Ctrl-C at another: they end what they have in flight, and hand over their rows."""
    with simulator(folder, *SLOW) as server, headless_swarm(folder, 3, server.url, *LOAD) as run:
        run.until(lambda: run.all_at_work() and streaming(run.master))
        stays, *leavers = run.workers
        for leaver, how in zip(leavers, (signal.SIGTERM, signal.SIGINT), strict=True):
            leaver.process.send_signal(how)
        for leaver in leavers:
            assert leaver.wait() == 0, leaver.output
        assert {run.entry(leaver)["status"] for leaver in run.workers} == {"running"}
        rank = run.entry(stays)["index"]
        before = len(run.rows_by_worker()[rank])
        run.until(lambda: len(run.rows_by_worker()[rank]) > before + 2)
        run.master.interrupt()
        run.wait()
    assert is_whole(run, server)
    assert {row["status"] for row in run.rows()} == {"ok"}
    assert run.manifest["problems"] == []


# What is cut


def a_second_ctrl_c_cuts_on_all_workers(folder: Path) -> None:
    with simulator(folder, *ENDLESS) as server, headless_swarm(folder, 2, server.url, *LOAD) as run:
        run.until(lambda: streaming(run.master))
        run.master.interrupt()
        run.until(lambda: draining(run.master))
        run.master.interrupt()
        run.wait()
    assert is_whole(run, server)
    assert [row["status"] for row in run.rows()] == ["incomplete"] * USERS
    assert run.manifest["end"] is not None
    assert "Verdict" in run.master.output


def a_second_ctrl_c_in_a_terminal_cuts_forked_workers(folder: Path) -> None:
    with (
        simulator(folder, *ENDLESS) as server,
        locust(folder, "--headless", "--host", server.url, *processes(2), *LOAD) as run,
    ):
        run.until(lambda: streaming(run))
        interrupt_group(run)
        run.until(lambda: draining(run))
        interrupt_group(run)
        run.wait()
    assert each_served_request_has_one_row(server, run.run_dir)
    assert [row["status"] for row in run.rows()] == ["incomplete"] * USERS, run.output
    assert run.json("run.json")["rows"] == {"written": USERS, "lost": 0}
    assert "Traceback" not in run.output


def the_stop_timeout_cuts_on_all_workers(folder: Path) -> None:
    with (
        simulator(folder, *ENDLESS) as server,
        headless_swarm(folder, 2, server.url, *LOAD, "-t", "3s", "--stop-timeout", "2") as run,
    ):
        run.wait()
    assert is_whole(run, server)
    assert [row["status"] for row in run.rows()] == ["incomplete"] * USERS


def a_stop_before_the_target_was_checked_leaves_no_rows(folder: Path) -> None:
    """Its check takes four seconds, so the workers are still at it."""
    with simulator(folder, "--prefill-base", "4000") as server, headless_swarm(folder, 2, server.url, *LOAD) as run:
        run.until(lambda: (run.run_dir / "run.json").exists() and len(run.manifest["workers"]) == 2)
        run.master.interrupt()
        run.wait()
    assert is_whole(run, server)
    assert run.rows() == []
    assert run.manifest["problems"] == []


def a_stop_before_all_workers_came_leaves_nothing(folder: Path) -> None:
    with simulator(folder) as server, headless_swarm(folder, 1, server.url, "--expect-workers", "2", *LOAD) as run:
        run.until(lambda: "1 workers connected" in run.master.output)
        run.master.interrupt()
        run.master.wait()
    assert not run.run_dir.exists()
