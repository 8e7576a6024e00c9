"""The sequential test on made-up samples, where the truth is known."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from tokenswarm.load.sequential import BAD, FAIL, GOOD, PASS, RISK, UNDECIDED, Sample, clustering

TRIALS = 200
LOOK = 5
"""Decided is after each so many requests."""


def outcome(share: float, allowed: float, rng: random.Random, run: int = 1) -> tuple[str, int]:
    """What is decided on requests of which so many miss, and after how many. `run`: so many in a row are alike."""
    sample, fate = Sample(allowed), 0.0
    while not sample.full:
        if len(sample) % run == 0:
            fate = rng.random()
        sample.add(fate < share, 1.0 - fate if run > 1 else None)
        if len(sample) % LOOK == 0 and (decided := sample.decision()) != UNDECIDED:
            return decided, len(sample)
    return UNDECIDED, len(sample)


def outcomes(share: float, allowed: float, run: int = 1) -> Counter[str]:
    rng = random.Random(f"{share} {allowed} {run}")
    return Counter(outcome(share, allowed, rng, run)[0] for _ in range(TRIALS))


def at_most(risk: float) -> int:
    """So many of the trials go wrong with a chance of a thousandth, if each does with this one (exact binomial)."""
    left, count = 1.0, -1
    while left > 1e-3:
        count += 1
        left -= math.comb(TRIALS, count) * risk**count * (1 - risk) ** (TRIALS - count)
    return count


@pytest.mark.parametrize("allowed", [0.05, 0.2])
def test_error_rates_are_as_designed(allowed: float) -> None:
    good, bad = outcomes(GOOD * allowed, allowed), outcomes(BAD * allowed, allowed)
    assert good[FAIL] <= at_most(RISK)
    assert bad[PASS] <= at_most(RISK)
    assert good[PASS] > 0.8 * TRIALS
    assert bad[FAIL] > 0.8 * TRIALS


def test_what_is_far_from_the_limit_is_told_at_once() -> None:
    rng = random.Random(1)
    assert outcome(0.0, 0.05, rng) == (PASS, 80)
    assert Sample(0.05).passes_after == 80
    assert outcome(1.0, 0.05, rng) == (FAIL, 5)  # 5 ln 2 > ln 19


def test_a_p95_takes_some_hundred_requests() -> None:
    rng = random.Random(2)
    lengths = [outcome(share, 0.05, rng)[1] for share in (0.035, 0.07) for _ in range(100)]
    assert 120 < sum(lengths) / len(lengths) < 400


def test_requests_that_are_alike_count_for_fewer() -> None:
    """Of ten in a row that share a fate, each says a tenth. Taken for independent, half of all bad samples passed:
    eight fates without a miss are no proof of anything."""
    allowed = 0.05
    good, bad = outcomes(GOOD * allowed, allowed, run=10), outcomes(BAD * allowed, allowed, run=10)
    assert good[FAIL] <= at_most(2 * RISK)
    assert bad[PASS] <= at_most(2 * RISK)


def test_clustering_is_the_variance_of_batch_means_against_that_of_independent_requests() -> None:
    in_one_batch = [0] * 100 + [1] * 10 + [0] * 90
    so_far = [0]
    for missed in in_one_batch:
        so_far.append(so_far[-1] + missed)
    # One mean of 0.5 and nine of 0: variance 0.5^2 / 10 = 0.025; independent: 0.05 * 0.95 / 20 = 0.002375.
    assert clustering(so_far) == pytest.approx(0.025 / 0.002375)
    assert clustering([0, 1, 1, 2]) == 1.0


def test_nothing_is_decided_before_it_may_be() -> None:
    sample = Sample(0.05)
    for _ in range(159):
        sample.add(False)
    assert sample.decision() == PASS
    assert sample.decision(fewest=160) == UNDECIDED
    assert Sample(0.6).decision() == UNDECIDED, "an allowed share above one half has a bad one below 1 all the same"
