"""The search for capacity against a made-up server whose capacity is known; time is made up as well."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tokenswarm.load.bracket import ABOVE, BISECT, CLIENT, COARSE, CONFIRM, FINE, Bracket, Next
from tokenswarm.load.capacity import Search
from tokenswarm.load.probe import Ended
from tokenswarm.load.sequential import FAIL, PASS, UNDECIDED
from tokenswarm.load.trend import grows, slope
from tokenswarm.slo import parse_slo


def levels(bracket: Bracket, capacity: int) -> list[Next]:
    """What is tried if every test tells the truth."""
    tried = []
    while (coming := bracket.next()) is not None:
        tried.append(coming)
        good = FINE if coming.kind == COARSE else PASS
        bracket.record(coming, good if coming.level <= capacity else FAIL)
    return tried


def test_levels_go_up_by_half_then_halve_the_rest_and_are_confirmed() -> None:
    bracket = Bracket(most=1000)
    assert levels(bracket, capacity=100) == [
        *(Next(level, COARSE) for level in (1, 2, 3, 4, 6, 9, 13, 19, 28, 42, 63, 94, 141)),
        *(Next(level, BISECT) for level in (117, 105, 99, 102)),
        Next(99, CONFIRM),
        Next(109, ABOVE),
    ]
    assert (bracket.passed, bracket.failed, bracket.confirmed) == (99, 102, True)


@pytest.mark.parametrize("capacity", [*range(1, 40), 137, 999])
def test_the_answer_is_within_5_per_cent_or_one_user(capacity: int) -> None:
    bracket = Bracket(most=2000)
    tried = levels(bracket, capacity)
    assert bracket.passed is not None
    assert bracket.failed is not None
    assert bracket.passed <= capacity < bracket.failed
    assert bracket.failed - bracket.passed <= max(1, 0.05 * capacity)
    assert max(Counter(tried).values()) == 1


def test_a_level_that_was_only_fine_must_still_pass() -> None:
    bracket = Bracket(most=100)
    for level in (1, 2, 3):
        bracket.record(Next(level, COARSE), FINE)
    bracket.record(Next(4, COARSE), FAIL)
    assert bracket.next() == Next(3, CONFIRM)
    bracket.record(Next(3, CONFIRM), FAIL)
    assert bracket.next() == Next(2, CONFIRM)
    bracket.record(Next(2, CONFIRM), PASS)
    assert bracket.next() is None, "3 is the level clearly above, and has failed"
    assert (bracket.passed, bracket.failed, bracket.contradictions) == (2, 3, 0)


def test_a_pass_above_a_fail_takes_the_fail_back_and_too_many_of_them_end_the_search() -> None:
    bracket = Bracket(most=100)
    for turn in range(3):
        bracket.record(Next(20, COARSE), FAIL)
        bracket.record(Next(22, ABOVE), PASS)
        assert (bracket.contradictions, bracket.low, bracket.failed) == (turn + 1, 22, None)
        if turn < 2:
            bracket.record(Next(22, ABOVE), FAIL)
            bracket.contradictions -= 1  # of the fail just now
    assert bracket.next() is None


def test_an_undecided_level_is_neither() -> None:
    bracket = Bracket(most=100)
    bracket.record(Next(10, COARSE), FINE)
    bracket.record(Next(15, COARSE), UNDECIDED)
    assert bracket.next() == Next(22, COARSE), "on to the first clear fail"
    bracket.record(Next(22, COARSE), FAIL)
    assert bracket.next() == Next(12, BISECT)
    assert (bracket.low, bracket.high, bracket.failed) == (10, 15, 22)


def test_a_slope_is_found_through_noise_and_none_where_there_is_none() -> None:
    rng = random.Random(5)
    flat = [(t / 10, 100 + rng.gauss(0, 10)) for t in range(200)]
    rising = [(at, figure + at) for at, figure in flat]
    low, high = slope(flat, 0.0, 20.0) or (0.0, 0.0)
    assert low < 0 < high
    low, high = slope(rising, 0.0, 20.0) or (0.0, 0.0)
    assert low < 1.0 < high
    assert (grows(flat, 0.0, 20.0), grows(rising, 0.0, 20.0), grows(flat[:2], 0.0, 20.0)) == (False, True, None)


class Queue:
    """A server of so many places and lognormal service times, first come, first served; a client that is told what it
    does. Its own time, in steps of a second as Locust's shapes have them."""

    def __init__(self, places: int, service: float, *, arrivals: float | None = None, seed: int = 0) -> None:
        self.now = 1000.0
        self.users = 0
        self.in_flight = 0
        self._leaving = 0
        self.asked: list[int] = []
        self._free = [self.now] * places
        self._service = service
        self._rate = arrivals
        self._random = random.Random(f"queue {seed}")
        self._sends: list[float] = []
        self._replies: list[tuple[float, float, float]] = []
        self._due = self.now

    def ask(self, users: int) -> None:
        self.asked.append(users)
        if self._rate is None:
            for _ in range(users - self.users):
                self._sends.append(self.now + self._random.random() * self._service)
            heapq.heapify(self._sends)
            self._leaving = max(0, self.users - users)
        elif users and not self.users:
            self._due = self.now
        self.users = users

    def second(self) -> list[Ended]:
        """What ends in the next one."""
        until, ended = self.now + 1.0, []
        while True:
            if self._rate is not None and self.users:
                while self._due < until:
                    heapq.heappush(self._sends, self._due)
                    self._due += self._random.expovariate(self._rate * self.users)
            sends = self._sends[0] if self._sends else until
            if self._replies and self._replies[0][0] < min(sends, until):
                end, start, first = heapq.heappop(self._replies)
                ended.append(self._ended(start, first, end))
                if self._rate is None:
                    if self._leaving:
                        self._leaving -= 1
                    else:
                        heapq.heappush(self._sends, end)
            elif sends < until:
                start = heapq.heappop(self._sends)
                begun = max(start, heapq.heappop(self._free))
                end = begun + self._service * self._random.lognormvariate(-0.02, 0.2)
                heapq.heappush(self._free, end)
                heapq.heappush(self._replies, (end, start, begun + 0.01))
            else:
                break
        self.now, self.in_flight = until, len(self._replies)
        return ended

    def _ended(self, start: float, first: float, end: float) -> Ended:
        ttft = (first - start) * 1e3
        figures = {"ttft_ms": ttft, "ttft_low_ms": ttft, "e2e_ms": (end - start) * 1e3}
        return Ended(status="ok", start=start, end=end, figures=figures, before_sent_ms=0.1)

    @property
    def running(self) -> int:
        """Users that are there, those included that wait for their last reply."""
        return self.users if self.users or self._rate is not None else len(self._replies)


Change = Callable[[int, Ended], Ended]


def searched(queue: Queue, slo: str, change: Change | None = None, **settings: Any) -> Search:
    """A search to its end. `change` may alter what has ended, given the users that were asked for."""
    search = Search(parse_slo(slo), **{"most": 500, **settings})
    for _ in range(20_000):
        asked = search.tick(queue.now, queue.running, queue.in_flight)
        if asked is None:
            return search
        if asked != queue.users:
            queue.ask(asked)
        ended = queue.second()
        search.feed(ended if change is None else (change(asked, each) for each in ended))
    raise AssertionError(f"it does not end: {search.probes[-3:]}")


@pytest.mark.parametrize("seed", range(4))
def test_a_closed_loop_has_room_for_as_many_users_as_the_server_has_places(seed: int) -> None:
    """While there is a place for everybody the first token takes 10 ms. With U users on S places U - S of them wait at
    any time, so that a share of about (U - S) / U waits: with a p90 against 20 ms the limit is at U - S = U / 10."""
    search = searched(Queue(places=30, service=1.0, seed=seed), "ttft_p90<20ms")
    answer = search.answer
    assert answer is not None
    assert answer["why"] == "found"
    assert 30 <= answer["users"] < answer["failed_users"] <= 36
    assert answer["confirmed"]
    assert answer["binding"] == "ttft_p90<20ms"
    assert {probe["decision"] for probe in search.probes if probe["users"] > 36} == {FAIL}


def test_an_open_loop_finds_a_rate_below_what_the_places_can_serve() -> None:
    """Ten places of a second each serve at most 10 requests a second. By Erlang's formula fewer than 5 % wait for more
    than 0.5 s up to some 8 a second, and over 10 a second the queue grows without end."""
    search = searched(Queue(10, 1.0, arrivals=0.1, seed=1), "ttft_p95<510ms", rate_per_user=0.1)
    answer = search.answer
    assert answer is not None
    assert answer["why"] == "found"
    assert 6.5 < answer["rate"] < answer["failed_rate"] <= 10.0
    assert answer["rate"] == pytest.approx(answer["users"] * 0.1)


def test_a_queue_that_grows_fails_at_once() -> None:
    """Objectives that nothing could miss: only the queue tells that 20 requests a second are too many for 10."""
    search = searched(Queue(10, 1.0, arrivals=1.0, seed=2), "ttft_p95<9000s", rate_per_user=1.0)
    answer = search.answer
    assert answer is not None
    assert answer["binding"] == "queue"
    assert 8 <= answer["users"] < answer["failed_users"] <= 12


def test_an_overload_is_drained_before_the_next_level_is_tried() -> None:
    queue = Queue(10, 1.0, seed=3)
    probes = searched(queue, "ttft_p90<20ms").probes
    assert FAIL in {probe["decision"] for probe in probes[:-1]}
    levels = [level for probe in probes for level in (probe["users"], *([0] if probe["decision"] == FAIL else []))]
    expected = [level for before, level in zip([None, *levels], levels, strict=False) if level != before]
    assert queue.asked == (expected[:-1] if expected[-1] == 0 else expected), "the end of the run drains by itself"


def test_nothing_passes_where_one_user_is_too_many() -> None:
    search = searched(Queue(10, 1.0), "e2e_p95<100ms")
    assert search.answer is not None
    assert (search.answer["why"], search.answer["users"], search.answer["failed_users"]) == ("nothing passes", None, 1)
    assert len(search.probes) == 1


def test_what_is_never_reached_is_said() -> None:
    search = searched(Queue(200, 1.0), "ttft_p95<20ms", most=20)
    assert search.answer is not None
    assert (search.answer["why"], search.answer["users"], search.answer["failed_users"]) == ("not reached", 20, None)
    assert search.answer["confirmed"]


def test_an_end_of_the_time_leaves_what_is_known() -> None:
    search = searched(Queue(30, 1.0), "ttft_p90<20ms", time_limit=60)
    assert search.answer is not None
    assert search.answer["why"] == "time"
    assert not search.answer["confirmed"]


def less_sure(each: Ended) -> dict[str, float]:
    return {**each.figures, "ttft_low_ms": each.figures["ttft_ms"] * 0.5 - 2}


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        (lambda each: {"before_sent_ms": 5.0}, "send_delay"),
        (lambda each: {"figures": less_sure(each)}, "ttft_bounds"),
        (lambda each: {"figures": {**each.figures, "queue_ms": 60.0}}, "schedule_lag"),
    ],
)
def test_where_our_own_client_is_the_limit_the_answer_says_so(
    fault: Callable[[Ended], dict[str, Any]], rule: str
) -> None:
    def spoil(users: int, each: Ended) -> Ended:
        return msgspec.structs.replace(each, **fault(each)) if users > 10 else each

    search = searched(Queue(30, 1.0, arrivals=1.0), "ttft_p95<500ms", spoil, rate_per_user=1.0, most=100)
    answer = search.answer
    assert answer is not None
    assert (answer["why"], answer["users"], answer["failed_users"]) == (CLIENT, 10, None)
    limited = [probe for probe in search.probes if probe["decision"] == CLIENT]
    assert {found["rule"] for probe in limited for found in probe["client"]} == {rule}
    assert all(probe["users"] > 10 for probe in limited)


def test_failures_are_misses() -> None:
    rng = random.Random(1)

    def fail(users: int, each: Ended) -> Ended:
        broken = users > 8 and rng.random() < 0.3
        return Ended(status="failed", start=each.start, end=each.end, figures={}) if broken else each

    answer = searched(Queue(30, 1.0), "ttft_p95<500ms error_rate<5%", fail).answer
    assert answer is not None
    assert (answer["users"], answer["failed_users"]) == (8, 9)


def test_users_that_never_come_end_the_search() -> None:
    search, now = Search(parse_slo("ttft_p95<500ms"), most=10), 0.0
    while search.tick(now, 0, 0) is not None:
        now += 1.0
        assert now < 100
    assert search.answer is not None
    assert (search.answer["why"], search.answer["users"]) == ("stuck", None)
