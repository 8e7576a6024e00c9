"""Each scenario in locustfiles/ is started for real, with the smallest load that shows what it is for: in one process,
with forked workers, and with a master and workers."""

from __future__ import annotations

import importlib.machinery
import re
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from locust_process import ROOT, headless
from simulator_process import Running
from swarm_process import headless_swarm, processes

SCENARIOS = sorted((ROOT / "locustfiles").glob("*.py"))
Scenario = Callable[..., list[Any]]


@pytest.fixture
def run_scenario(tmp_path: Path, quick_simulator: Running) -> Scenario:
    """Runs a scenario to its end in each of the ways that Locust has, all at once. The output of a run is all that any
    of its processes said."""

    def run_all(name: str, *more: str) -> list[Any]:
        def run(way: str) -> Any:
            locustfile, folder = ROOT / "locustfiles" / f"{name}.py", tmp_path / way
            folder.mkdir()
            options = ("-u", "4", "-r", "8", "-t", "2s", *more)
            if way == "workers":
                with headless_swarm(folder, 2, quick_simulator.url, *options, locustfile=locustfile) as started:
                    started.wait()
                    return started
            forks = processes(2) if way == "forked" else ()
            return headless(folder, quick_simulator.url, *options, *forks, locustfile=locustfile)

        with ThreadPoolExecutor() as pool:
            return list(pool.map(run, ("alone", "forked", "workers")))

    return run_all


def ok_rows(run: Any) -> list[dict[str, str]]:
    rows = run.rows()
    manifest = run.json("run.json")
    assert manifest["rows"] == {"written": len(rows), "lost": 0}
    assert {worker["status"] for worker in manifest["workers"]} == {"finished"}
    assert manifest["problems"] == []
    assert {row["status"] for row in rows} <= {"ok", "incomplete"}  # a start in the moment of the stop may be cut
    return [row for row in rows if row["status"] == "ok"]


def test_every_scenario_has_a_test() -> None:
    stems = {path.stem for path in SCENARIOS}
    assert stems == {"chat", "conversation", "impatient", "mixed", "poem", "shape", "think_time"}


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_no_scenario_is_named_like_a_module(path: Path) -> None:
    """Locust imports it under its file's name, so that another module of that name would be gone."""
    assert path.stem not in sys.stdlib_module_names
    installed = [entry for entry in sys.path if "site-packages" in entry]
    assert importlib.machinery.PathFinder.find_spec(path.stem, installed) is None


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_says_how_it_is_started(path: Path) -> None:
    assert re.search(rf"^    locust -f locustfiles/{path.name} ", path.read_text(), re.MULTILINE)
    assert "--host http://SERVER:8000" in path.read_text()


def test_chat_sends_the_bundled_prompts(run_scenario: Scenario) -> None:
    for run in run_scenario("chat"):
        rows = ok_rows(run)
        assert {row["user_class"] for row in rows} == {"Chat"}
        assert len({row["input_tokens"] for row in rows}) > 3, "different prompts"


def test_poem_holds_a_conversation_and_hears_our_events(run_scenario: Scenario) -> None:
    for run in run_scenario("poem"):
        rows = {name: [row for row in ok_rows(run) if row["name"] == name] for name in ("poem", "translation")}
        tokens = {name: sum(int(row["output_tokens"]) for row in own) for name, own in rows.items()}
        assert all(tokens.values())
        longest = {name: max(int(row["input_tokens"]) for row in own) for name, own in rows.items()}
        assert longest["translation"] > longest["poem"], "the second turn holds the first"
        told: Counter[str] = Counter()
        for said in re.finditer(r"^(\w+): (\d+) tokens, slowest first token after \d+ ms$", run.output, re.MULTILINE):
            told[said[1]] += int(said[2])
        assert told.keys() == tokens.keys()
        assert all(told[name] >= tokens[name] for name in tokens)


def test_conversation_carries_its_turns_on(run_scenario: Scenario) -> None:
    for run in run_scenario("conversation"):
        rows = ok_rows(run)
        turns = {(row["conversation"], row["turn"]) for row in rows}
        assert len(turns) == len(rows), "no two workers call their conversations the same"
        assert {"1", "2"} <= {turn for _, turn in turns}


def test_think_time_pauses_between_questions(run_scenario: Scenario) -> None:
    for run in run_scenario("think_time"):
        classes = [row["user_class"] for row in ok_rows(run)]
        assert classes.count("Reader") == 3, "each asked once and then reads for longer than this run lasts"
        assert classes.count("Impatient") >= 1
        assert all(user["think_time"] for user in run.json("run.json")["user_classes"])


def test_mixed_sends_short_and_long_prompts(run_scenario: Scenario) -> None:
    for run in run_scenario("mixed", "-u", "5"):
        rows = {name: [row for row in ok_rows(run) if row["user_class"] == name] for name in ("Chat", "Rag")}
        assert all(int(row["input_tokens"]) >= 1000 == int(row["prefix_tokens"]) + 500 for row in rows["Rag"])
        assert all(row["asked_input_tokens"] == row["prefix_tokens"] == "" for row in rows["Chat"])
        assert {len({row["asked_output_tokens"] for row in own}) > 1 for own in rows.values()} == {True}
        options = {user["name"]: user["options"] for user in run.json("run.json")["user_classes"]}
        assert options["Chat"] == {"output_tokens": "normal:200,50"}
        assert {group["value"] for group in run.json("summary.json")["groups"]["user_class"]} == {"Chat", "Rag"}


def test_shape_ramps_up_and_spikes_and_ends_the_run(run_scenario: Scenario) -> None:
    for run in run_scenario("shape", "-t", "4s"):
        assert ok_rows(run)
        moments = run.json("run.json")["boundaries"]
        assert [moment["users"] for moment in moments if moment["event"] == "spawned"] == [4, 12, 4]
        assert {row["step"] for row in run.rows()} == {"0", "1", "2"}


def test_impatient_has_skimmers_who_leave_and_readers_who_stay(run_scenario: Scenario) -> None:
    for run in run_scenario("impatient"):
        ended = Counter((row["user_class"], row["status"]) for row in run.rows() if row["status"] != "incomplete")
        assert ended["Skimmer", "cancelled"] > ended["Skimmer", "ok"], "few replies are shorter than that"
        assert ended["Reader", "ok"] and not ended["Reader", "cancelled"]
        assert {row["chunks"] for row in run.rows() if row["status"] == "cancelled"} == {"10"}
