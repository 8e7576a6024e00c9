"""What was asked against what came, from the rows of a run: lengths of prompts and replies, and shares of the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import run_directory_maker as maker

from tokenswarm.results import console, phases, read, summarise
from tokenswarm.results.report import load
from tokenswarm.results.report.material import Material

RAMP = (10, 2, 60, 60)
Change = Callable[[maker.Record, int], None]


def summary(folder: Path, change: Change, **run: Any) -> dict[str, Any]:
    maker.write(folder, maker.closed_loop(change=change), maker.boundaries(*RAMP), **run)
    return summarise.summarise(read.load(folder))


def rules(found: dict[str, Any]) -> dict[str, str]:
    return {reason["rule"]: reason["level"] for reason in found["verdict"]["reasons"]}


def class_of(name: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "think_time": False, "options": options}


def test_each_reply_is_compared_with_what_was_asked_of_it(tmp_path: Path) -> None:
    """Of a distribution most are longer than the shortest and shorter than the longest, and none is short for that."""

    def change(record: maker.Record, index: int) -> None:
        record.asked_output_tokens = record.output_tokens = record.chunks = 10 + index % 90

    assert rules(summary(tmp_path / "as asked", change, options={"ignore_eos": True})) == {}

    def halved(record: maker.Record, index: int) -> None:
        change(record, index)
        if index % 5 == 0:
            record.output_tokens = record.chunks = (record.asked_output_tokens or 0) * 2 // 5

    found = summary(tmp_path / "halved", halved, options={"ignore_eos": True})
    assert rules(found) == {"short_outputs": "invalid"}
    assert "less than half as long as asked, though ignore_eos was asked for" in " ".join(console.table(found).split())


def test_a_class_that_has_ignore_eos_is_held_to_it_and_the_others_are_not(tmp_path: Path) -> None:
    def change(record: maker.Record, index: int) -> None:
        record.user_class = "Rag" if index % 2 else "Chat"
        record.asked_output_tokens = record.output_tokens if index % 2 else 500

    def shares(name: str, options: dict[str, Any], *classes: dict[str, Any]) -> dict[str, float]:
        found = summary(tmp_path / name, change, options=options, user_classes=classes)
        return {reason["rule"]: reason["value"] for reason in found["verdict"]["reasons"]}

    assert shares("one", {}, class_of("Chat"), class_of("Rag", ignore_eos=True)) == {"early_stops": 1.0}
    classes = class_of("Chat", ignore_eos=True), class_of("Rag", ignore_eos=False)
    assert shares("other", {}, *classes) == {"short_outputs": 1.0}
    assert shares("all", {"ignore_eos": True}, class_of("Chat"), class_of("Rag")) == {"short_outputs": 0.5}


@pytest.mark.parametrize(
    ("options", "own", "estimated"),
    [
        ({}, {}, True),
        ({"tokenizer": "t.json"}, {}, False),
        ({}, {"tokenizer": "t.json"}, False),
        ({"tokenizer": "t.json"}, {"tokenizer": ""}, True),
    ],
)
def test_lengths_of_prompts_are_called_an_estimate_where_they_are(
    tmp_path: Path, options: dict[str, Any], own: dict[str, Any], estimated: bool
) -> None:
    def change(record: maker.Record, index: int) -> None:
        record.user_class, record.asked_input_tokens, record.input_tokens = "Rag", 100, 110

    found = summary(tmp_path, change, options=options, user_classes=[class_of("Rag", **own)])
    prompts = found["tokens"]["prompts"]
    assert (prompts["asked_mean"], prompts["actual_mean"], prompts["estimated"]) == (100, 110, estimated)
    by = "an estimate, without --tokenizer" if estimated else "by --tokenizer"
    said = f"100 tokens meant on average ({by}); 110 counted by the server"
    assert f"Prompts: {said}" in console.table(found)
    assert said in load.throughput(material(tmp_path, found))


@pytest.mark.parametrize(("told", "cached"), [(True, "45.0 % came out of its cache"), (False, "does not tell")])
def test_what_was_meant_to_be_in_common_stands_beside_what_was_cached(tmp_path: Path, told: bool, cached: str) -> None:
    def change(record: maker.Record, index: int) -> None:
        record.input_tokens, record.prefix_tokens = 200, 100
        record.cached_tokens = 90 if told else None

    found = summary(tmp_path, change)
    prefixes = found["tokens"]["prefixes"]
    assert (prefixes["shared_share"], prefixes["cached_share"]) == (0.5, 0.45 if told else None)
    text = " ".join(console.table(found).split())
    assert "Prefixes: 50.0 % of the input tokens were meant to be in common" in text
    assert cached in text


def test_a_run_of_which_nobody_said_such_things_has_no_such_lines(tmp_path: Path) -> None:
    found = summary(tmp_path, lambda record, index: None)
    assert found["tokens"]["prompts"] is found["tokens"]["prefixes"] is None
    assert not {"Prompts:", "Prefixes:"} & set(console.table(found).split())


def material(folder: Path, found: dict[str, Any]) -> Material:
    run = read.load(folder)
    return Material(run, phases.find(run), found)
