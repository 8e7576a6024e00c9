"""The open loop in real runs: what is sent when, what is shed, how tasks end, and how a run does."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from arrival_statistics import dispersion, ks_distance
from locust_process import LocustProcess, headless, locust, until_rows
from simulator_process import Running, simulator
from swarm_process import headless_swarm, is_whole
from test_odd_users import written

SHORT = ("--output-tokens", "3")


def times(run: LocustProcess, begin: str = "spawned", end: str = "stopping", after: float = 0.3) -> list[float]:
    """When requests were due between two boundaries, in order; `after` so many seconds of the first."""
    at = {boundary["event"]: boundary["time"] for boundary in run.json("run.json")["boundaries"]}
    due = sorted(float(row["intended_time"]) for row in run.rows())
    return [time for time in due if at[begin] + after <= time < at[end]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["poisson", "gamma:2"])
def test_two_workers_together_are_the_process_that_was_asked_for(tmp_path: Path, kind: str) -> None:
    rate = 150.0
    asked = ("-u", "30", "-r", "100", "-t", "8s", "--arrivals", kind, "--rate-per-user", "5", "--seed", "4", *SHORT)
    with simulator(tmp_path) as server, headless_swarm(tmp_path, 2, server.url, *asked) as run:
        run.wait()
        assert is_whole(run, server)
        due = times(run.master)
    gaps = [(later - earlier) * rate for earlier, later in itertools.pairwise(due)]
    assert len(gaps) > 600
    clocks = sum(worker["clock_uncertainty_ms"] for worker in run.manifest["workers"]) / 1e3
    assert ks_distance(gaps, kind, blur=clocks * rate) < 1.63 / len(gaps) ** 0.5
    expected, bins = float(kind.partition(":")[2] or 1) ** 2, int((due[-1] - due[0]) / 0.1)
    assert dispersion(due, due[-1] - due[0], 0.1) == pytest.approx(expected, rel=4 * (2 / bins) ** 0.5)
    summary = run.json("summary.json")
    assert summary["concurrency"]["arrivals"] == kind
    assert summary["throughput"]["asked_per_s"] == pytest.approx(rate)


def test_a_slow_server_does_not_slow_the_load_down(tmp_path: Path) -> None:
    """One user, whose replies take half a second, begins twenty tasks a second all the same; the end waits for them."""
    with simulator(tmp_path, "--prefill-base", "500", "--output-tokens", "3") as slow:
        run = headless(tmp_path, slow.url, "-u", "1", "-t", "2s", "--arrivals", "constant", "--rate-per-user", "20")
    rows = run.rows()
    assert {row["status"] for row in rows} == {"ok"}, "the end waits for what is in flight"
    due = times(run)
    assert all(later - earlier == pytest.approx(0.05, abs=1e-5) for earlier, later in itertools.pairwise(due))
    assert 28 <= len(due) <= 36
    assert max(line["in_flight"] for line in run.intervals()) >= 8
    load = run.json("run.json")["load"]
    assert (load["arrivals"], load["rate_per_user"]) == ("constant", 20.0)
    assert "1 users, open loop (constant), 20 tasks/s" in run.output


def test_what_finds_no_place_is_shed_and_has_a_row(tmp_path: Path) -> None:
    with simulator(tmp_path, "--prefill-base", "500", "--output-tokens", "3") as slow:
        options = ("-u", "2", "-r", "10", "-t", "3s", "--arrivals", "constant", "--rate-per-user", "10")
        run = headless(tmp_path, slow.url, *options, "--max-in-flight", "4")
    rows = run.rows()
    counts = Counter(row["status"] for row in rows)
    assert counts.keys() == {"ok", "shed"}
    assert max(line["in_flight"] for line in run.intervals()) == 4
    for row in rows:
        if row["status"] == "shed":
            assert (row["name"], row["user_class"], row["start_time"]) == ("send_next_prompt", "Chat", "")
    due = times(run)
    assert all(later - earlier == pytest.approx(0.05, abs=1e-5) for earlier, later in itertools.pairwise(due))
    assert run.json("run.json")["rows"] == {"written": len(rows), "lost": 0}
    assert int(run.locust_stats()["SHED", "send_next_prompt"]["Request Count"]) == counts["shed"]
    assert run.json("summary.json")["requests"]["unaccounted"] == 0
    assert "of the requests due were sent" in run.output, "the verdict tells"


TASKS = """
class Talker(ChatUser):
    wait_time = constant(0.3)

    @task
    def talk(self):
        first = self.chat("hi", name="first")
        self.wait()
        self.chat("and?", name="second")

    @task
    def leave(self):
        self.chat("hi", name="leaver")
        raise StopUser()

    @task
    def fail(self):
        raise KeyError("a mistake")
"""


@pytest.mark.slow
def test_tasks_think_stop_and_fail_each_for_itself(tmp_path: Path, quick_simulator: Running) -> None:
    options = ("-u", "2", "-r", "10", "-t", "4s", "--arrivals", "constant", "--rate-per-user", "15", *SHORT)
    run = headless(tmp_path, quick_simulator.url, *options, locustfile=written(tmp_path, TASKS), exit_code=1)
    rows = run.rows()
    names = Counter(row["name"] for row in rows)
    assert all(names[name] > 10 for name in ("first", "second", "leaver")), "neither a stop nor a mistake ends a user"
    (exception,) = run.json("run.json")["user_exceptions"]
    assert exception["message"] == "'a mistake'"
    assert exception["count"] > 10
    assert {line["users"] for line in run.intervals()[1:3]} == {2}
    first, second = ([row for row in rows if row["name"] == name] for name in ("first", "second"))
    for row in second:  # due when the task had thought, and so late only by our own turning round
        assert any(
            float(row["intended_time"]) - float(other["end_time"]) == pytest.approx(0.3, abs=2e-3) for other in first
        )


SHRINKING = """
from locust import LoadTestShape

class Slow(ChatUser):
    pass

class Shrinking(LoadTestShape):
    def tick(self):
        seconds = self.get_run_time()
        return (4, 100) if seconds < 2 else (1, 100) if seconds < 5 else None
"""


@pytest.mark.slow
def test_fewer_users_are_a_lower_rate_and_cut_nothing(tmp_path: Path) -> None:
    with simulator(tmp_path, "--prefill-base", "1000", "--output-tokens", "3") as slow:
        options = ("--arrivals", "constant", "--rate-per-user", "10")
        run = headless(tmp_path, slow.url, *options, locustfile=written(tmp_path, SHRINKING))
    assert {row["status"] for row in run.rows()} == {"ok"}
    targets = [b["time"] for b in run.json("run.json")["boundaries"] if b["event"] == "target" and b["users"]]
    due = [float(row["intended_time"]) for row in run.rows()]
    before = sum(targets[1] - 1 <= time < targets[1] for time in due)
    after = sum(targets[1] + 0.5 <= time < targets[1] + 1.5 for time in due)
    assert (before, after) == (pytest.approx(40, abs=2), pytest.approx(10, abs=2))
    assert {row["step"] for row in run.rows()} == {"0", "1"}


QUITTER = """
class Quitter(ChatUser):
    @task
    def ask(self):
        self.chat("hi")
        self.environment.runner.quit()
"""


def test_a_task_may_end_the_run_and_others_end_in_peace(tmp_path: Path) -> None:
    with simulator(tmp_path, "--prefill-base", "700", "--output-tokens", "3") as slow:
        options = ("-u", "2", "-r", "10", "-t", "60s", "--arrivals", "constant", "--rate-per-user", "10")
        run = headless(tmp_path, slow.url, *options, locustfile=written(tmp_path, QUITTER))
    rows = run.rows()
    assert len(rows) > 5
    assert {row["status"] for row in rows} == {"ok"}
    assert run.json("run.json")["rows"] == {"written": len(rows), "lost": 0}


def test_a_second_interrupt_cuts_what_is_open(tmp_path: Path) -> None:
    with simulator(tmp_path, "--prefill-base", "60000") as stuck:
        options = ("--headless", "--host", stuck.url, "-u", "1", "--arrivals", "constant")
        options += ("--rate-per-user", "10", "--no-check")
        with locust(tmp_path, *options) as run:
            run.until(lambda: len(run.intervals()) > 1 and run.intervals()[-1]["in_flight"] > 3)
            run.interrupt()
            run.until(lambda: "Waiting up to" in run.output)
            run.interrupt()
            run.wait(20)
    assert {row["status"] for row in run.rows()} == {"incomplete"}
    assert len(run.rows()) == sum(line["started"] for line in run.intervals())


SETS = """
from locust import TaskSet

class Inner(TaskSet):
    @task
    def ask(self):
        self.user.chat("hi")

class Nested(ChatUser):
    tasks = [Inner]
"""


def test_task_sets_are_refused_before_any_load(tmp_path: Path, quick_simulator: Running) -> None:
    options = ("-u", "1", "-t", "1s", "--arrivals", "poisson")
    run = headless(tmp_path, quick_simulator.url, *options, locustfile=written(tmp_path, SETS), exit_code=2)
    assert "--arrivals poisson: Nested has the task set Inner, which loops by itself" in run.output
    assert not run.run_dir.exists()


def test_a_trace_is_replayed_at_its_times(tmp_path: Path, quick_simulator: Running) -> None:
    entries = [(0.0, "zero"), (0.4, "one"), (0.4, "two"), (2.0, "three")]
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(json.dumps({"timestamp": at, "prompt": text}) + "\n" for at, text in entries))
    options = ("-u", "3", "-r", "10", "-t", "60s", "--arrivals", f"trace:{trace}", "--time-scale", "2", *SHORT)
    run = headless(tmp_path, quick_simulator.url, *options, "--save-responses", exit_code=None)
    asked = {
        line["id"]: line["messages"][-1]["content"]
        for line in map(json.loads, (run.run_dir / "responses.jsonl").read_text().splitlines())
    }
    rows = sorted(run.rows(), key=lambda row: float(row["intended_time"]))
    begin = float(rows[0]["intended_time"])
    assert [float(row["intended_time"]) - begin for row in rows] == pytest.approx([0.0, 0.2, 0.2, 1.0], abs=1e-5)
    assert sorted(asked[row["id"]] for row in rows) == ["one", "three", "two", "zero"]
    assert asked[rows[-1]["id"]] == "three"


def test_think_time_stands_in_for_wait_time(tmp_path: Path, quick_simulator: Running) -> None:
    body = "class Patient(ChatUser):\n    wait_time = constant(60)\n"
    options = ("-u", "2", "-r", "10", "--think-time", "0.2s", *SHORT)
    run = until_rows(tmp_path, quick_simulator.url, 8, *options, locustfile=written(tmp_path, body))
    assert "Patient has a wait_time of its own; --think-time takes its place" in run.output
    assert run.json("run.json")["user_classes"] == [{"name": "Patient", "think_time": True}]
    starts = sorted(float(row["start_time"]) for row in run.rows())
    assert all(third - first >= 0.2 for first, third in zip(starts, starts[2:], strict=False)), "two users, who wait"
