"""Figures and words of a run that was a search for capacity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import run_directory_maker as maker

from tokenswarm.results import console, read, summarise


def probe(number: int, users: int, decision: str, start: float, end: float) -> dict[str, Any]:
    times = {"began": maker.T0 + start, "measured_from": maker.T0 + start, "until": maker.T0 + end}
    return {"number": number, "users": users, "kind": "coarse", "decision": decision, **times}


def searched(folder: Path, answer: dict[str, Any] | None, *probes: dict[str, Any]) -> dict[str, Any]:
    found = {"probes": list(probes), "answer": answer}
    return summarise.summarise(read.load(maker.write(folder, maker.closed_loop(), capacity=found)))


def test_figures_are_those_of_the_level_that_passed_and_of_no_step(tmp_path: Path) -> None:
    answer = {"why": "found", "users": 8, "failed_users": 9, "confirmed": True}
    levels = (probe(0, 8, "pass", 10, 20), probe(1, 12, "fail", 20, 30), probe(2, 8, "pass", 40, 55))
    found = searched(tmp_path, answer, *levels)
    assert [(window["users"], window["step"]) for window in found["windows"]] == [(8, None)] * 2
    assert found["requests"]["cohort"]["due"] == 25 * 20, "ten users, two requests a second each"
    assert "Everything below is of the level that passed." in console.table(found)


def test_where_nothing_passed_it_does_not_claim_so(tmp_path: Path) -> None:
    answer = {"why": "nothing passes", "users": None, "failed_users": 1}
    found = searched(tmp_path, answer, probe(0, 1, "fail", 10, 20))
    assert found["requests"]["cohort"]["due"] == 10 * 20
    assert "Everything below is of all levels that were tried, since none passed." in console.table(found)
