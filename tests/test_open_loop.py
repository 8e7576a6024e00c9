"""The open loop in real runs: what is sent when, what is shed, how tasks end, and how a run does."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from arrival_statistics import dispersion, ks_distance
from locust_process import headless, locust, read_rows, until_rows
from simulator_process import Running, simulator
from swarm_process import all_hold, each_served_request_has_one_row, headless_swarm
from test_odd_users import written

SHORT = ("--output-tokens", "3")


def gaps_after(run_dir: Path, event: str, which: int = 0, until: str = "stopping") -> list[float]:
    """Seconds between the instants at which requests were due, from 0.3 s after a boundary on: then all know of it."""
    boundaries = json.loads((run_dir / "run.json").read_text())["boundaries"]
    begin = [boundary["time"] for boundary in boundaries if boundary["event"] == event][which] + 0.3
    end = min(boundary["time"] for boundary in boundaries if boundary["event"] == until and boundary["time"] > begin)
    due = sorted(float(row["intended_time"]) for row in read_rows(run_dir))
    return [later - earlier for earlier, later in itertools.pairwise(time for time in due if begin <= time < end)]


def two_workers_together_are(kind: str, folder: Path) -> None:
    rate, rows = 150.0, 1200
    load = ("-u", "30", "-r", "100", "--arrivals", kind, "--rate-per-user", "5", "--seed", "4", *SHORT)
    asked = (*load, "--max-in-flight", "20")  # what a busy machine cannot send was due all the same
    with simulator(folder) as server, headless_swarm(folder, 2, server.url, *asked) as run:
        run.until(lambda: run.started() and len(run.rows()) > rows)
        run.master.interrupt()
        run.wait()
        assert each_served_request_has_one_row(server, run.run_dir)
    gaps = [gap * rate for gap in gaps_after(run.run_dir, "spawned")]
    assert len(gaps) > rows / 2
    clocks = sum(worker["clock_uncertainty_ms"] for worker in run.manifest["workers"]) / 1e3
    assert ks_distance(gaps, kind, blur=clocks * rate) < 1.63 / len(gaps) ** 0.5
    times = [*itertools.accumulate(gaps, initial=0.0)]
    expected, bins = float(kind.partition(":")[2] or 1) ** 2, int(times[-1] / 15)
    assert dispersion(times, times[-1], 15) == pytest.approx(expected, rel=4 * (2 / bins) ** 0.5)
    assert run.json("summary.json")["concurrency"]["arrivals"] == kind


def poisson_when_that_is_asked(folder: Path) -> None:
    two_workers_together_are("poisson", folder)


def bursty_when_that_is_asked(folder: Path) -> None:
    two_workers_together_are("gamma:2", folder)


LINGERING = """
class Lingering(ChatUser):
    def on_stop(self):
        gevent.sleep(1)
"""


def even_when_a_third_joins_them(folder: Path) -> None:
    """It takes over some of their users, and is told of their shares while those have yet to leave."""
    load = ("-u", "12", "-r", "100", "--arrivals", "constant", "--rate-per-user", "5", *SHORT)
    lingering = written(folder, LINGERING)
    with simulator(folder) as server, headless_swarm(folder, 2, server.url, *load, locustfile=lingering) as run:
        run.until(lambda: run.started() and len(run.rows()) > 60)
        run.join()
        run.until(lambda: sum(row["worker"] == "2" for row in run.rows()) > 120)
        run.master.interrupt()
        run.wait()
        assert each_served_request_has_one_row(server, run.run_dir)
    stopping = next(mark["time"] for mark in run.manifest["boundaries"] if mark["event"] == "stopping")
    due = sorted(at for row in run.rows() if (at := float(row["intended_time"])) < stopping)[-60:]
    gaps = [later - earlier for earlier, later in itertools.pairwise(due)]
    clocks = sum(worker["clock_uncertainty_ms"] for worker in run.manifest["workers"]) / 1e3
    assert gaps == pytest.approx([1 / 60] * len(gaps), abs=1e-4 + clocks)


def test_workers_together_are_the_process_that_was_asked_for(tmp_path: Path) -> None:
    all_hold(tmp_path, poisson_when_that_is_asked, bursty_when_that_is_asked, even_when_a_third_joins_them)


def a_slow_server_does_not_slow_the_load_down(folder: Path) -> None:
    """One user, whose replies take half a second, begins twenty tasks a second all the same; the end waits for them."""
    with simulator(folder, "--prefill-base", "500", "--output-tokens", "3") as slow:
        options = ("-u", "1", "--arrivals", "constant", "--rate-per-user", "20")
        run = until_rows(folder, slow.url, 40, *options)
    rows = run.rows()
    assert {row["status"] for row in rows} == {"ok"}, "the end waits for what is in flight"
    gaps = gaps_after(run.run_dir, "spawned")
    assert gaps == pytest.approx([0.05] * len(gaps), abs=1e-5)
    assert len(gaps) > 20
    assert max(line["in_flight"] for line in run.intervals()) >= 8
    load = run.json("run.json")["load"]
    assert (load["arrivals"], load["rate_per_user"]) == ("constant", 20.0)
    assert "1 users, open loop (constant), 20 tasks/s" in run.output


def what_finds_no_place_is_shed_and_has_a_row(folder: Path) -> None:
    with simulator(folder, "--prefill-base", "500", "--output-tokens", "3") as slow:
        options = ("-u", "2", "-r", "10", "--arrivals", "constant", "--rate-per-user", "10")
        run = until_rows(folder, slow.url, 60, *options, "--max-in-flight", "4")
    rows = run.rows()
    counts = Counter(row["status"] for row in rows)
    assert counts.keys() == {"ok", "shed"}
    assert max(line["in_flight"] for line in run.intervals()) == 4
    for row in rows:
        if row["status"] == "shed":
            assert (row["name"], row["user_class"], row["start_time"]) == ("send_next_prompt", "Chat", "")
    gaps = gaps_after(run.run_dir, "spawned")
    assert gaps == pytest.approx([0.05] * len(gaps), abs=1e-5)
    assert len(gaps) > 20
    assert run.json("run.json")["rows"] == {"written": len(rows), "lost": 0}
    assert int(run.locust_stats()["SHED", "send_next_prompt"]["Request Count"]) == counts["shed"]
    assert run.json("summary.json")["requests"]["unaccounted"] == 0
    assert "of the requests due were sent" in run.output, "the verdict tells"


TASKS = """
class Talker(ChatUser):
    wait_time = constant(0.3)

    @task
    def talk(self):
        talk = self.conversation()
        talk.say("hi", name="first")
        self.wait()
        talk.say("and?", name="second")

    @task
    def leave(self):
        self.chat("hi", name="leaver")
        raise StopUser()

    @task
    def fail(self):
        raise KeyError("a mistake")
"""


def tasks_think_stop_and_fail_each_for_itself(folder: Path) -> None:
    options = ("-u", "2", "-r", "10", "--arrivals", "constant", "--rate-per-user", "15", *SHORT)
    with simulator(folder) as server:
        run = until_rows(folder, server.url, 120, *options, locustfile=written(folder, TASKS))
    rows = run.rows()
    assert {row["status"] for row in rows} == {"ok"}
    names = Counter(row["name"] for row in rows)
    assert all(names[name] > 10 for name in ("first", "second", "leaver")), "neither a stop nor a mistake ends a user"
    (exception,) = run.json("run.json")["user_exceptions"]
    assert exception["message"] == "'a mistake'"
    assert exception["count"] > 10
    assert {line["users"] for line in run.intervals()[1:3]} == {2}
    ends = {row["conversation"]: float(row["end_time"]) for row in rows if row["name"] == "first"}
    waits = [float(row["intended_time"]) - ends[row["conversation"]] for row in rows if row["name"] == "second"]
    assert min(waits) == pytest.approx(0.3, abs=0.02), "due when its task had thought"
    assert min(waits) >= 0.3 - 1e-5


SHRINKING = """
from locust import LoadTestShape

class Slow(ChatUser):
    pass

class Shrinking(LoadTestShape):
    there = None

    def tick(self):
        if self.there is None and self.get_current_user_count() == 4:
            self.there = self.get_run_time()
        since = 0 if self.there is None else self.get_run_time() - self.there
        return (4, 100) if since < 2 else (1, 100) if since < 5 else None
"""


def fewer_users_are_a_lower_rate_and_cut_nothing(folder: Path) -> None:
    with simulator(folder, "--prefill-base", "1000", "--output-tokens", "3") as slow:
        options = ("--arrivals", "constant", "--rate-per-user", "10")
        run = headless(folder, slow.url, *options, locustfile=written(folder, SHRINKING))
    assert {row["status"] for row in run.rows()} == {"ok"}
    many, one = gaps_after(run.run_dir, "spawned", 0, "target"), gaps_after(run.run_dir, "spawned", 1)
    assert many == pytest.approx([0.025] * len(many), abs=1e-5)
    assert one == pytest.approx([0.1] * len(one), abs=1e-5)
    assert min(len(many), len(one)) > 10
    assert {row["step"] for row in run.rows()} == {"0", "1"}


QUITTER = """
class Quitter(ChatUser):
    @task
    def ask(self):
        self.chat("hi")
        self.environment.runner.quit()
"""


def a_task_may_end_the_run_and_others_end_in_peace(folder: Path) -> None:
    with simulator(folder, "--prefill-base", "700", "--output-tokens", "3") as slow:
        options = ("-u", "2", "-r", "10", "--arrivals", "constant", "--rate-per-user", "10")
        run = headless(folder, slow.url, *options, locustfile=written(folder, QUITTER))
    rows = run.rows()
    assert len(rows) > 5
    assert {row["status"] for row in rows} == {"ok"}
    assert run.json("run.json")["rows"] == {"written": len(rows), "lost": 0}


def a_second_interrupt_cuts_what_is_open(folder: Path) -> None:
    with simulator(folder, "--prefill-base", "60000") as stuck:
        load = ("-u", "1", "--arrivals", "constant", "--rate-per-user", "10", "--no-check", "--stop-timeout", "600")
        with locust(folder, "--headless", "--host", stuck.url, *load) as run:
            run.until(lambda: len(run.intervals()) > 1 and run.intervals()[-1]["in_flight"] > 3)
            run.interrupt()
            run.until(lambda: "Waiting up to" in run.output)
            run.interrupt()
            run.wait()
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


def a_trace_is_replayed_at_its_times(folder: Path) -> None:
    entries = [(0.0, "zero"), (0.4, "one"), (0.4, "two"), (2.0, "three")]
    trace = folder / "trace.jsonl"
    lines = [json.dumps({"timestamp": at, "prompt": text}) for at, text in entries]
    trace.write_text("\n".join((*lines[:2], "no entry", *lines[2:])))
    options = ("-u", "3", "-r", "10", "-t", "60s", "--arrivals", f"trace:{trace}", "--time-scale", "2", *SHORT)
    with simulator(folder) as server:
        run = headless(folder, server.url, *options, "--save-responses", "--system-prompt", "Be brief.")
    assert run.json("run.json")["ended_by"] == "trace"
    asked = {
        line["id"]: [message["content"] for message in line["messages"]]
        for line in map(json.loads, (run.run_dir / "responses.jsonl").read_text().splitlines())
    }
    rows = sorted(run.rows(), key=lambda row: float(row["intended_time"]))
    begin = float(rows[0]["intended_time"])
    assert [float(row["intended_time"]) - begin for row in rows] == pytest.approx([0.0, 0.2, 0.2, 1.0], abs=1e-5)
    assert sorted(asked[row["id"]] for row in rows) == [["Be brief.", text] for text in ("one", "three", "two", "zero")]
    assert asked[rows[-1]["id"]] == ["Be brief.", "three"]
    (left_out,) = run.json("run.json")["problems"]
    assert "Bad lines of the trace that were left out: 1. trace.jsonl, line 3" in left_out


GREETING = """
class Greeter(ChatUser):
    def on_start(self):
        self.chat("hello", name="greeting")

    @task
    def ask(self):
        aside = gevent.spawn(self.chat, "by the way", name="aside")
        self.hold(self.next_prompt(), name="asked")
        aside.join()
"""


def what_users_ask_beside_their_tasks_does_not_keep_the_run_from_its_end(folder: Path) -> None:
    dataset = folder / "prompts.txt"
    dataset.write_text("".join(f"prompt {number}\n" for number in range(20)))
    options = ("-u", "2", "-r", "10", "-t", "60s", "--arrivals", "constant", "--rate-per-user", "10", *SHORT)
    once = ("--dataset", str(dataset), "--dataset-once")
    with simulator(folder) as server:
        run = headless(folder, server.url, *options, *once, locustfile=written(folder, GREETING))
    assert run.json("run.json")["ended_by"] == "dataset"
    names = Counter(row["name"] for row in run.rows())
    assert (names["greeting"], names["asked"]) == (2, 20)
    assert names["aside"] > 10


def think_time_stands_in_for_wait_time(folder: Path) -> None:
    body = "class Patient(ChatUser):\n    wait_time = constant(60)\n"
    options = ("-u", "2", "-r", "10", "--think-time", "0.2s", *SHORT)
    with simulator(folder) as server:
        run = until_rows(folder, server.url, 8, *options, locustfile=written(folder, body))
    assert "Patient has a wait_time of its own; --think-time takes its place" in run.output
    (patient,) = run.json("run.json")["user_classes"]
    assert (patient["name"], patient["think_time"]) == ("Patient", True)
    starts = sorted(float(row["start_time"]) for row in run.rows())
    assert all(third - first >= 0.2 for first, third in zip(starts, starts[2:], strict=False)), "two users, who wait"


def test_the_load_waits_for_nobody(tmp_path: Path) -> None:
    all_hold(
        tmp_path,
        a_slow_server_does_not_slow_the_load_down,
        what_finds_no_place_is_shed_and_has_a_row,
        tasks_think_stop_and_fail_each_for_itself,
        fewer_users_are_a_lower_rate_and_cut_nothing,
    )


def test_how_tasks_and_runs_end_and_what_they_send(tmp_path: Path) -> None:
    all_hold(
        tmp_path,
        a_task_may_end_the_run_and_others_end_in_peace,
        a_second_interrupt_cuts_what_is_open,
        a_trace_is_replayed_at_its_times,
        what_users_ask_beside_their_tasks_does_not_keep_the_run_from_its_end,
        think_time_stands_in_for_wait_time,
    )


def test_workers_share_a_trace_and_miss_nothing_of_it(tmp_path: Path) -> None:
    """Lengths only, so that texts are made up; the last entries of both are due when their traces are through."""
    trace = tmp_path / "trace.csv"
    lengths = range(20, 60)
    lines = (f"{number / 40},{tokens},5" for number, tokens in enumerate(lengths))
    trace.write_text("\n".join(("Timestamp,Request tokens,Response tokens", *lines)) + "\n")
    options = ("-u", "4", "-r", "100", "--arrivals", f"trace:{trace}")
    with simulator(tmp_path) as server, headless_swarm(tmp_path, 2, server.url, *options) as run:
        run.wait()
        assert each_served_request_has_one_row(server, run.run_dir)
    rows = sorted(run.rows(), key=lambda row: float(row["intended_time"]))
    assert [int(row["asked_input_tokens"]) for row in rows] == [*lengths]
    assert {row["output_tokens"] for row in rows} == {"5"}
    assert [row["worker"] for row in rows][:4] in (["0", "1"] * 2, ["1", "0"] * 2)
    assert run.manifest["ended_by"] == "trace"
