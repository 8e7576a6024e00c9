"""Another machine's clock: the truth lies within what is claimed, however lopsided the ways there and back are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenswarm.offset import DRIFT, KEPT, OtherClock

SECOND = 1_000_000_000
AHEAD = 37 * SECOND


def trip(clock: OtherClock, sent: int, there: int, back: int) -> None:
    """The other clock is AHEAD of ours."""
    clock.heard(sent, sent + there + AHEAD, sent + there + back)


def test_an_even_way_there_and_back_gives_the_exact_offset() -> None:
    clock = OtherClock()
    trip(clock, 1000, 500, 500)
    assert clock.anchor(2000).wall(5000) == pytest.approx((5000 + AHEAD) / 1e9, abs=1e-12)
    assert clock.best(2000).uncertainty_ns(1500) == 500


@given(st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**8)), min_size=1, max_size=20))
def test_the_truth_lies_within_the_uncertainty(ways: list[tuple[int, int]]) -> None:
    clock = OtherClock()
    now = 0
    for there, back in ways:
        trip(clock, now, there, back)
        now += SECOND
    best = clock.best(now)
    assert abs(best.wall_ns - (best.monotonic_ns + AHEAD)) <= best.uncertainty_ns(now)


def test_a_quick_trip_is_preferred_until_it_is_old() -> None:
    clock = OtherClock()
    trip(clock, 0, 50_000, 50_000)
    trip(clock, SECOND, 900_000, 900_000)
    assert clock.best(2 * SECOND).half_trip_ns == 50_000
    long_after = int(SECOND + (1_000_000 - 50_000) / DRIFT)
    trip(clock, long_after, 900_000, 900_000)
    assert clock.best(long_after).half_trip_ns == 900_000


def test_a_machine_that_slept_is_noticed_at_the_next_trip() -> None:
    """Its CLOCK_MONOTONIC stood still meanwhile, so quick trips of before would put it back by as long."""
    clock = OtherClock()
    for number in range(5):
        trip(clock, number * SECOND, 10_000, 10_000)
    slept = 45 * SECOND
    resumed = 6 * SECOND
    assert clock.heard(resumed, resumed + 900_000 + AHEAD + slept, resumed + 1_800_000) == pytest.approx(slept, abs=1e6)
    assert clock.anchor(resumed).wall(resumed) == pytest.approx((resumed + AHEAD + slept) / 1e9, abs=1e-3)


@given(st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**8)), min_size=2, max_size=20))
def test_slow_and_lopsided_trips_are_no_jump(ways: list[tuple[int, int]]) -> None:
    clock = OtherClock()
    for number, (there, back) in enumerate(ways):
        sent = number * SECOND
        assert clock.heard(sent, sent + there + AHEAD, sent + there + back) == 0


def test_only_the_latest_trips_are_kept() -> None:
    clock = OtherClock()
    for number in range(KEPT + 10):
        trip(clock, number * SECOND, 1000, 1000)
    assert len(clock) == KEPT


def test_nonsense_is_passed_over_and_nothing_heard_is_an_error() -> None:
    clock = OtherClock()
    clock.heard(2000, 0, 1000)
    assert len(clock) == 0
    with pytest.raises(ValueError, match="empty"):
        clock.anchor(0)
