"""Figures by worker, a worker that stands out, turns of conversations, and the first request of each error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import run_directory_maker as maker
from pytest import approx

from tokenswarm.results import read, summarise
from tokenswarm.results.figures import by_worker, turns


def cohort(*groups: tuple[int, str, float, int]) -> pd.DataFrame:
    """Requests of a (worker, user class): a median TTFT, and how many; TTFTs lie evenly within 5 % of it."""
    parts = []
    for worker, user_class, median, count in groups:
        ttft = median * np.linspace(0.95, 1.05, count)
        parts.append(pd.DataFrame({"worker": float(worker), "user_class": user_class, "ttft_ms": ttft}))
    return pd.concat(parts, ignore_index=True).assign(status="ok", tpot_ms=np.nan)


def test_a_worker_whose_median_is_another_is_told_in_figures() -> None:
    (found,) = by_worker.apart(cohort((0, "A", 100, 101), (1, "A", 100, 101), (2, "A", 130, 101)))
    assert found == {
        "worker": 2, "figure": "ttft_ms", "user_class": "A", "median": approx(130), "others": approx(100),
        "share": approx(0.3, abs=1e-3), "requests": 101,
    }  # fmt: skip


def test_two_that_stand_out_are_told_one_after_another() -> None:
    rows = cohort((0, "A", 100, 101), (1, "A", 100, 101), (2, "A", 400, 101), (3, "A", 200, 101), (4, "A", 100, 101))
    assert [(found["worker"], found["others"]) for found in by_worker.apart(rows)] == [
        (2, approx(102, rel=0.03)),
        (3, approx(100)),
    ]


@pytest.mark.parametrize(
    ("groups", "why"),
    [
        (((0, "A", 100, 101), (1, "A", 108, 101)), "8 % is not much"),
        (((0, "A", 5, 101), (1, "A", 5.9, 101)), "0.9 ms is not much"),
        (((0, "A", 100, 101), (1, "A", 200, 19)), "19 requests say nothing of a median"),
        (((0, "A", 100, 101),), "there is nobody else"),
        (((0, "A", 100, 80), (0, "B", 900, 20), (1, "A", 100, 20), (1, "B", 900, 80)), "they drew other classes"),
    ],
)
def test_no_worker_is_told_apart_for_nothing(groups: tuple[tuple[int, str, float, int], ...], why: str) -> None:
    assert by_worker.apart(cohort(*groups)) == [], why


def test_medians_that_are_hardly_known_are_not_held_against_each_other() -> None:
    wide = cohort((0, "A", 100, 25), (1, "A", 100, 25))
    wide["ttft_ms"] = np.concatenate([np.linspace(50, 150, 25), np.linspace(65, 165, 25)])
    assert by_worker.apart(wide) == [], "15 % apart, but from 79 to 121 and from 94 to 136"


def test_the_interval_of_a_median_by_ranks() -> None:
    assert by_worker.median_interval(np.arange(100.0)) == (40, 59), "50 less and plus 9.8"


def test_the_others_are_what_is_left_without_the_one() -> None:
    rnd = np.random.default_rng(3)
    left = {number: np.sort(rnd.integers(0, 30, 40 + number).astype(float)) for number in range(4)}
    for number, others in by_worker._others(left):
        expected = np.sort(np.concatenate([mine for other, mine in left.items() if other != number]))
        assert [others[rank] for rank in range(len(others))] == expected.tolist()


def test_of_many_workers_none_differs_by_chance() -> None:
    """Of 200 with 40 requests each, all alike, the 95 % interval of about ten lies beside the others' median."""
    rnd = np.random.default_rng(5)
    rows = cohort(*((number, "A", 100, 40) for number in range(200)))
    rows["ttft_ms"] = rnd.lognormal(5, 1, len(rows))
    assert by_worker.apart(rows) == []


def test_where_a_third_of_them_differ_only_the_first_are_told() -> None:
    rows = cohort(*((number, "A", 100 if number % 3 else 300, 20) for number in range(90)))
    assert len(by_worker.apart(rows)) == by_worker.MOST_APART


def test_tpot_is_that_of_ok_rows() -> None:
    rows = cohort((0, "A", 100, 40), (1, "A", 100, 40))
    rows["tpot_ms"] = np.where(rows["worker"] == 1, 30.0, 20.0)
    (found,) = by_worker.apart(rows)
    assert (found["worker"], found["figure"], found["others"]) == (1, "tpot_ms", 20), "of two, the slower one"
    rows.loc[rows["worker"] == 1, "status"] = "failed"
    assert by_worker.apart(rows) == []


def test_each_worker_has_figures_and_their_tokens_add_up(tmp_path: Path) -> None:
    def failing(record: maker.Record, index: int) -> None:
        if record.worker == 1 and index % 12 == 0:
            record.status, record.error_class = "failed", "truncated"

    records = maker.closed_loop(users=5, seconds=60, change=failing)
    summary = summarise.summarise(read.load(maker.write(tmp_path, records, maker.boundaries(5, 2, 60, 60), 5)))
    first, second = summary["groups"]["worker"]
    assert (first["value"], first["due"], first["ok"]) == ("0", 3 * 96, 3 * 96), "48 s, two a second"
    assert (second["value"], second["due"], second["failed"]) == ("1", 2 * 96, second["due"] - second["ok"])
    assert second["failed"] > 0
    rates = [first["output_tokens_per_s"], second["output_tokens_per_s"]]
    assert rates == approx([66, 44], rel=0.02), "three and two users, 22 tokens a second each"
    assert sum(rates) == approx(summary["throughput"]["output_tokens_per_s"])


def conversation() -> pd.DataFrame:
    nothing = np.nan
    return pd.DataFrame(
        [
            # turn, ttft, input, cached
            (1, 100.0, 10.0, 0.0, "ok"),
            (1, 120.0, 30.0, 10.0, "ok"),
            (2, 150.0, 50.0, nothing, "ok"),
            (2, 200.0, 70.0, nothing, "failed"),
            (nothing, 999.0, 999.0, nothing, "ok"),
        ],
        columns=["turn", "ttft_ms", "input_tokens", "cached_tokens", "status"],
    ).assign(ttft_low_ms=nothing)


def test_turns_by_hand() -> None:
    found = turns.figures(conversation())
    assert found is not None
    first, second = found
    assert {name: first[name] for name in ("turn", "due", "ok", "input_tokens", "cached_share")} == {
        "turn": 1, "due": 2, "ok": 2, "input_tokens": 20, "cached_share": 0.25,
    }  # fmt: skip
    assert {name: second[name] for name in ("turn", "due", "ok", "input_tokens", "cached_share")} == {
        "turn": 2, "due": 2, "ok": 1, "input_tokens": 50, "cached_share": None,
    }  # fmt: skip
    assert (first["ttft_ms"]["p50"], second["ttft_ms"]["p50"]) == (110, 175), "TTFT of all that have one"


def test_conversations_of_one_turn_are_none() -> None:
    rows = conversation()
    assert turns.figures(rows[rows["turn"] == 1]) is None


def test_the_first_request_of_each_error_can_be_found(tmp_path: Path) -> None:
    wrong: list[Any] = [
        maker.failed(1, 30, 1, "http_5xx", "later"),
        maker.failed(2, 20, 2, "http_5xx", "first <b>"),
        maker.failed(3, 25, 1, "connect", "refused"),
    ]
    wrong[1].worker, wrong[1].http_status = 1, 503
    records = [*maker.closed_loop(users=2), *wrong]
    summary = summarise.summarise(read.load(maker.write(tmp_path, records, maker.boundaries(2, 2, 60, 60), 2)))
    first = {error["class"]: error["first"] for error in summary["errors"]}
    assert first == {
        "http_5xx": {"id": "f2", "at_s": approx(22), "worker": 1, "http_status": 503, "message": "first <b>"},
        "connect": {"id": "f3", "at_s": approx(26), "worker": 0, "http_status": None, "message": "refused"},
    }
