"""Runs with made-up prompts, prefixes and classes with options of their own: what the server is asked, and what is said
of it in rows and results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from locust_process import LocustProcess, headless, until_rows
from simulator_process import Running, simulator
from swarm_process import headless_swarm
from tokenizers_made import tokenizer_json

from tokenswarm.workload.tokenizer import load

TWO_CLASSES = """
from tokenswarm.users import ChatUser

class Chat(ChatUser):
    options = {"output_tokens": "uniform:200-400"}

class Rag(ChatUser):
    weight = 2  # else Locust gives one class to each of two workers
    options = {"input_tokens": "uniform:300-400", "output_tokens": "uniform:3-9", "ignore_eos": True}
"""


@pytest.fixture(scope="module")
def caching_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with simulator(
        tmp_path_factory.mktemp("caching"), "--output-tokens", "20", "--prefix-cache", "10000000"
    ) as running:
        yield running


def sent(run_dir: Path) -> dict[str, list[dict[str, str]]]:
    """The messages of each request, by its id."""
    lines = map(json.loads, (run_dir / "responses.jsonl").read_text().splitlines())
    return {line["id"]: line["messages"] for line in lines}


def ok(run: Any) -> list[dict[str, str]]:
    rows = run.rows()
    assert {row["status"] for row in rows} <= {"ok", "incomplete"}
    return [row for row in rows if row["status"] == "ok"]


def test_prompts_prefixes_and_replies_are_as_long_as_was_asked(tmp_path: Path, caching_server: Running) -> None:
    tokenizer_json("split_bpe", tmp_path)
    lengths = ("--input-tokens", "70% uniform:100-200, 30% 500", "--output-tokens", "uniform:5-30", "--ignore-eos")
    prefixes = ("--shared-prefix-tokens", "400", "--prefix-pool", "2:60%")
    recorded = ("--tokenizer", str(tmp_path), "--save-responses")
    run = until_rows(tmp_path, caching_server.url, 300, "-u", "8", "-r", "8", *lengths, *prefixes, *recorded)
    tokenizer = load(str(tmp_path))
    messages = sent(run.run_dir)
    rows = ok(run)
    for row in rows:
        system, user = (tokenizer.count(message["content"]) for message in messages[row["id"]])
        assert system == 400
        assert user == 500 or 100 <= user <= 200
        assert int(row["asked_input_tokens"]) == system + user
        assert row["output_tokens"] == row["asked_output_tokens"]
    shared = [row for row in rows if row["prefix_tokens"] == "400"]
    assert len({messages[row["id"]][0]["content"] for row in shared}) == 2
    assert len({messages[row["id"]][0]["content"] for row in rows}) == 2 + len(rows) - len(shared)
    assert len({row["asked_output_tokens"] for row in rows}) > 20
    assert {int(row["cached_tokens"]) == 0 for row in rows if row["prefix_tokens"] == "0"} == {True}
    assert sum(int(row["cached_tokens"]) > 0 for row in shared) >= len(shared) - 2, "all but the first of each"
    tokens = run.json("summary.json")["tokens"]
    assert tokens["prompts"]["estimated"] is False
    assert tokens["prefixes"]["cached_share"] > 0.2
    assert "tokens meant on average (by --tokenizer)" in run.output
    assert "of the input tokens were meant to be in common with other prompts" in run.output


@pytest.mark.slow
def test_unique_prompts_find_no_cache_where_the_same_seed_finds_its_own(
    tmp_path: Path, caching_server: Running
) -> None:
    def cached(name: str, *options: str) -> list[int]:
        folder = tmp_path / name
        folder.mkdir()
        made = ("-u", "4", "-r", "4", "--input-tokens", "300", "--output-tokens", "2", *options)
        run = until_rows(folder, caching_server.url, 40, *made)
        assert "(an estimate, without --tokenizer)" in run.output
        return [int(row["cached_tokens"]) for row in ok(run)][:30]

    assert set(cached("first", "--seed", "5")) == {0}
    with ThreadPoolExecutor() as pool:
        again = pool.submit(cached, "again", "--seed", "5")
        unique = [pool.submit(cached, name, "--seed", "5", "--unique-prompts") for name in ("one", "another")]
    assert min(again.result()) > 250, "the same prompts as before"
    assert [set(run.result()) for run in unique] == [{0}, {0}]


@pytest.mark.slow
def test_each_class_has_its_own_traffic_and_no_two_workers_the_same(tmp_path: Path, quick_simulator: Running) -> None:
    locustfile = tmp_path / "two_classes.py"
    locustfile.write_text(TWO_CLASSES)

    def enough() -> bool:
        """Of Chat, and of Rag from both workers."""
        kinds = Counter((row["user_class"], row["worker"]) for row in run.rows()) if run.started() else Counter()
        chat = sum(count for (name, _), count in kinds.items() if name == "Chat")
        return min(kinds["Rag", "0"], kinds["Rag", "1"], chat) >= 10

    options = ("-u", "8", "-r", "8", "--save-responses")
    with headless_swarm(tmp_path, 2, quick_simulator.url, *options, locustfile=locustfile) as run:
        run.until(enough)
        run.master.interrupt()
        run.wait()
    messages = sent(run.run_dir)
    rows = ok(run)
    rag = [row for row in rows if row["user_class"] == "Rag"]
    assert {row["worker"] for row in rag} == {"0", "1"}
    texts = [messages[row["id"]][-1]["content"] for row in rag]
    assert len(set(texts)) == len(texts)
    assert all(300 <= int(row["asked_input_tokens"]) <= 400 for row in rag)
    assert all(row["output_tokens"] == row["asked_output_tokens"] for row in rag)
    chat = [row for row in rows if row["user_class"] == "Chat"]
    assert all(row["asked_input_tokens"] == "" and 200 <= int(row["asked_output_tokens"]) <= 400 for row in chat)
    own = {user["name"]: user["options"] for user in run.manifest["user_classes"]}
    assert own["Rag"] == {"input_tokens": "uniform:300-400", "output_tokens": "uniform:3-9", "ignore_eos": True}
    reasons = {reason["rule"] for reason in run.json("summary.json")["verdict"]["reasons"]}
    assert "early_stops" in reasons, "of Chat, whose length is a mere limit"
    assert "short_outputs" not in reasons, "Rag's are as long as asked"
    assert "of the answers ended before half of the allowed length" in run.master.output


def test_replies_without_usage_are_counted_by_the_tokenizer(tmp_path: Path, quick_simulator: Running) -> None:
    tokenizer_json("byte_level_bpe", tmp_path)
    silent = ("--extra-body", '{"simulator": {"fault": "zero-usage"}}')
    given = ("--tokenizer", "tokenizer.json", "--save-responses", "-u", "2", "-r", "2")
    run = until_rows(tmp_path, quick_simulator.url, 20, *given, *silent)
    tokenizer = load(str(tmp_path))
    said = {line["id"]: line["text"] for line in map(json.loads, (run.run_dir / "responses.jsonl").open())}
    for row in ok(run):
        assert row["token_source"] == "tokenizer"
        assert int(row["output_tokens"]) == tokenizer.count(said[row["id"]]) > 0
    assert run.json("summary.json")["tokens"]["estimated"] is False


def refused(folder: Path, host: str, *options: str, **settings: Any) -> LocustProcess:
    return headless(folder, host, "-u", "1", "-t", "2s", *options, exit_code=2, **settings)


def test_what_no_prompt_can_have_is_refused_before_the_load(tmp_path: Path, quick_simulator: Running) -> None:
    tokenizer_json("split_bpe", tmp_path)
    given = ("--tokenizer", "tokenizer.json", "--input-tokens", "uniform:2-100", "--unique-prompts")
    run = refused(tmp_path, quick_simulator.url, *given)
    assert "--tokenizer: no text of exactly 2 tokens was found that begins with" in run.output


def test_what_is_wrong_with_a_class_is_refused_before_the_load(tmp_path: Path, quick_simulator: Running) -> None:
    locustfile = tmp_path / "wrong.py"
    locustfile.write_text(TWO_CLASSES.replace("uniform:300-400", "uniform:400-300"))
    run = refused(tmp_path, quick_simulator.url, locustfile=locustfile)
    assert "Rag.options: --input-tokens 'uniform:400-300': uniform: 400-300 begins above its end" in run.output
    assert not run.run_dir.exists()
