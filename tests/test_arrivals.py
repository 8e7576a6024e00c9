"""Schedules of the open loop, without sockets or clocks: rates, changes, seeds, and what each process has of them."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Iterator

import pytest
from arrival_statistics import dispersion, ks_distance

from tokenswarm.errors import DatasetError
from tokenswarm.load import think_time
from tokenswarm.load.arrivals import SECOND_NS, Arrival, Gap, Replay, Schedule, Share, Stream, parse
from tokenswarm.workload.traces import TraceEntry


def gap(text: str) -> Gap:
    found = parse(text).gap
    assert found is not None
    return found


def taken(schedule: Schedule, count: int) -> list[Arrival]:
    return [schedule.take() for _ in range(count)]


def gaps(arrivals: list[Arrival]) -> list[float]:
    """Seconds."""
    return [(b.at - a.at) / SECOND_NS for a, b in itertools.pairwise(arrivals)]


@pytest.mark.parametrize(
    ("text", "variation"), [("poisson", 1.0), ("constant", 0.0), ("gamma:2", 2.0), ("gamma:0.5", 0.5)]
)
def test_gaps_have_the_asked_mean_and_variation(text: str, variation: float) -> None:
    found = gaps(taken(Stream(gap(text), "seed 1", users=10, rate=50.0), 40_000))
    assert statistics.fmean(found) == pytest.approx(1 / 50, rel=0.03)
    assert statistics.pstdev(found) * 50 == pytest.approx(variation, rel=0.05, abs=1e-6)


def test_constant_is_even_over_all_users_together() -> None:
    schedule = Stream(gap("constant"), "seed 1", users=7, rate=14.0, at=SECOND_NS)
    assert [arrival.at for arrival in taken(schedule, 14)][-1] == pytest.approx(2 * SECOND_NS, abs=14)
    assert {round(each * 14, 6) for each in gaps(taken(schedule, 50))} == {1.0}


def test_the_same_seed_gives_the_same_arrivals_and_another_seed_others() -> None:
    first, again, other = (taken(Stream(gap("gamma:2"), seed, 5, 9.0), 100) for seed in ("a", "a", "b"))
    assert first == again
    assert first != other


def test_each_user_has_its_share() -> None:
    users = [arrival.user for arrival in taken(Stream(gap("poisson"), "seed 1", users=4, rate=1.0), 8000)]
    assert all(users.count(user) == pytest.approx(2000, rel=0.1) for user in range(4))


def test_what_is_left_of_a_gap_is_stretched_with_the_rate() -> None:
    schedule = Stream(gap("constant"), "seed 1", users=1, rate=1.0)
    schedule.change(2, 2.0, SECOND_NS // 2)  # half of the first gap is over; the other half goes twice as fast
    assert schedule.due == SECOND_NS * 3 // 4
    schedule.change(0, 0.0, SECOND_NS * 5 // 8)  # nobody is there
    assert schedule.due is None
    schedule.change(1, 1.0, 9 * SECOND_NS)  # a quarter was left
    assert schedule.due == SECOND_NS * 37 // 4


def test_what_was_due_before_a_change_keeps_its_instant() -> None:
    schedule = Stream(gap("constant"), "seed 1", users=1, rate=10.0)
    schedule.change(1, 1000.0, SECOND_NS)  # whoever sends was late: ten are due
    assert [arrival.at for arrival in taken(schedule, 10)] == [SECOND_NS // 10 * n for n in range(1, 11)]
    assert schedule.due == SECOND_NS + SECOND_NS // 1000


def test_a_changing_rate_gives_the_counts_that_it_promises() -> None:
    """A ramp of 100 users, one more a second, then none: the integral of the rate is what arrives."""
    schedule = Stream(gap("poisson"), "seed 3")
    for user in range(100):
        schedule.change(user + 1, (user + 1) * 2.0, user * SECOND_NS)
    schedule.change(0, 0.0, 100 * SECOND_NS)
    arrivals = []
    while schedule.due is not None:
        arrivals.append(schedule.take())
    assert len(arrivals) == pytest.approx(2 * 100 * 101 / 2, abs=4 * 10_100**0.5)
    assert all(arrival.user <= arrival.at // SECOND_NS for arrival in arrivals), "of those who are there"
    assert arrivals[-1].at <= 100 * SECOND_NS


@pytest.mark.parametrize("text", ["poisson", "gamma:2", "constant"])
def test_all_processes_together_have_the_one_stream_and_each_arrival_once(text: str) -> None:
    def everybody() -> Stream:
        return Stream(gap(text), "seed 5, step 3", users=10, rate=100.0, at=77)

    of_each = [taken(Share(everybody(), before, own, 0), 600) for before, own in ((0, 3), (3, 3), (6, 4))]
    one = taken(everybody(), 1200)
    together = sorted(
        (arrival.at, before + arrival.user)
        for arrivals, before in zip(of_each, (0, 3, 6), strict=True)
        for arrival in arrivals
    )
    assert together[:1200] == sorted((arrival.at, arrival.user) for arrival in one)


def test_a_process_without_users_has_no_share_and_a_late_one_none_of_the_past() -> None:
    assert Share(Stream(gap("poisson"), "s", 4, 4.0), 4, 0, 0).due is None
    late = Share(Stream(gap("constant"), "s", 2, 10.0), 0, 2, SECOND_NS)
    assert late.due == SECOND_NS


def test_a_process_that_is_told_of_more_users_before_its_own_than_there_are_has_no_share() -> None:
    """What a worker that joins is told where the others' users are yet to leave: nothing would ever be its own."""
    assert Share(Stream(gap("poisson"), "s", 4, 4.0), 4, 2, 0).due is None
    assert Share(Stream(gap("poisson"), "s", 4, 4.0), 3, 2, 0).due is not None


def test_parts_of_a_gamma_stream_are_it_again_and_independent_ones_are_not() -> None:
    """Why all processes follow one stream: gaps of what several bursty sources add up to are hardly bursty."""
    shares = [Share(Stream(gap("gamma:2"), "s", 8, 400.0), 2 * n, 2, 0) for n in range(4)]
    own = [Stream(gap("gamma:2"), f"s{n}", 2, 100.0) for n in range(4)]
    shared, apart = (
        sorted(arrival for each in all_of_them for arrival in taken(each, 700)) for all_of_them in (shares, own)
    )
    limit = 1.63 / 1999**0.5
    assert ks_distance([400 * each for each in gaps(shared[:2000])], "gamma:2") < limit
    assert ks_distance([400 * each for each in gaps(apart[400:2400])], "gamma:2") > 2 * limit


def test_the_statistics_find_what_is_not_the_process() -> None:
    draw = random.Random(1)
    even = [n / 10 for n in range(1000)]
    assert dispersion(even, 99.0, 1.0) < 0.1
    times = list(itertools.accumulate(draw.expovariate(10.0) for _ in range(5000)))
    assert dispersion(times, 450.0, 1.0) == pytest.approx(1.0, abs=4 * (2 / 450) ** 0.5)
    poisson = [draw.expovariate(1.0) for _ in range(2000)]
    assert ks_distance(poisson, "poisson") < 1.63 / 2000**0.5
    assert ks_distance(poisson, "gamma:1.3") > 1.63 / 2000**0.5
    assert ks_distance([draw.gammavariate(0.25, 4.0) for _ in range(2000)], "gamma:2") < 1.63 / 2000**0.5


def entries(*times: float) -> list[TraceEntry]:
    return [TraceEntry(at, line=number) for number, at in enumerate(times, 1)]


def test_a_trace_keeps_its_times_divided_by_the_scale() -> None:
    replay = Replay(iter(entries(0.0, 1.0, 1.0, 4.0)), begin=100, scale=2.0, hand=0, hands=1)
    assert [arrival.at for arrival in taken(replay, 4)] == [
        100,
        100 + SECOND_NS // 2,
        100 + SECOND_NS // 2,
        100 + 2 * SECOND_NS,
    ]
    assert replay.due is None


def test_what_is_wrong_with_a_trace_costs_no_entry_before_it() -> None:
    def broken() -> Iterator[TraceEntry]:
        yield from entries(0.0, 1.0)
        raise DatasetError("line 3")

    replay = Replay(broken(), 0, 1.0, 0, 1)
    assert [arrival.at for arrival in taken(replay, 2)] == [0, SECOND_NS]
    with pytest.raises(DatasetError, match="line 3"):
        _ = replay.due
    assert replay.due is None


def test_processes_take_turns_with_the_entries_of_a_trace() -> None:
    lines: list[int] = []
    for hand in range(3):
        replay = Replay(iter(entries(*range(8))), 0, 1.0, hand, 3)
        mine = []
        while replay.due is not None:
            entry = replay.take().entry
            assert entry is not None
            mine.append(entry.line)
        assert mine == list(range(hand + 1, 9, 3))
        lines += mine
    assert sorted(lines) == list(range(1, 9))


@pytest.mark.parametrize(
    "text", ["", "open", "poisson:2", "gamma", "gamma:x", "gamma:0", "gamma:nan", "trace", "trace:"]
)
def test_other_arrivals_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="gamma"):
        parse(text)


def test_only_the_closed_loop_waits() -> None:
    assert [parse(text).open for text in ("closed", "poisson", "trace:x.jsonl")] == [False, True, True]
    assert parse("trace:a:b.jsonl").trace == "a:b.jsonl"


@pytest.mark.parametrize(
    ("text", "low", "mean", "high"),
    [
        ("2s", 2, 2, 2),
        ("uniform:1-5s", 1, 3, 5),
        ("uniform:30s-1m", 30, 45, 60),
        ("exponential:2s", 0, 2, 40),
        ("0", 0, 0, 0),
    ],
)
def test_think_times_are_as_asked(text: str, low: float, mean: float, high: float) -> None:
    draw, think = random.Random(1), think_time.parse(text)
    found = [think(draw) for _ in range(5000)]
    assert low <= min(found) <= max(found) <= high
    assert statistics.fmean(found) == pytest.approx(mean, rel=0.05)


@pytest.mark.parametrize(
    "text", ["", "soon", "uniform:5-1s", "uniform:1s", "uniform:", "exponential:0", "exponential:x", "normal:2s"]
)
def test_other_think_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="uniform:1-5s"):
        think_time.parse(text)
