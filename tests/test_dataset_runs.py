"""Runs with --dataset: what the server is asked, in one process and by workers, and what the rows say."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from locust_process import LocustProcess, headless, until_rows
from simulator_process import Running
from swarm_process import headless_swarm

from tokenswarm.workload.dataset import Contents, Dataset

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "first"},
    {"role": "assistant", "content": "from the file"},
    {"role": "user", "content": "second"},
    {"role": "assistant", "content": "never sent"},
    {"role": "user", "content": "third"},
]


def written(folder: Path, *lines: Any) -> str:
    path = folder / "dataset.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)


def sent(run_dir: Path) -> dict[str, dict[str, Any]]:
    """By the request's id: its messages and its reply."""
    return {line["id"]: line for line in map(json.loads, (run_dir / "responses.jsonl").read_text().splitlines())}


def conversations(run: LocustProcess) -> list[list[dict[str, str]]]:
    """The rows of each whole one, in their order."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in run.rows():
        found.setdefault(row["conversation"], []).append(row)
    return [rows for rows in found.values() if len(rows) == 3 and all(row["status"] == "ok" for row in rows)]


def test_a_table_is_asked_in_the_order_that_the_seed_says(tmp_path: Path, quick_simulator: Running) -> None:
    path = tmp_path / "questions.csv"
    path.write_text("prompt,Frage\n" + "".join(f'no,"{number}\nzwei"\n' for number in range(200)))
    options = ("--dataset", str(path), "--dataset-column", "Frage", "--dataset-order", "shuffled", "--seed", "3")
    run = until_rows(tmp_path, quick_simulator.url, 8, "-u", "1", "--save-responses", "--output-tokens", "3", *options)
    messages = sent(run.run_dir)
    asked = [messages[row["id"]]["messages"][0]["content"] for row in run.rows()]
    source = Dataset(Contents(str(path), column="Frage", order="shuffled"), worker=0, seed=3, tell=print)
    assert asked == [source.next().messages[0]["content"] for _ in asked]
    assert asked != sorted(asked)


@pytest.mark.parametrize("replies", ["server", "file"])
def test_a_conversation_is_held_turn_by_turn(tmp_path: Path, quick_simulator: Running, replies: str) -> None:
    path = written(tmp_path, TALK)
    options = ("-u", "2", "--save-responses", "--output-tokens", "5", "--dataset-replies", replies, "--dataset", path)
    run = until_rows(tmp_path, quick_simulator.url, 20, *options)
    messages = sent(run.run_dir)
    held = conversations(run)
    assert held
    for rows in held:
        assert [row["turn"] for row in rows] == ["1", "2", "3"]
        assert rows[0]["conversation"].startswith("1-"), "the line it is from"
        asked = [[f"{m['role'][0]}:{m['content']}" for m in messages[row["id"]]["messages"]] for row in rows]
        answers = [messages[row["id"]]["text"] for row in rows]
        if replies == "file":
            answers[:2] = ["from the file", "never sent"]
        assert asked[0] == ["s:Be kind.", "u:first"]
        assert asked[1] == [*asked[0], f"a:{answers[0]}", "u:second"]
        assert asked[2] == [*asked[1], f"a:{answers[1]}", "u:third"]
    assert run.json("run.json")["options"]["dataset"] == path


def test_a_failed_turn_ends_its_conversation(tmp_path: Path, quick_simulator: Running) -> None:
    locustfile = tmp_path / "failing.py"
    locustfile.write_text(
        "from locust import task\nfrom tokenswarm.users import ChatUser\n\n"
        "class Stubborn(ChatUser):\n    @task\n    def ask(self):\n"
        "        self.hold(self.next_prompt(), extra_body={'simulator': {'fault': 'status', 'status': 500}})\n"
        "        self.environment.runner.quit()\n"
    )
    path = written(tmp_path, TALK)
    run = headless(tmp_path, quick_simulator.url, "-u", "1", "--dataset", path, locustfile=locustfile, exit_code=1)
    assert [(row["turn"], row["error_class"]) for row in run.rows()] == [("1", "http_5xx")]


def test_think_time_is_between_the_turns_and_the_stop_ends_a_conversation(
    tmp_path: Path, quick_simulator: Running
) -> None:
    locustfile = tmp_path / "thinking.py"
    locustfile.write_text(
        "from locust import constant\nfrom tokenswarm.users import ChatUser\n\n"
        "class Thinker(ChatUser):\n    wait_time = constant(0.4)\n"
    )
    path = written(tmp_path, [f"question {number}" for number in range(1000)])
    run = until_rows(tmp_path, quick_simulator.url, 4, "-u", "1", "--dataset", path, locustfile=locustfile)
    rows = run.rows()
    assert {row["status"] for row in rows} == {"ok"}, "what is in flight ends, and no further turn begins"
    pauses = [float(b["intended_time"]) - float(a["end_time"]) for a, b in itertools.pairwise(rows)]
    assert min(pauses) == pytest.approx(0.4, abs=0.01), "what a busy machine adds is the user's own time"


@pytest.mark.slow
def test_two_workers_ask_each_line_once(tmp_path: Path, quick_simulator: Running) -> None:
    lines = [f"question {number}" for number in range(5000)]
    path = written(tmp_path, *lines[:100], "{bad", *lines[100:])
    options = ("-u", "4", "-r", "4", "--save-responses", "--output-tokens", "3", "--dataset", path)
    with headless_swarm(tmp_path, 2, quick_simulator.url, *options) as run:
        run.until(lambda: run.all_at_work(2) and min(map(len, run.rows_by_worker().values())) > 100)
        run.master.interrupt()
        run.wait()
    worker = {row["id"]: int(row["worker"]) for row in run.rows()}
    asked: dict[int, Counter[str]] = {0: Counter(), 1: Counter()}
    for name, line in sent(run.run_dir).items():
        asked[worker[name]][line["messages"][0]["content"]] += 1
    everything = asked[0] + asked[1]
    assert set(everything.values()) == {1}, "nobody asked what another asked"
    in_file = [*lines[:100], "{bad", *lines[100:]]
    for rank in (0, 1):
        own = [line for line in in_file[rank::2] if line != "{bad"]
        assert set(asked[rank]) == set(own[: len(asked[rank])]), "each its own, in the file's order"
    (problem,) = run.manifest["problems"]
    assert "left out: 1. dataset.jsonl, line 101: not JSON" in problem
    assert problem in (run.run_dir / "report.html").read_text().replace("&#x27;", "'")


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_fail_ends_the_run_at_the_first_bad_line(tmp_path: Path, quick_simulator: Running, workers: int) -> None:
    path = written(tmp_path, *["hello"] * 20, '{"prompt": 7}', *["hello"] * 20)
    options = ("-u", "2", "-r", "2", "-t", "60s", "--dataset", path, "--dataset-errors", "fail")
    if workers:
        with headless_swarm(tmp_path, workers, quick_simulator.url, *options) as run:
            run.wait(exit_code=2)
        manifest, rows = run.manifest, run.rows()
    else:
        alone = headless(tmp_path, quick_simulator.url, *options, exit_code=2)
        manifest, rows = alone.json("run.json"), alone.rows()
    assert "The load ends here. --dataset dataset.jsonl, line 21: neither a text nor a list" in manifest["problems"][0]
    assert len(manifest["problems"]) == 1
    assert {row["status"] for row in rows} == {"ok"}
    assert manifest["end"]["time"] - manifest["start"]["time"] < 50


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jsonl", "{}\n", "line 1: none of messages"),
        ("a.jsonl", "", "It is empty"),
        ("a.csv", "a,b\n1,2\n", "but 'a', 'b'; --dataset-column NAME"),
        ("a.parquet", "PAR1", ".parquet files are not read"),
    ],
)
def test_a_dataset_that_cannot_be_used_is_refused(
    tmp_path: Path, quick_simulator: Running, name: str, content: str, complaint: str
) -> None:
    (tmp_path / name).write_text(content)
    run = headless(tmp_path, quick_simulator.url, "-u", "1", "-t", "2s", "--dataset", name, exit_code=2)
    assert complaint in run.output
    assert not (run.run_dir / "requests.csv").exists() or not run.rows()


def test_no_such_file_is_refused_with_the_other_options(tmp_path: Path) -> None:
    options = ("--seed", "x", "--dataset-order", "sampled", "--dataset-once")
    run = headless(tmp_path, "http://127.0.0.1:9", "-u", "1", "--dataset", "none", *options, exit_code=2)
    assert "--dataset 'none': no such file" in run.output
    assert "--seed" in run.output
    assert "--dataset-once with --dataset-order sampled: what is drawn anew is not asked once" in run.output


def test_a_column_of_no_file_is_refused(tmp_path: Path) -> None:
    options = ("--dataset-column", "x", "--dataset-order", "backwards")
    run = headless(tmp_path, "http://127.0.0.1:9", "-u", "1", *options, exit_code=2)
    assert "--dataset-column says where in a --dataset FILE the prompts are: name the file too" in run.output
    assert "--dataset-order 'backwards': must be one of sequential, shuffled, sampled" in run.output
