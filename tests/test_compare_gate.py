"""`--fail-if`: what is understood, what is refused, and what an interval means for a limit."""

from __future__ import annotations

import pytest

from tokenswarm.errors import OptionError
from tokenswarm.results.compare import gate, metrics
from tokenswarm.results.compare.differences import SAME, UNMEASURED, Change, Comparison, Described, Difference
from tokenswarm.results.compare.estimate import Figure
from tokenswarm.results.compare.gate import CERTAIN, FAILED, LIKELY, PASSED, POSSIBLE, UNDECIDED, UNJUDGED


def comparison(
    name: str, change: tuple[float, float | None, float | None] | None, rows: int = 1000, needed: int = 72
) -> Comparison:
    """One metric, its change relative (of a share absolute); 0.1 is 10 %."""
    metric = metrics.known(name)
    figure = Figure(None if change is None else 100.0, rows, needed, (100.0,), None)
    found = None if change is None else Change(*change)
    hundredfold = None if found is None else Change(*(None if end is None else end * 100 for end in change or ()))
    relative, absolute = (None, found) if metric.kind == metrics.SHARE else (found, hundredfold)
    outcome = UNMEASURED if change is None else SAME
    difference = Difference(
        name, metric.title, metric.unit, metric.lower_is_better, figure, figure, relative, absolute, outcome
    )
    side = Described("candidate", "new", ("runs/new",))
    return Comparison(side, side, 0.95, 1, (difference,), (), ())


def judged(text: str, found: Comparison, when: str = CERTAIN) -> tuple[str, bool]:
    one = gate.judge(gate.parse(text), found, when)
    return one.outcome, one.fails


@pytest.mark.parametrize(
    ("interval", "outcome", "fails"),
    [
        # estimate, low, high; what fails of certain, likely, possible, with +10 % allowed
        ((0.18, 0.11, 0.26), FAILED, (True, True, True)),
        ((0.18, 0.04, 0.32), UNDECIDED, (False, True, True)),
        ((0.18, -0.04, 0.40), UNDECIDED, (False, False, True)),
        ((0.08, 0.04, 0.12), UNDECIDED, (False, False, True)),
        ((0.00, -0.09, 0.10), PASSED, (False, False, False)),
        ((-0.50, -0.60, -0.40), PASSED, (False, False, False)),
        ((0.18, None, None), UNDECIDED, (False, False, True)),
    ],
)
def test_an_interval_decides_as_the_table_in_the_documentation_says(
    interval: tuple[float, float | None, float | None], outcome: str, fails: tuple[bool, ...]
) -> None:
    found = comparison("ttft_p95", interval)
    assert [judged("ttft_p95 +10%", found, when) for when in gate.WHEN] == [(outcome, fail) for fail in fails]


def test_a_limit_on_what_is_better_when_higher_is_on_its_fall() -> None:
    text = "output_tokens_per_s -5%"
    assert judged(text, comparison("output_tokens_per_s", (-0.1, -0.12, -0.08))) == (FAILED, True)
    assert judged(text, comparison("output_tokens_per_s", (-0.02, -0.04, 0.0))) == (PASSED, False)
    assert judged(text, comparison("output_tokens_per_s", (0.5, 0.4, 0.6))) == (PASSED, False)


def test_limits_in_milliseconds_and_in_points_are_on_the_absolute_change() -> None:
    assert judged("ttft_p95 +20ms", comparison("ttft_p95", (0.3, 0.25, 0.35))) == (FAILED, True)  # 25 to 35 ms
    assert judged("ttft_p95 +0.04s", comparison("ttft_p95", (0.3, 0.25, 0.35))) == (PASSED, False)
    assert judged("error_rate +1pp", comparison("error_rate", (0.03, 0.02, 0.04), needed=0)) == (FAILED, True)
    assert judged("error_rate +1pp", comparison("error_rate", (0.0, -0.004, 0.006), needed=0)) == (PASSED, False)


def test_too_few_requests_decide_nothing_however_far_the_interval_lies() -> None:
    few = comparison("ttft_p95", (2.0, 1.5, 2.5), rows=71)
    assert [judged("ttft_p95 +10%", few, when) for when in (CERTAIN, LIKELY)] == [(UNDECIDED, False)] * 2
    assert judged("ttft_p95 +10%", few, POSSIBLE) == (UNDECIDED, True)


def test_a_change_of_many_powers_of_ten_is_told_too() -> None:
    """Gaps of a microsecond, where a proxy had kept the whole reply back, against gaps of 0.2 s."""
    found = comparison("tpot_p95", (2e5, 1.9e5, 2.1e5))
    told = gate.judge(gate.parse("tpot_p95 +10%"), found)
    assert told.outcome == FAILED
    assert told.said.startswith("+20,000,000 % [")


def test_what_was_not_measured_fails() -> None:
    assert judged("ttft_p95 +10%", comparison("ttft_p95", None)) == (UNJUDGED, True)


SPACED = (
    "ttft_p95 +10%",
    "ttft_p95+10%",
    "  itl_p99 + 5 ms ",
    "e2e_p99.9 +1.5s",
    "requests_per_s −5%",
    "error_rate +1pp",
)


@pytest.mark.parametrize("text", SPACED)
def test_limits_are_read_however_they_are_spaced(text: str) -> None:
    assert gate.parse(text).limit > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write a metric, + or −, a number and %, pp, ms or s, as in 'ttft_p95 +10%'"),
        ("ttft_p95", "write a metric"),
        ("ttft_p95 +10", "write a metric"),
        ("ttft_p95 10%", "write a metric"),
        ("ttft_95 +10%", "there is no metric 'ttft_95'; did you mean ttft_p95?"),
        ("speed -10%", "error_rate"),
        ("ttft_p95 -10%", "ttft_p95 is better when lower: write +10%"),
        ("requests_per_s +5%", "requests_per_s is better when higher: write -5%"),
        ("error_rate +5%", "error_rate is limited in pp"),
        ("requests_per_s -5ms", "requests_per_s is limited in %"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_can(text: str, said: str) -> None:
    with pytest.raises(OptionError) as refused:
        gate.parse(text)
    assert str(refused.value).startswith(f"--fail-if {text!r}: ")
    assert said in str(refused.value)


def test_all_wrong_limits_are_told_at_once() -> None:
    with pytest.raises(OptionError) as refused:
        gate.parse_all(["ttft_p95 +10%", "x +1%", "y"])
    assert len(str(refused.value).splitlines()) == 2
