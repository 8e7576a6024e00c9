"""Goals as text and what they say of one request; no run."""

from __future__ import annotations

import math

import pytest

from tokenswarm.errors import OptionError
from tokenswarm.slo import Limit, Objective, parse_goodput, parse_slo, value_at


def test_objectives_are_shares_of_requests_that_may_miss() -> None:
    ttft, tpot, errors, speed = parse_slo("ttft_p95<500ms, tpot_p99 < 0.05 s error_rate<1% output_tps_p5>30/s")
    assert (ttft.metric, ttft.limit and ttft.limit.bound, round(ttft.allowed, 9)) == ("ttft", 500.0, 0.05)
    assert (tpot.metric, tpot.limit and tpot.limit.bound, round(tpot.allowed, 9)) == ("tpot", 50.0, 0.01)
    assert (errors.metric, errors.limit, errors.allowed) == ("error_rate", None, 0.01)
    assert (speed.metric, speed.limit and speed.limit.bound, speed.allowed) == ("output_tps", 30.0, 0.05)
    assert [each.text for each in (ttft, errors)] == ["ttft_p95<500ms", "error_rate<1%"]


def test_limits_of_goodput_are_about_each_request() -> None:
    limits = parse_goodput("ttft<500ms tpot<50ms output_tps>30")
    assert [(limit.metric, limit.bound) for limit in limits] == [("ttft", 500.0), ("tpot", 50.0), ("output_tps", 30.0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "--slo is empty: write it as 'ttft_p95<500ms"),
        ("fast", "not an objective; write them as"),
        ("ttfb_p95<500ms", "there is no 'ttfb'; known are ttft, ttft_sent, ttft_due, tpot, e2e, output_tps"),
        ("ttft<500ms", "of which percentile? Write ttft_p95<500ms"),
        ("ttft_p95<500", "'500' is no number of ms or s; write it as in ttft_p95<500ms"),
        ("ttft_p95>500ms", "less is better, so it takes <"),
        ("output_tps_p5<30", "more is better, so it takes >"),
        ("ttft_p100<1s", "a percentile lies between 0 and 100"),
        ("error_rate<100%", "write it as a share between 0 and 100 %"),
        ("itl_p95<50ms", "take tpot"),
        ("ttft_p95<0ms", "must be more than 0"),
        ("tpot_p95<5ms tpot_p95<5ms", "it is there twice"),
    ],
)
def test_what_is_wrong_with_an_objective_is_said(text: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_slo(text)
    assert said in str(caught.value)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        parse_goodput("ttft_p95<500ms nonsense speed<3ms")
    assert str(caught.value).count("--goodput") == 3


TTFT = Limit(text="ttft<500ms", metric="ttft", bound=500.0)
E2E = Limit(text="e2e<2s", metric="e2e", bound=2000.0)
TPOT = Limit(text="tpot<50ms", metric="tpot", bound=50.0)
SPEED = Limit(text="output_tps>30", metric="output_tps", bound=30.0)


@pytest.mark.parametrize(
    ("limit", "status", "value", "age", "missed"),
    [
        (TTFT, "ok", 499.9, 3000.0, False),
        (TTFT, "ok", 500.0, 3000.0, True),
        (TTFT, "ok", None, 3000.0, None),  # not streamed: nothing is known
        (TTFT, "failed", 20.0, 30.0, True),  # its first token came, and then it broke off
        (TTFT, "timeout", None, 1.0, True),
        (TTFT, "shed", None, None, True),
        (TTFT, "cancelled", 20.0, 900.0, None),  # its user left: neither kept nor missed
        (TTFT, "cancelled", 700.0, 900.0, True),  # it was late before that
        (TTFT, "cancelled", None, 600.0, True),  # it waited in vain for longer than the limit
        (TTFT, "cancelled", None, 400.0, None),
        (TTFT, "incomplete", 20.0, 900.0, False),
        (TTFT, "incomplete", None, 600.0, True),
        (TTFT, "incomplete", None, 400.0, None),
        (E2E, "incomplete", None, 2500.0, True),
        (E2E, "incomplete", 100.0, 100.0, None),
        (TPOT, "incomplete", 60.0, 100.0, True),
        (TPOT, "incomplete", None, 9e9, None),
        (SPEED, "ok", 31.0, 100.0, False),
        (SPEED, "ok", 30.0, 100.0, True),
        (SPEED, "cancelled", 3.0, 100.0, None),
        (SPEED, "failed", 99.0, 100.0, True),
    ],
)
def test_what_never_came_has_missed_and_what_was_cut_only_if_it_was_late(
    limit: Limit, status: str, value: float | None, age: float | None, missed: bool | None
) -> None:
    assert limit.missed_by(status, value, age) is missed


def test_an_error_rate_counts_what_ended_by_itself() -> None:
    (errors,) = parse_slo("error_rate<1%")
    statuses = ("ok", "failed", "timeout", "shed", "cancelled", "incomplete")
    assert [errors.missed_by(status, None) for status in statuses] == [False, True, True, True, None, None]


@pytest.mark.parametrize(("rank", "requests"), [("90", 10), ("95", 20), ("99", 100), ("99.9", 1000)])
def test_a_share_of_exactly_what_is_allowed_is_a_miss_and_the_value_says_so(rank: str, requests: int) -> None:
    (objective,) = parse_slo(f"ttft_p{rank}<500ms")
    values = [*[100.0] * (requests - 1), 600.0]
    assert not 1 / requests < objective.allowed
    assert value_at(values, objective) == 600.0


def test_the_value_keeps_the_limit_exactly_if_the_share_that_misses_is_allowed() -> None:
    objective = Objective(text="", limit=TTFT, allowed=0.05)
    for misses in (0, 4, 5, 6):
        values = sorted([*[100.0] * (100 - misses), *[math.inf] * misses])
        assert (value_at(values, objective) == 100.0) == (misses / 100 < objective.allowed), misses
    assert value_at([], objective) is None
    slow_ones = Objective(text="", limit=SPEED, allowed=0.05)
    assert value_at(sorted([*[0.0] * 4, *[40.0] * 96]), slow_ones) == 40.0
    assert value_at(sorted([*[0.0] * 5, *[40.0] * 95]), slow_ones) == 0.0
