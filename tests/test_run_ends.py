"""A run that ends by itself: after so many requests, at a budget of tokens, in every way in which Locust can be run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from locust_process import FIVE_USERS_FOR_A_MINUTE, LocustProcess, headless, locust, read_rows
from simulator_process import Running, simulator
from swarm_process import PATIENCE, free_port, headless_swarm, processes
from test_web_ui import Page, finished

pytestmark = pytest.mark.slow

SOON = 20.0
"""Seconds: less than users that do not end by themselves would be waited for."""


def first_attempts(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row for row in rows if not row["parent"]]


def events(manifest: Any) -> dict[str, float]:
    """When each first was."""
    return {mark["event"]: mark["time"] for mark in reversed(manifest["boundaries"])}


def tokens(rows: list[dict[str, str]]) -> int:
    return sum(int(row["input_tokens"] or 0) + int(row["output_tokens"] or 0) for row in rows)


def ended_with_its_last_request(run: LocustProcess) -> bool:
    """Not before it, and without waiting for anything."""
    when = events(run.json("run.json"))
    last = max(float(row["end_time"]) for row in run.rows())
    return when["through"] <= when["stopping"] and last - 0.001 <= when["stopping"] < last + SOON


def test_requests_are_counted_to_the_last_and_retries_are_extra(tmp_path: Path) -> None:
    with simulator(tmp_path, "--output-tokens", "20", "--fault", "status:0.3") as server:
        run = headless(tmp_path, server.url, "-u", "7", "-r", "3", "--requests", "40", "--retries", "1", exit_code=None)
    rows, manifest = run.rows(), run.json("run.json")
    assert len(first_attempts(rows)) == 40
    assert len(rows) > 40
    assert len({row["id"] for row in rows}) == len(rows) == manifest["rows"]["written"]
    assert manifest["ended_by"] == "requests"
    assert ended_with_its_last_request(run)
    assert {row["status"] for row in rows} == {"ok", "failed"}
    said = "It ended because all that --requests asks for was sent."
    assert said in run.output
    assert said in (run.run_dir / "report.html").read_text()


def test_a_shape_ends_with_the_requests_and_its_users_stay_until_then(tmp_path: Path, quick_simulator: Running) -> None:
    locustfile = tmp_path / "shape.py"
    locustfile.write_text(FIVE_USERS_FOR_A_MINUTE)
    run = headless(tmp_path, quick_simulator.url, "--requests", "31", locustfile=locustfile)
    assert len(run.rows()) == 31
    assert run.json("run.json")["ended_by"] == "requests"
    assert ended_with_its_last_request(run)
    assert [mark["event"] for mark in run.json("run.json")["boundaries"]].count("stopping") == 1


def test_whichever_is_first_ends_the_run(tmp_path: Path, quick_simulator: Running) -> None:
    run = headless(tmp_path, quick_simulator.url, "-u", "2", "-t", "1s", "--requests", "100000")
    manifest = run.json("run.json")
    assert (manifest["ended_by"], len(run.rows()) < 100_000) == ("run_time", True)
    assert "through" not in events(manifest)


def test_in_the_web_page_the_run_stops_and_the_next_start_begins_anew(tmp_path: Path, quick_simulator: Running) -> None:
    options = ("--host", quick_simulator.url, "--web-port", free_port(), "--requests", "12")
    with locust(tmp_path, *options) as run:
        page = Page(run)
        for directory in (run.run_dir, run.folder / "run-2"):
            page.swarm(3)
            assert run.until(lambda directory=directory: finished(directory))["ended_by"] == "requests"
            assert len(read_rows(directory)) == 12
            run.until(lambda: page.state() in ("stopped", "ready"))
        page.swarm(3, requests="1000000")
        third = run.folder / "run-3"
        run.until(lambda: (third / "requests.csv").exists())
        page.stop()
        assert run.until(lambda: finished(third))["ended_by"] == "page"
        run.interrupt()
        assert run.wait() == 0, run.output


def test_two_workers_send_exactly_what_was_asked_for_together(tmp_path: Path, quick_simulator: Running) -> None:
    run = headless(tmp_path, quick_simulator.url, "-u", "5", "-r", "5", "--requests", "41", *processes(2))
    by_worker = sorted(sum(int(row["worker"]) == rank for row in run.rows()) for rank in (0, 1))
    assert by_worker == [20, 21]
    assert run.json("run.json")["ended_by"] == "requests"
    assert ended_with_its_last_request(run)


def test_two_workers_ask_each_line_of_a_dataset_once_and_then_the_run_ends(
    tmp_path: Path, quick_simulator: Running
) -> None:
    dataset = tmp_path / "lines.txt"
    dataset.write_text("".join(f"line {number}\n" for number in range(41)))
    options = ("--dataset", str(dataset), "--dataset-once", "--dataset-order", "shuffled", "--save-responses")
    run = headless(tmp_path, quick_simulator.url, "-u", "5", "-r", "5", *options, *processes(2))
    lines = map(json.loads, (run.run_dir / "responses.jsonl").read_text().splitlines())
    asked = [line["messages"][-1]["content"] for line in lines]
    assert sorted(asked) == sorted(f"line {number}" for number in range(41))
    assert {row["worker"] for row in run.rows()} == {"0", "1"}
    assert run.json("run.json")["ended_by"] == "dataset"
    assert ended_with_its_last_request(run)


def test_a_lost_workers_share_is_missing_and_the_others_end_the_run(tmp_path: Path) -> None:
    with (
        simulator(tmp_path, "--output-tokens", "20", "--decode-base", "5") as server,
        headless_swarm(tmp_path, 2, server.url, "-u", "4", "-r", "4", "--requests", "200") as run,
    ):
        run.until(run.started)
        run.workers[1].process.kill()
        assert run.master.wait(PATIENCE) == 4, run.output
        manifest, rows = run.manifest, run.rows()
        mine = run.entry(run.workers[0])["index"]
    assert manifest["ended_by"] == "requests"
    assert sum(int(row["worker"]) == mine for row in rows) == 100
    said = " ".join(manifest["problems"])
    assert f"Worker {1 - mine} (" in said
    assert "had a share of --requests" in said


def test_a_budget_of_two_workers_is_nearly_spent_and_never_overdrawn(tmp_path: Path, quick_simulator: Running) -> None:
    lengths = ("--input-tokens", "20", "--output-tokens", "30")
    options = ("-u", "20", "-r", "20", "--token-budget", "5000", *lengths, *processes(2))
    run = headless(tmp_path, quick_simulator.url, *options)
    assert run.json("run.json")["ended_by"] == "token_budget"
    assert 2500 < tokens(run.rows()) <= 5000
    assert {row["status"] for row in run.rows()} == {"ok"}


def test_a_hundred_users_do_not_overdraw_a_budget_of_which_nothing_is_known(
    tmp_path: Path, quick_simulator: Running
) -> None:
    run = headless(tmp_path, quick_simulator.url, "-u", "100", "-r", "100", "--token-budget", "8000")
    assert run.json("run.json")["ended_by"] == "token_budget"
    assert 4000 < tokens(run.rows()) < 8400


def test_a_budget_that_buys_nothing_says_so(tmp_path: Path, quick_simulator: Running) -> None:
    run = headless(tmp_path, quick_simulator.url, "-u", "3", "-r", "3", "--token-budget", "10")
    assert run.rows() == []
    assert "share of --token-budget is less than the" in run.output


def test_who_waits_for_tokens_when_the_run_is_stopped_is_told_nothing_of_the_budget(tmp_path: Path) -> None:
    """The first reply has all of it set aside, and nobody knows yet what it will cost."""
    load = ("-u", "3", "-r", "3", "--token-budget", "3000", "--no-check", "--stop-timeout", "1")
    with (
        simulator(tmp_path, "--prefill-base", "60000") as stuck,
        locust(tmp_path, "--headless", "--host", stuck.url, *load) as run,
    ):
        run.until(lambda: run.intervals() and run.intervals()[-1]["users"] == 3)
        run.interrupt()
        run.wait()
    assert [row["status"] for row in run.rows()] == ["incomplete"]
    assert not any("--token-budget" in problem for problem in run.json("run.json")["problems"])


def test_a_signal_and_a_task_that_quits_are_told_apart(tmp_path: Path, quick_simulator: Running) -> None:
    with locust(tmp_path, "--headless", "--host", quick_simulator.url, "-u", "1") as run:
        run.until(lambda: (run.run_dir / "requests.csv").exists())
        run.interrupt()
        run.wait()
    assert run.json("run.json")["ended_by"] == "signal"
    assert json.loads((run.run_dir / "summary.json").read_text())["run"]["ended_by"] == "signal"


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_does_not_cost_the_report_and_a_second_one_does_without(
    tmp_path: Path, quick_simulator: Running, times: int
) -> None:
    load = ("-u", "1", "--requests", "5", "--fail-on", "errors")
    with locust(tmp_path, "--headless", "--host", quick_simulator.url, *load) as run:
        run.until(lambda: (run.run_dir / "run.json").exists() and run.json("run.json").get("end"))
        for said in ("once more: without it", "No report is waited for")[:times]:
            os.killpg(run.process.pid, signal.SIGINT)
            run.until(lambda said=said: said in run.output)
        code = run.wait()
    assert "Traceback" not in run.output
    assert code == (0 if times == 1 else 3), "without a report nobody can say that --fail-on has nothing to fail on"
    assert (run.run_dir / "report.html").exists() == (times == 1)
    assert (f"tokenswarm report {run.run_dir}" in run.output) == (times == 2)
