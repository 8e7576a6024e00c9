"""Distributions of lengths: what their text means, what they draw, and what is said where the text is wrong."""

from __future__ import annotations

import random
import statistics

import pytest

from tokenswarm.workload.lengths import MOST, parse


def drawn(text: str, count: int = 20_000) -> list[int]:
    lengths, source = parse(text), random.Random("test")
    return [lengths.draw(source) for _ in range(count)]


@pytest.mark.parametrize("text", ["512", " 512 ", "fixed:512", "100% fixed:512", "100 % 512"])
def test_a_number_is_always_that_number(text: str) -> None:
    assert set(drawn(text, 100)) == {512}


def test_a_uniform_draws_both_of_its_ends_and_all_between() -> None:
    assert set(drawn("uniform:3-9")) == set(range(3, 10))


@pytest.mark.parametrize("kind", ["normal", "lognormal"])
def test_mean_and_standard_deviation_are_those_of_the_tokens(kind: str) -> None:
    found = drawn(f"{kind}:1000,200")
    assert statistics.fmean(found) == pytest.approx(1000, rel=0.01)
    assert statistics.stdev(found) == pytest.approx(200, rel=0.03)


def test_a_lognormal_has_its_long_tail_above() -> None:
    found = drawn("lognormal:1000,1000")
    assert statistics.median(found) == pytest.approx(1000 / 2**0.5, rel=0.03)
    assert statistics.fmean(found) == pytest.approx(1000, rel=0.03)


def test_no_length_is_below_one_token() -> None:
    assert min(drawn("normal:2,50")) == 1


def test_bounds_hold_and_what_is_outside_counts_as_the_bound() -> None:
    found = drawn("normal:100,50,90-110")
    assert (min(found), max(found)) == (90, 110)
    assert found.count(90) / len(found) == pytest.approx(0.42, abs=0.02)


def test_a_mixture_draws_each_part_as_often_as_its_share() -> None:
    found = drawn("70% uniform:100-500, 30% fixed:4000")
    assert found.count(4000) / len(found) == pytest.approx(0.3, abs=0.01)
    assert {length for length in found if length != 4000} <= set(range(100, 501))


def test_commas_inside_the_parts_of_a_mixture_are_theirs() -> None:
    found = parse("60% normal:512,64,1-1000, 40.0 % lognormal:100,50")
    assert [(part.kind, part.share, part.high) for part in found.parts] == [
        ("normal", 0.6, 1000),
        ("lognormal", 0.4, MOST),
    ]


def test_the_same_seed_draws_the_same() -> None:
    assert drawn("70% uniform:100-500, 30% normal:9,2") == drawn("70% uniform:100-500, 30% normal:9,2")


@pytest.mark.parametrize(
    ("text", "least"), [("7", 7), ("uniform:5-9", 5), ("normal:50,5", 50), ("50% normal:50,5,20-90, 50% 30", 20)]
)
def test_the_least_length_that_is_asked_for_is_known(text: str, least: int) -> None:
    assert parse(text).least == least


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no number of tokens is given"),
        ("many", "'many' is not a whole number of tokens"),
        ("0", "0: it must be between 1 and 10,000,000 tokens"),
        ("-5", "'-5' is not a whole number of tokens"),
        ("5.5", "'5.5' is not a whole number of tokens"),
        ("9" * 30, "it must be between 1 and"),
        ("uniform:9", "uniform: '9' is not two lengths, as in 128-1024"),
        ("uniform:9-3", "uniform: 9-3 begins above its end; 3-9?"),
        ("zipf:3", "'zipf' is no distribution of lengths: there are fixed, uniform, normal and lognormal"),
        ("normal:512", "normal takes a mean and a standard deviation in tokens, as in normal:512,200"),
        ("normal:x,3", "'x' is not a number of tokens"),
        ("normal:nan,3", "'nan' is not a number of tokens"),
        ("normal:512,64,9", "the bounds: '9' is not two lengths"),
        ("normal:512,64,1-100", "the mean, 512, is outside the bounds, 1-100"),
        ("normal:0.2,64", "a mean of 0.2: it must be between 1 and"),
        ("lognormal:512,1.0", "with 1 as that of the logarithm is lognormal:844,1107"),
        ("60% 512, 30% 64", "the shares add up to 90 %, not to 100 %"),
        ("512, 30% 64", "'512' has no share before it, as in 70% 512"),
        ("100% ", "no number of tokens is given"),
    ],
)
def test_what_is_wrong_is_said_with_an_example(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match="write 512, uniform:128-1024") as caught:
        parse(text)
    assert complaint in str(caught.value)
