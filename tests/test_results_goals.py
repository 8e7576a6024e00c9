"""Goals and goodput of made runs, against figures reckoned by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import run_directory_maker as maker
from hypothesis import given
from hypothesis import strategies as st

from tokenswarm.record import STATUSES
from tokenswarm.results import console, read, report, summarise
from tokenswarm.results.figures import goals
from tokenswarm.slo import parse_goodput, parse_slo

STEADY = maker.boundaries(10, 2, 60, 60)
"""Ten users send 96 requests each in the steady 48 s."""
FIRST = 24
"""A user's first turn in them."""


def uneven(record: Any, index: int) -> None:
    """Of 960 requests 40 fail, 8 are cancelled late and 8 in time, and 16 are slow; all others take 100 ms."""
    user, turn = divmod(index, 120)
    turn -= FIRST
    if turn < 0:
        return
    if user == 0 and turn < 40:
        record.status, record.ttft_ms, record.tpot_ms = "failed", None, None
        record.error_class = "http_5xx"
    elif user == 1 and turn < 16:
        record.status = "cancelled"
        record.ttft_ms = 700.0 if turn < 8 else 100.0
    elif user == 2 and turn < 16:
        record.ttft_ms = 600.0
        record.user_class = "Slow"


def summary(folder: Path, classes: list[dict[str, Any]] | None = None, **options: Any) -> dict[str, Any]:
    user_classes = classes or [{"name": "ChatUser", "think_time": False}]
    directory = maker.write(
        folder / "run",
        maker.closed_loop(change=uneven),
        STEADY,
        options={"request_timeout": 300.0, "warmup": None, **options},
        user_classes=user_classes,
    )
    return summarise.summarise(read.load(directory))


def test_objectives_count_every_request_that_was_due(tmp_path: Path) -> None:
    found = summary(tmp_path, slo="ttft_p90<500ms ttft_p95<500ms ttft_p99<500ms error_rate<5%")["slo"]
    p90, p95, p99, errors = found["objectives"]
    # Out are the 8 that were cancelled in time; missed is by 40 failures, 8 late cancels and 16 slow ones.
    assert [(each["counted"], each["misses"]) for each in (p90, p95, p99)] == [(952, 64)] * 3
    assert p95["miss_share"] == pytest.approx(64 / 952)
    # In order: 888 of 100 ms, 16 of 600, 8 of 700, 40 that never came; p95 is the one after 904, p99 after 942.
    assert [(each["value"], each["beyond"], each["attained"]) for each in (p90, p95, p99)] == [
        (100.0, False, True),
        (700.0, False, False),
        (None, True, False),
    ]
    assert (errors["counted"], errors["misses"], errors["attained"]) == (944, 40, True)
    assert found["attained"] is False


def test_no_time_at_all_between_tokens_is_a_time_and_not_one_that_never_came(tmp_path: Path) -> None:
    records = maker.closed_loop(change=lambda record, _: setattr(record, "tpot_ms", 0.0))
    found = summarise.summarise(read.load(maker.write(tmp_path, records, STEADY, options={"slo": "tpot_p95<50ms"})))
    (tpot,) = found["slo"]["objectives"]
    assert (tpot["value"], tpot["beyond"], tpot["attained"]) == (0.0, False, True)


def test_goodput_is_what_kept_to_all_limits_a_second_and_of_all_due(tmp_path: Path) -> None:
    found = summary(tmp_path, goodput="ttft<500ms tpot<50ms e2e<10s")["goodput"]
    assert (found["good"], found["due"]) == (888, 952)
    assert found["per_s"] == pytest.approx(888 / 48)
    assert found["share"] == pytest.approx(888 / 952)
    assert found["misses"] == [64, 40, 40]
    slow = next(part for part in found["classes"] if part["user_class"] == "Slow")
    assert (slow["good"], slow["due"]) == (0, 16)


def test_a_class_of_users_is_held_to_its_own_goals(tmp_path: Path) -> None:
    classes = [{"name": name, "options": {"slo": "ttft_p90<500ms"}} for name in ("ChatUser", "Slow")]
    found = summary(tmp_path, classes)["slo"]
    assert found["objectives"] == []
    attained = {part["user_class"]: part["objectives"][0]["attained"] for part in found["classes"]}
    assert attained == {"ChatUser": True, "Slow": False}
    assert found["attained"] is False


def test_what_no_request_has_a_figure_for_is_neither_met_nor_missed(tmp_path: Path) -> None:
    records = maker.closed_loop(change=lambda record, _: setattr(record, "tpot_ms", None))
    options = {"slo": "tpot_p95<50ms ttft_p95<1s", "goodput": "tpot<50ms"}
    found = summarise.summarise(read.load(maker.write(tmp_path, records, STEADY, options=options)))
    assert [each["attained"] for each in found["slo"]["objectives"]] == [None, True]
    assert found["slo"]["attained"] is None
    assert (found["goodput"]["per_s"], found["goodput"]["share"]) == (None, None)


@pytest.mark.parametrize("status", ["failed", "shed"])
def test_where_nothing_went_well_goodput_is_0_and_not_unknown(tmp_path: Path, status: str) -> None:
    def fail(record: Any, _: int) -> None:
        record.status, record.ttft_ms, record.tpot_ms = status, None, None

    options = {"slo": "ttft_p95<1s error_rate<1%", "goodput": "ttft<500ms"}
    records = maker.closed_loop(change=fail)
    found = summarise.summarise(read.load(maker.write(tmp_path, records, STEADY, options=options)))
    assert (found["goodput"]["good"], found["goodput"]["per_s"], found["goodput"]["share"]) == (0, 0.0, 0.0)
    assert found["goodput"]["due"] == 960
    assert [each["attained"] for each in found["slo"]["objectives"]] == [False, False]


def test_what_was_cut_is_as_old_as_its_goal_counts(tmp_path: Path) -> None:
    """Due 400 ms before it could start, cut 200 ms after: late by when it was due, and not by when it started."""

    def cut(record: Any, _: int) -> None:
        record.status, record.ttft_ms, record.ttft_due_ms = "incomplete", None, None
        record.start_time = record.intended_time + 0.4
        record.end_time = record.start_time + 0.2

    options = {"slo": "ttft_p95<500ms ttft_due_p95<500ms"}
    records = maker.closed_loop(change=cut)
    found = summarise.summarise(read.load(maker.write(tmp_path, records, STEADY, options=options)))
    started, due = found["slo"]["objectives"]
    assert (started["counted"], due["counted"], due["misses"]) == (0, 960, 960)
    assert due["value"] == pytest.approx(600.0, abs=0.01)


def test_without_goals_there_is_nothing(tmp_path: Path) -> None:
    found = summary(tmp_path)
    assert (found["slo"], found["goodput"]) == (None, None)
    assert "Goals" not in console.table(found)


def test_console_and_report_say_how_the_goals_fared(tmp_path: Path) -> None:
    found = summary(tmp_path, slo="ttft_p95<500ms ttft_p99<500ms error_rate<5%", goodput="ttft<500ms")
    said = " ".join(console.table(found).split())
    assert "ttft_p95<500ms MISSED 700 ms 6.7 % 952 5.0 %" in said
    assert "ttft_p99<500ms MISSED > 300 s 6.7 % 952 1.0 %" in said
    assert "error_rate<5% met 4.2 % 4.2 % 944 5.0 %" in said
    assert "ttft<500ms 18.5 93.3 % 888 952" in said
    page = report.render(read.load(tmp_path / "run"), found)
    assert "ttft_p95&lt;500ms" in page
    assert "&gt; 300 s" in page


def test_goals_that_cannot_be_read_are_a_defect(tmp_path: Path) -> None:
    found = summary(tmp_path, slo="nonsense")
    assert found["slo"] is None
    assert any("nonsense" in defect for defect in found["defects"])


AMOUNTS = st.none() | st.sampled_from([0.0, 29.9, 30.0, 30.1]) | st.floats(0, 1e6)
GOALS = (
    *parse_goodput("ttft<30ms ttft_sent<30ms ttft_due<30ms tpot<30ms e2e<30ms output_tps>30"),
    *parse_slo("ttft_p95<30ms tpot_p90<30ms e2e_p99<30ms output_tps_p50>30 error_rate<1%"),
)


@given(st.lists(st.tuples(st.sampled_from(STATUSES), AMOUNTS, AMOUNTS)), st.sampled_from(GOALS))
def test_many_requests_at_once_are_judged_as_each_alone(
    requests: list[tuple[str, float | None, float | None]], goal: Any
) -> None:
    statuses, values, ages = zip(*requests, strict=True) if requests else ((), (), ())
    figures = goals.Figures(
        pd.Series(statuses, dtype="str"), np.array(values, dtype=np.float64), np.array(ages, dtype=np.float64)
    )
    counts, missed = goals.missed_by(goal, figures)
    alone = [goal.missed_by(*request) for request in requests]
    assert counts.tolist() == [each is not None for each in alone]
    assert missed.tolist() == [each is True for each in alone]
