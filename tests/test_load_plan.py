"""Levels of load one after another, on a clock of the tests' own."""

from __future__ import annotations

import pytest

from tokenswarm.load.plan import Level, Walk, joined, numbers, ramp, shortest, spike, steps


def walked(levels: list[Level], seconds_to_be_there: float, until: float) -> list[tuple[float, int]]:
    """When each number of users is asked for, looked at once a second; users come so long after that."""
    walk, found = Walk(levels), []
    asked, since = -1, 0.0
    now = 0.0
    while now <= until:
        level = walk.tick(now, asked >= 0 and now - since >= seconds_to_be_there)
        if level is None:
            found.append((now, -1))
            break
        if level.users != asked:
            asked, since = level.users, now
            found.append((now, asked))
        now += 1.0
    return found


def test_each_level_lasts_its_time_and_then_the_run_ends() -> None:
    assert walked([Level(2, 10), Level(5, 20), Level(1, 5)], 1, 60) == [(0, 2), (11, 5), (32, 1), (38, -1)]


def test_a_level_lasts_from_when_its_users_are_there_so_a_slow_way_skips_none() -> None:
    assert walked([Level(2, 10), Level(5, 10), Level(9, 10)], 30, 200) == [(0, 2), (40, 5), (80, 9), (120, -1)]


def test_a_level_whose_users_never_come_is_waited_for() -> None:
    assert walked([Level(2, 10), Level(5, 10)], 1e9, 500) == [(0, 2)]


def test_levels_that_change_nothing_are_one() -> None:
    levels = joined([Level(0, 0), Level(4, 0, 2.0), Level(4, 10), Level(4, 5), Level(8, 1), Level(4, 1)])
    assert levels == (Level(4, 15, 2.0), Level(8, 1), Level(4, 1))
    assert joined([Level(0, 3), Level(1, 1)]) == (Level(0, 3), Level(1, 1)), "a pause before the load"


@pytest.mark.parametrize("level", [Level(-1, 1), Level(1, -1), Level(1, 1, 0)])
def test_what_no_load_can_be_is_refused(level: Level) -> None:
    with pytest.raises(ValueError, match="below 0"):
        Walk([level])


def test_how_long_it_takes_at_least() -> None:
    assert shortest([Level(10, 60, 5.0), Level(30, 60, 5.0), Level(0, 0, 10.0)]) == 2 + 60 + 4 + 60 + 3


def test_steps_ramps_and_spikes_are_levels() -> None:
    assert joined(steps((1, 4), 9.0, 3.0)) == (Level(1, 9, 3), Level(4, 9, 3))
    assert joined(ramp(0, 120, 60, 30)) == (Level(120, 30, 2.0),)
    assert joined(ramp(100, 20, 40, 5)) == (Level(100, 0), Level(20, 5, 2.0))
    assert joined(spike(5, 50, 10, 3, 20)) == (Level(5, 10), Level(50, 3), Level(5, 20))
    assert joined(ramp(0, 5, 5, 1) + spike(5, 50, 10, 3, 20)) == (Level(5, 11, 1.0), Level(50, 3), Level(5, 20))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,2,4,8", (1, 2, 4, 8)),
        ("16", (16,)),
        (" 10 , 5,10", (10, 5, 10)),
        ("10..40:10", (10, 20, 30, 40)),
        ("1..3,8..11:2", (1, 2, 3, 8, 10)),
    ],
)
def test_steps_as_text(text: str, found: tuple[int, ...]) -> None:
    assert numbers(text) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1,,2", "''"),
        ("0,1", "'0'"),
        ("1,-2", "'-2'"),
        ("1.5", "'1.5'"),
        ("2,2", "2 follows 2"),
        ("9..3", "9 is more than 3"),
        ("1..9:0", "'0'"),
        ("1..900000", "more than 1,000 steps"),
        ("9999999", "no number of users"),
    ],
)
def test_steps_that_are_none_say_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        numbers(text)
