"""The verdict's table of rules, without any run."""

from __future__ import annotations

import pytest

from tokenswarm import rules
from tokenswarm.verdict import Measured, judge


def test_nothing_measured_amiss_is_valid() -> None:
    found = judge([], ["ttft", "itl"])
    assert (found.level, found.metrics, found.reasons) == ("valid", {"ttft": "valid", "itl": "valid"}, ())


@pytest.mark.parametrize(
    ("value", "level"),
    [(0.0199, "valid"), (0.02, "degraded"), (0.0999, "degraded"), (0.10, "invalid"), (1.0, "invalid")],
)
def test_ttft_bounds_fire_at_2_and_10_per_cent(value: float, level: str) -> None:
    assert judge([Measured(rule="ttft_bounds", value=value, absolute=5.0, subject="p95")]).level == level


@pytest.mark.parametrize("rule", ["ttft_bounds", "send_delay"])
def test_one_millisecond_against_a_ttft_of_ten_is_no_scandal(rule: str) -> None:
    assert judge([Measured(rule=rule, value=0.10, absolute=1.0)]).level == "valid"
    assert judge([Measured(rule=rule, value=0.10, absolute=1.01)]).level == "invalid"


@pytest.mark.parametrize(
    ("value", "level"), [(0.98, "valid"), (0.979, "degraded"), (0.95, "degraded"), (0.949, "invalid")]
)
def test_in_flight_share_fires_below_its_thresholds(value: float, level: str) -> None:
    assert judge([Measured(rule="in_flight_share", value=value, absolute=50.0)]).level == level


def test_only_the_metrics_a_rule_touches_are_condemned() -> None:
    found = judge([Measured(rule="ttft_bounds", value=0.5, absolute=50.0, subject="p99")])
    assert found.level == "invalid"
    assert {name for name, level in found.metrics.items() if level != "valid"} == {"ttft"}


def test_worst_reason_comes_first_and_decides() -> None:
    found = judge(
        [
            Measured(rule="user_clock", value=1.0),
            Measured(rule="not_ended", value=1),
            Measured(rule="rows_unaccounted", value=3),
        ]
    )
    assert [reason.level for reason in found.reasons] == ["invalid", "degraded", "note"]
    assert found.level == "invalid"


def test_a_note_is_told_and_changes_no_level() -> None:
    found = judge([Measured(rule="tokens_estimated", value=1.0)])
    assert found.level == "valid"
    assert [(reason.level, reason.rule) for reason in found.reasons] == [("note", "tokens_estimated")]


def test_a_reason_carries_its_number_its_threshold_and_what_to_do() -> None:
    (reason,) = judge([Measured(rule="ttft_bounds", value=0.034, absolute=13.6, subject="p95")]).reasons
    assert (reason.value, reason.threshold) == (0.034, 0.02)
    assert "p95" in reason.text and "3.4 %" in reason.text and "13.6 ms" in reason.text and "2 %" in reason.text
    assert "a core of its own" in reason.advice


def test_a_value_just_past_its_threshold_does_not_read_like_it() -> None:
    (reason,) = judge([Measured(rule="users_share", value=0.97996)]).reasons
    assert "97.996 % of the asked users" in reason.text and "below 98 %" in reason.text


def test_a_metric_that_was_not_measured_has_no_level_unless_condemned() -> None:
    assert "tpot" not in judge([], ["ttft"]).metrics
    assert judge([Measured(rule="no_ok_rows", value=0)], []).metrics == dict.fromkeys(rules.METRICS, "invalid")


def test_a_value_without_a_rule_is_refused() -> None:
    with pytest.raises(KeyError):
        judge([Measured(rule="no_such_rule", value=1)])


def test_every_rule_is_whole() -> None:
    names = [rule.name for rule in rules.RULES]
    assert len(names) == len(set(names))
    for rule in rules.RULES:
        assert set(rule.metrics) <= set(rules.METRICS)
        assert rule.says and rule.advice.endswith(".")
        assert (rule.note, rule.degraded, rule.invalid) != (None, None, None)
        if rule.degraded is not None and rule.invalid is not None:
            assert (rule.invalid < rule.degraded) == rule.low_is_bad
