"""The search for capacity with the real Locust, against a simulator whose capacity can be reckoned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from locust_process import headless, locust
from simulator_process import simulator
from swarm_process import all_hold, free_port, headless_swarm
from test_web_ui import Page, finished, rows_in

from tokenswarm.load.bracket import CLIENT

PLACES = 2
ENGINE = ("--max-batch", str(PLACES), "--prefill-base", "40", "--prefill-per-token", "0", "--decode-base", "25")
REPLY = ("--output-tokens", "16", "--extra-body", '{"ignore_eos": true}')
GOAL = "ttft_p70<200ms"
"""A reply holds one of the two places for 40 ms of prefill and 16 steps of 25 ms: some 450 ms with the step that it
waits for. Two users never wait for a place: first tokens take 40 ms and one or two steps, at most 90 ms. Of three users
one always waits, for 225 ms on average if places come free in turn; if both come free at once, every second request
waits for 450 ms, and the others not at all. Either way half of all TTFTs at least are beyond 200 ms, where three in ten
may be. So the answer is two, also on a machine that adds 100 ms to some.
"""
SEARCH = ("--find-capacity", "--slo", GOAL, "--users", "20", "--warmup", "1s", "--no-check", *REPLY)


def found_two_users(run: Any) -> dict[str, Any]:
    """The answer, and what must stand in run.json, summary, console and report about it."""
    capacity, summary = run.json("run.json")["capacity"], run.json("summary.json")
    answer = capacity["answer"]
    if answer["why"] == CLIENT:  # on a machine that is so busy the search knows it, and says nothing of the server
        assert any(fault["level"] == "invalid" for probe in capacity["probes"] for fault in probe["client"])
        return dict(capacity)
    assert (answer["why"], answer["users"], answer["failed_users"]) == ("found", PLACES, PLACES + 1), run.output
    assert (answer["confirmed"], answer["binding"]) == (True, GOAL)
    assert "Capacity: 2 users keep the goals, 3 users miss ttft_p70<200ms." in run.output
    assert "search for capacity up to 20 users" in run.output
    assert summary["capacity"]["answer"]["users"] == PLACES
    assert "Capacity</h2>" in (run.run_dir / "report.html").read_text()
    return dict(capacity)


def phases_are_those_of_the_probes(run: Any, capacity: dict[str, Any]) -> None:
    """Each level is a phase of its own; the run's figures are of those that passed at the answer."""
    manifest, summary = run.json("run.json"), run.json("summary.json")
    if capacity["answer"]["why"] == CLIENT:
        return
    begun = [boundary["users"] for boundary in manifest["boundaries"] if boundary["event"] == "probe"]
    assert begun == [probe["users"] for probe in capacity["probes"]]
    assert begun[:3] == [1, 2, 3]
    at_answer = [p for p in capacity["probes"] if p["users"] == PLACES and p["decision"] == "pass"]
    windows = [(window["start"], window["end"], window["users"]) for window in summary["phases"]["windows"]]
    assert windows == [(probe["measured_from"], probe["until"], PLACES) for probe in at_answer]
    assert summary["slo"]["attained"] is True


def an_overload_is_let_drain_and_not_cut(run: Any) -> None:
    assert {row["status"] for row in run.rows()} == {"ok"}


@pytest.mark.slow
def test_the_search_finds_what_the_simulator_can_do(tmp_path: Path) -> None:
    all_hold(
        tmp_path,
        in_one_process,
        with_two_workers,
        interrupted_it_keeps_what_it_knows,
        each_start_from_the_page_is_a_search_of_its_own,
        missed_goals_fail_the_run,
    )


def in_one_process(folder: Path) -> None:
    with simulator(folder, *ENGINE) as server:
        run = headless(folder, server.url, *SEARCH)
    capacity = found_two_users(run)
    phases_are_those_of_the_probes(run, capacity)
    an_overload_is_let_drain_and_not_cut(run)


def with_two_workers(folder: Path) -> None:
    with simulator(folder, *ENGINE) as server, headless_swarm(folder, 2, server.url, *SEARCH) as run:
        run.wait()
    found_two_users(run.master)
    an_overload_is_let_drain_and_not_cut(run)
    assert {row["worker"] for row in run.rows()} == {"0", "1"}


def interrupted_it_keeps_what_it_knows(folder: Path) -> None:
    with simulator(folder, *ENGINE) as server, locust(folder, "--headless", "--host", server.url, *SEARCH) as run:
        run.until(lambda: "Capacity: 1. 1 user (step up): looks fine" in run.output)
        run.interrupt()
        assert run.wait(60) == 0, run.output
    capacity = run.json("run.json")["capacity"]
    assert (capacity["answer"]["why"], capacity["answer"]["users"]) == ("stopped", None)
    assert capacity["probes"][0]["users"] == 1
    assert "The search was stopped before it was over." in run.output


def each_start_from_the_page_is_a_search_of_its_own(folder: Path) -> None:
    options = ("--find-capacity", "--slo", GOAL, "--warmup", "1s", "--web-port", free_port(), *REPLY)
    with simulator(folder, *ENGINE) as server, locust(folder, "--host", server.url, *options) as run:
        page = Page(run)
        for directory in (run.run_dir, folder / "run-2"):
            page.swarm(5)
            run.until(lambda directory=directory: rows_in(directory) > 2)
            page.stop()
            answer = run.until(lambda directory=directory: finished(directory))["capacity"]["answer"]
            assert (answer["why"], answer["most_users"]) == ("stopped", 5)
        run.interrupt()
        assert run.wait() == 0, run.output


def missed_goals_fail_the_run(folder: Path) -> None:
    with simulator(folder, *ENGINE) as server:
        goals = ("--slo", "ttft_p50<1ms", "--goodput", "e2e<9s", "--fail-on", "slo")
        run = headless(folder, server.url, "-u", "1", "-t", "3s", "--warmup", "0", *REPLY, *goals, exit_code=3)
    summary = run.json("summary.json")
    assert summary["slo"]["attained"] is False
    assert summary["goodput"]["share"] == 1.0
    assert "and its goals were missed" in run.output


SHAPED = """
from locust import LoadTestShape
from tokenswarm.users import ChatUser

class Chat(ChatUser):
    pass

class Mine(LoadTestShape):
    def tick(self):
        return 1, 1
"""


PREFIXED = """
from tokenswarm.users import ChatUser

class Rag(ChatUser):
    options = {"shared_prefix_tokens": "50"}
"""


def refused(folder: Path, *options: str, **settings: Any) -> str:
    folder.mkdir()
    with locust(folder, "--headless", "--host", "http://127.0.0.1:9", *options, **settings) as run:
        assert run.wait(60) == 2, run.output
        return run.output


def test_a_search_that_could_not_go_well_is_refused_by_name(tmp_path: Path) -> None:
    shaped = tmp_path / "shaped.py"
    shaped.write_text(SHAPED)
    said = refused(tmp_path / "a", "--find-capacity", "--slo", GOAL, "-u", "5", locustfile=shaped)
    assert "so does the load shape Mine" in said
    assert "--fail-on slo needs --slo" in refused(tmp_path / "c", "--fail-on", "slo", "-u", "1")
    assert "--find-capacity needs --users" in refused(tmp_path / "b", "--find-capacity", "--slo", GOAL)


def test_a_class_with_prefixes_of_its_own_is_not_given_unique_prompts(tmp_path: Path) -> None:
    """They contradict each other; so it is only the server that is missed here."""
    locustfile = tmp_path / "prefixed.py"
    locustfile.write_text(PREFIXED)
    said = refused(tmp_path / "a", "--find-capacity", "--slo", GOAL, "-u", "5", locustfile=locustfile)
    assert "contradict" not in said
    assert "Connection refused" in said
