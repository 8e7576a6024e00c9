"""One process's part of a run: who waits for tokens that others may not need, and when nothing is left or going on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import gevent
import pytest

from tokenswarm.load.allowance import Allowance, Reserved
from tokenswarm.load.part import Part


class Watched(Part):
    """A part, and what it told."""

    def __init__(self, requests: int | None = None, tokens: int | None = None) -> None:
        self.told: list[tuple[str, bool]] = []
        super().__init__(Allowance(requests, tokens), lambda: self.told.append((self.through, self.drained)))


def taken(part: Part, size: int = 0, most: int = 0) -> Reserved:
    found = part.take(size, most)
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    with gevent.Timeout(20):
        yield


def test_it_is_through_with_the_last_request_and_drained_with_its_end() -> None:
    part = Watched(requests=2)
    first, second = taken(part), taken(part)
    assert part.told == [("requests", False)]
    assert part.take(0, 0) is None
    part.settle(first, None)
    part.settle(second, None)
    assert part.told == [("requests", False), ("requests", True)]


def test_a_share_of_nothing_is_told_at_once() -> None:
    assert Watched(requests=0).told == [("requests", True)]


def test_who_waits_is_served_in_line_as_others_end_and_the_tail_is_told_when_it_begins() -> None:
    part = Watched(tokens=100)
    first = taken(part, 10, 50)
    order: list[str] = []

    def ask(name: str, most: int) -> None:
        order.append(name if part.take(0, most) is not None else f"{name}: nothing")

    waiting = [gevent.spawn(ask, "a", 60), gevent.spawn(ask, "b", 1)]
    gevent.idle()
    assert order == [], "the second would fit, but it is not its turn"
    assert part.told == [("token_budget", False)]
    part.settle(first, (10, 5))
    gevent.joinall(waiting)
    assert order == ["a", "b"]


def test_all_who_wait_learn_that_nothing_is_left() -> None:
    part = Watched(tokens=100)
    first = taken(part, 0, 100)
    waiting = [gevent.spawn(part.take, 0, 50) for _ in range(3)]
    gevent.idle()
    part.settle(first, (0, 90))
    gevent.joinall(waiting)
    assert [each.value for each in waiting] == [None] * 3
    assert part.told[-1] == ("token_budget", True)


def test_a_stop_wakes_all_who_wait() -> None:
    part = Watched(tokens=100)
    taken(part, 0, 100)
    waiting = [*(gevent.spawn(part.take, 0, 50) for _ in range(3)), gevent.spawn(part.stopped.wait)]
    gevent.idle()
    part.stop()
    gevent.joinall(waiting)
    assert [each.value for each in waiting] == [None, None, None, True]
    assert not part.drained


def test_after_a_stop_tasks_that_are_on_still_send() -> None:
    """Their later requests, and those that were due before it and are late."""
    part = Watched()
    part.stop()
    assert part.take(0, None) is not None


def test_a_source_that_is_used_up_lets_tasks_that_are_on_go_on() -> None:
    """A conversation that thinks has nothing in flight, and is not over."""
    part = Watched()
    part.begin()
    part.begin()
    part.end()
    part.use_up("dataset")
    assert part.told == [("dataset", False)]
    assert part.used_up and not part.spent
    part.settle(taken(part), (1, 1))
    assert part.told == [("dataset", False)]
    part.end()
    assert part.told[-1] == ("dataset", True)


def test_a_run_loads_no_locust() -> None:
    """It would patch whatever process looks into a run: tests, and the calibration."""
    program = "import sys, tokenswarm.run; print('locust' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
