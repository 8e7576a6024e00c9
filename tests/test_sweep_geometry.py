"""Pareto front and knee, on points whose answer is known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenswarm.results.sweep import knee, pareto
from tokenswarm.results.sweep.knee import Knee, Point

NUMBERS = st.integers(0, 12).map(float) | st.floats(0, 1e9)
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=30)


def better(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] >= other[0] and one[1] <= other[1]


def test_the_front_of_a_server_that_saturates() -> None:
    # 1, 2, 4 and 8 users; 16 bring a little more, 32 less than 16.
    points = [(10.0, 50.0), (20.0, 52.0), (40.0, 51.0), (80.0, 60.0), (82.0, 200.0), (79.0, 500.0)]
    assert pareto.front(points) == (0, 2, 3, 4)


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], ()),
        ([(1.0, 1.0)], (0,)),
        ([(1.0, 1.0), (1.0, 1.0)], (1, 0)),
        ([(1.0, 1.0), (2.0, 1.0)], (1,)),
        ([(1.0, 2.0), (1.0, 1.0)], (1,)),
        ([(2.0, 2.0), (1.0, 1.0)], (1, 0)),
    ],
)
def test_fronts_by_hand(points: list[tuple[float, float]], front: tuple[int, ...]) -> None:
    assert pareto.front(points) == front


@given(POINTS)
def test_the_front_is_what_nothing_is_better_than(points: list[tuple[float, float]]) -> None:
    expected = {index for index, point in enumerate(points) if not any(better(other, point) for other in points)}
    found = pareto.front(points)
    assert set(found) == expected
    assert len(found) == len(expected)
    along = [points[index] for index in found]
    assert along == sorted(along)


@given(POINTS.filter(bool), st.randoms(use_true_random=False))
def test_the_front_is_the_same_in_any_order_and_in_any_unit(points: list[tuple[float, float]], random: object) -> None:
    front = sorted(points[index] for index in pareto.front(points))
    shuffled = list(points)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sorted(shuffled[index] for index in pareto.front(shuffled)) == front
    doubled = [(2 * gain, 4 * cost) for gain, cost in points]
    assert [(2 * gain, 4 * cost) for gain, cost in front] == sorted(doubled[i] for i in pareto.front(doubled))


def test_what_was_not_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        pareto.front([(1.0, math.nan)])


def curve(*levels: tuple[float, float, float]) -> list[Point]:
    return [Point(*level) for level in levels]


BATCH_OF_EIGHT = curve((1, 10, 50), (2, 20, 50), (4, 40, 51), (8, 80, 52), (16, 81, 600), (32, 80, 1700))


def test_the_knee_of_a_batch_of_eight_is_at_eight() -> None:
    assert knee.find(BATCH_OF_EIGHT) == Knee(3)


@given(st.integers(20, 200))
def test_the_knee_of_an_mm1_queue_is_at_half_its_capacity(capacity: int) -> None:
    """Kleinrock: latency 1 / (capacity - load) makes power load × (capacity - load)."""
    points = [Point(load, load, 1 / (capacity - load)) for load in range(1, capacity)]
    found = knee.find(points).index
    assert found is not None
    assert abs(points[found].load - capacity / 2) <= 0.5


@given(st.floats(1, 100), st.floats(0.01, 1))
def test_the_knee_of_growing_batches_is_where_latency_has_doubled(base: float, each: float) -> None:
    """A step takes base + each × load, as continuous batching does: power is highest at load = base / each."""
    loads = [base / each * 2.0**power for power in range(-4, 5)]
    points = [Point(load, load / (base + each * load), base + each * load) for load in loads]
    assert knee.find(points) == Knee(4)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.randoms(use_true_random=False))
def test_the_knee_depends_on_no_unit_and_no_order(throughput: float, latency: float, random: object) -> None:
    scaled = [Point(p.load, p.throughput * throughput, p.latency * latency) for p in BATCH_OF_EIGHT]
    random.shuffle(scaled)  # type: ignore[attr-defined]
    found = knee.find(scaled).index
    assert found is not None
    assert scaled[found].load == 8


@given(st.integers(2, 8))
def test_the_knee_stays_where_it_is_however_far_one_measures(more: int) -> None:
    beyond = [Point(32.0 * 2**step, 80, 1700.0 * 2**step) for step in range(1, more)]
    assert knee.find([*BATCH_OF_EIGHT, *beyond]) == Knee(3)


@pytest.mark.parametrize(
    ("points", "why"),
    [
        ([], knee.FEW),
        (curve((1, 10, 50), (8, 80, 52)), knee.FEW),
        (curve((4, 40, 50), (4, 41, 50), (8, 80, 52)), knee.FEW),  # two loads
        (BATCH_OF_EIGHT[:4], knee.BEYOND),
        (BATCH_OF_EIGHT[3:], knee.BEFORE),
        (curve((1, 10, 50), (2, 10, 50), (3, 10, 50)), knee.BEYOND),  # nothing bends
        (curve((1, 10, 10), (2, 20, 19.9), (3, 30, 30.2)), knee.BEYOND),  # nor so little
        (curve((1, 0, 50), (2, 10, 0), (4, 0, 0), (8, 80, 52)), knee.FEW),
    ],
)
def test_there_is_no_knee_without_a_bend(points: list[Point], why: str) -> None:
    assert knee.find(points) == Knee(None, why)


def test_what_may_not_be_chosen_is_no_knee_but_shows_what_lies_beyond() -> None:
    overloaded = [Point(p.load, p.throughput, p.latency, chosen=p.load <= 8) for p in BATCH_OF_EIGHT]
    assert knee.find(overloaded) == Knee(3)
    doubted = [Point(p.load, p.throughput, p.latency, chosen=p.load != 8) for p in BATCH_OF_EIGHT]
    assert knee.find(doubted) == Knee(None, knee.DOUBTED)
