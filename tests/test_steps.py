"""Loads that change over a run, by --steps, a shape or the page's edits: the real Locust, and what each row tells of
the step that it was due in."""

from __future__ import annotations

import bisect
import itertools
from pathlib import Path
from typing import Any

import pytest
from locust_process import CHAT, ROOT, headless, locust
from simulator_process import simulator
from swarm_process import all_hold, each_served_request_has_one_row, free_port, headless_swarm, swarm
from test_web_ui import Page, finished, rows_in

SECONDS = 2.0
STEPS = ("--steps", "1,4,2", "--step-time", f"{SECONDS:g}s", "--warmup", "0.5")
REPLY = ("--decode-base", "15", "--output-tokens", "20")
"""Longer than a change of the load is on its way to a worker."""
ENDLESS = ("--decode-base", "50", "--output-tokens", "5000")
CLOCKS_AGREE = 0.05
"""Seconds that a worker's clock may be off the master's, and a row in the next step."""


@pytest.mark.slow
def test_steps_are_gone_through_one_after_another(tmp_path: Path) -> None:
    all_hold(
        tmp_path,
        in_one_process,
        from_the_page_at_each_start,
        a_slow_way_up_skips_no_step,
        sigterm_in_the_middle_of_a_step_keeps_all_rows,
        shapes_of_ones_own_are_put_one_after_another,
    )


@pytest.mark.slow
def test_steps_are_the_same_on_all_workers(tmp_path: Path) -> None:
    all_hold(
        tmp_path,
        over_two_workers,
        an_edit_on_the_page_is_a_step,
        what_the_end_cuts_is_of_its_step,
        a_lower_step_begins_when_those_who_leave_are_gone,
    )


def in_one_process(folder: Path) -> None:
    with simulator(folder, *REPLY) as server:
        run = headless(folder, server.url, *STEPS)
    assert "3 steps, to 4 users at most" in run.output
    went_through(run, [1, 4, 2])
    told = run.output[run.output.rindex("\nStep ") :].splitlines()
    assert [line.split()[:2] for line in told[2:5]] == [["1", "user"], ["4", "users"], ["2", "users"]]
    assert "1 to 4 users in 3 steps" in run.output


def over_two_workers(folder: Path) -> None:
    with (
        simulator(folder, *REPLY) as server,
        headless_swarm(folder, 2, server.url, *STEPS) as run,
    ):
        run.wait()
    assert each_served_request_has_one_row(server, run.run_dir)
    went_through(run, [1, 4, 2])
    assert {row["worker"] for row in run.rows()} == {"0", "1"}


def from_the_page_at_each_start(folder: Path) -> None:
    options = ("--steps", "2,1", "--step-time", "1s", "--web-port", free_port())
    with simulator(folder, *REPLY) as server, locust(folder, "--host", server.url, *options) as run:
        page = Page(run)
        for directory in (run.run_dir, folder / "run-2"):
            page.swarm(9)  # the page's number is not asked for
            manifest = run.until(lambda directory=directory: finished(directory))
            assert asked(manifest) == [2, 1]
            run.until(lambda: page.state() == "stopped")
        run.interrupt()
        assert run.wait() == 0, run.output


def an_edit_on_the_page_is_a_step(folder: Path) -> None:
    options = ("--warmup", "0", "--web-port", free_port())
    with simulator(folder, *REPLY) as server, swarm(folder, 2, "--host", server.url, *options) as run:
        page = Page(run.master)
        run.until(lambda: "2 workers connected" in run.master.output)
        page.swarm(2)
        run.until(lambda: rows_in(run.run_dir) > 4)
        page.swarm(5)
        run.until(lambda: len({row["step"] for row in run.rows()}) == 2)
        page.swarm(1)
        run.until(lambda: len({row["step"] for row in run.rows()}) == 3)
        page.stop()
        manifest = run.until(lambda: finished(run.run_dir))
    assert asked(manifest) == [2, 5, 1]
    nobody_is_in_flight_before_being_asked_for(run.rows(), [2, 5])
    rows_are_of_the_step_they_were_due_in(run)


def a_slow_way_up_skips_no_step(folder: Path) -> None:
    with simulator(folder, *REPLY) as server:
        run = headless(folder, server.url, "--steps", "1,4,5", "--step-time", "1s", "--spawn-rate", "1")
    went_through(run, [1, 4, 5], seconds=1.0)


def sigterm_in_the_middle_of_a_step_keeps_all_rows(folder: Path) -> None:
    options = ("--steps", "2,4", "--step-time", "60s")
    with (
        simulator(folder, *REPLY) as server,
        locust(folder, "--headless", "--host", server.url, *options) as run,
    ):
        run.until(lambda: rows_in(run.run_dir) > 4)
        run.process.terminate()
        run.wait()
    assert each_served_request_has_one_row(server, run.run_dir)
    assert (run.run_dir / "report.html").exists()
    assert run.json("run.json")["end"] is not None


def what_the_end_cuts_is_of_its_step(folder: Path) -> None:
    options = ("--steps", "1,3", "--step-time", "5s", "--stop-timeout", "0")
    with (
        simulator(folder, *ENDLESS) as server,
        headless_swarm(folder, 2, server.url, *options) as run,
    ):
        run.until(lambda: server.metrics()["simulator_requests_running"] == 3)
        run.master.interrupt()
        run.wait()
    assert sorted((row["step"], row["status"]) for row in run.rows()) == [
        ("0", "incomplete"),
        ("1", "incomplete"),
        ("1", "incomplete"),
    ]


def a_lower_step_begins_when_those_who_leave_are_gone(folder: Path) -> None:
    options = ("--steps", "4,1", "--step-time", "2s", "--warmup", "0")
    with (
        simulator(folder, "--decode-base", "30", "--output-tokens", "100") as server,
        headless_swarm(folder, 2, server.url, *options) as run,
    ):
        run.wait()
    _, there = (moment["time"] for moment in run.manifest["boundaries"] if moment["event"] == "spawned")
    rows = run.rows()
    flying = [row for row in rows if float(row["start_time"]) < there < float(row["end_time"]) - CLOCKS_AGREE]
    assert len(rows) >= 5
    assert len(flying) <= 1, "the replies of three users who left, of three seconds, are no part of the lower step"


def shapes_of_ones_own_are_put_one_after_another(folder: Path) -> None:
    locustfile = folder / "day.py"
    locustfile.write_text(
        CHAT.read_text()
        + "from tokenswarm.load.shapes import Ramp, Sequence, Spike\n"
        + "class Day(Sequence):\n"
        + "    parts = Ramp(users=3, seconds=1, hold=1), Spike(base=3, peak=6, before=0, lasting=1, after=1)\n"
    )
    with simulator(folder, *REPLY) as server:
        run = headless(folder, server.url, locustfile=locustfile)
    went_through(run, [3, 6, 3], seconds=1.0)
    assert run.json("run.json")["load"]["shape"] == "Day"


def went_through(run: Any, users: list[int], seconds: float = SECONDS) -> None:
    """Each number of users was asked for, was there, and stayed for its time at least; each row is of its step."""
    manifest = run.json("run.json")
    assert asked(manifest) == users
    moments = [(m["event"], m["time"], m["users"]) for m in manifest["boundaries"] if m["event"] != "start"]
    for step, count in enumerate(users):
        (_, _, wanted), (event, since, there), (_, until, _) = moments[2 * step : 2 * step + 3]
        assert (event, wanted, there) == ("spawned", count, count)
        assert until - since >= seconds - CLOCKS_AGREE
    rows_are_of_the_step_they_were_due_in(run)
    nobody_is_in_flight_before_being_asked_for(run.rows(), users[:2])
    summary = run.json("summary.json")
    assert [step["users"] for step in summary["phases"]["steps"]] == users
    for window in summary["windows"] if not summary["phases"]["whole_run"] else ():
        inside = [row for row in run.rows() if window["start"] <= float(row["intended_time"]) < window["end"]]
        assert window["requests"]["due"] == len(inside)
        assert window["users"] == users[window["step"]]


def asked(manifest: Any) -> list[int]:
    return [moment["users"] for moment in manifest["boundaries"] if moment["event"] == "target"]


def rows_are_of_the_step_they_were_due_in(run: Any) -> None:
    changes = [m["time"] for m in run.json("run.json")["boundaries"] if m["event"] == "target"]
    rows = run.rows()
    for row in rows:
        due, step = float(row["intended_time"]), int(row["step"])
        assert step in {bisect.bisect(changes, due + off) - 1 for off in (-CLOCKS_AGREE, CLOCKS_AGREE)}, row
    assert {int(row["step"]) for row in rows} == set(range(len(changes))), "requests were due in each step"


def nobody_is_in_flight_before_being_asked_for(rows: list[dict[str, str]], users: list[int]) -> None:
    """Of the rows of each of these first steps, upwards, never more are in flight at once than users were asked for:
    the change was noted before the first of the new users came."""
    for step, count in enumerate(users):
        mine = [row for row in rows if row["step"] == str(step)]
        changes = [(float(row["start_time"]), 1) for row in mine] + [(float(row["end_time"]), -1) for row in mine]
        assert max(itertools.accumulate(change for _, change in sorted(changes))) <= count


@pytest.mark.slow
def test_300_users_are_300_requests_in_flight_and_the_record_shows_it(tmp_path: Path) -> None:
    """With replies that outlast the run, so that nothing but the client could keep a user from being in flight."""
    with (
        simulator(tmp_path, "--decode-base", "1000", "--output-tokens", "500", "--max-batch", "1000") as server,
        locust(
            tmp_path, "--headless", "--host", server.url,
            *("-u", "300", "-r", "100", "--warmup", "1s", "--stop-timeout", "0"),
        ) as run,
    ):  # fmt: skip
        run.until(lambda: server.metrics()["simulator_requests_running"] == 300)
        run.until(lambda: run.json("run.json")["boundaries"][-1]["event"] == "spawned")
        lines = run.run_dir / "intervals.jsonl"
        until = lines.read_bytes().count(b"\n") + 5
        run.until(lambda: lines.read_bytes().count(b"\n") >= until)
        run.interrupt()
        run.wait()
    assert len(run.rows()) == 300
    load = run.json("summary.json")["concurrency"]
    assert (load["users"], load["in_flight_max"]) == (300, 300)
    assert load["share"] >= 0.98


@pytest.mark.slow
def test_what_contradicts_steps_is_refused_before_any_load(tmp_path: Path) -> None:
    all_hold(tmp_path, a_number_of_users_and_a_run_time, a_shape_of_the_locustfiles_own, a_shape_that_cannot_be)


def a_number_of_users_and_a_run_time(folder: Path) -> None:
    run = headless(folder, "http://127.0.0.1:9", "--steps", "1,2", "-u", "5", "-t", "9s", exit_code=2)
    assert "--steps and --users and --run-time contradict" in run.output


def a_shape_of_the_locustfiles_own(folder: Path) -> None:
    shape = ROOT / "locustfiles" / "shape.py"
    run = headless(folder, "http://127.0.0.1:9", "--steps", "1,2", locustfile=shape, exit_code=2)
    assert "--steps: the locustfile has a load shape of its own" in run.output


def a_shape_that_cannot_be(folder: Path) -> None:
    code = "from tokenswarm.load.shapes import Spike\nclass Dip(Spike):\n    base = -3\n"
    locustfile = folder / "dip.py"
    locustfile.write_text(CHAT.read_text() + code)
    run = headless(folder, "http://127.0.0.1:9", locustfile=locustfile, exit_code=2)
    assert "the load shape Dip: neither users nor seconds may be below 0" in run.output
    assert "users=-3" in run.output
