"""One level of a search for capacity, fed by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tokenswarm.load.bracket import BISECT, COARSE, CONFIRM, FINE, Next
from tokenswarm.load.observing import ended
from tokenswarm.load.probe import Ended, Probe
from tokenswarm.load.sequential import FAIL, PASS, UNDECIDED
from tokenswarm.record import RequestRecord, csv_rows
from tokenswarm.slo import parse_slo

START = 1000.0


def probe(kind: str = BISECT, users: int = 10, slo: str = "ttft_p95<500ms", **settings: object) -> Probe:
    given = {"open_loop": False, "settling": None, **settings}
    return Probe(Next(users, kind), parse_slo(slo), START, **given)  # type: ignore[arg-type]


def reply(end: float, ttft: float = 100.0, seconds: float = 0.5) -> Ended:
    return Ended(status="ok", start=end - seconds, end=end, figures={"ttft_ms": ttft})


def until_decided(
    tried: Probe, ttft: Callable[[float], float], a_second: int = 20, in_flight: Callable[[float], int] = lambda _: 10
) -> float:
    """Seconds until it is decided, of a server whose TTFT and requests in flight follow the time."""
    for second in range(2000):
        replies = ((second + (each + 0.5) / a_second) for each in range(a_second))
        tried.feed(reply(START + at, ttft(at) + (each % 7)) for each, at in enumerate(replies))
        if tried.tick(START + second + 1, in_flight(second + 1)) is not None:
            return second + 1.0
    raise AssertionError("never decided")


def test_nothing_counts_before_the_level_is_there_and_has_settled() -> None:
    """Until a second after its users came, first tokens took 2 s; the first second's requests belong to the level
    before. All that counts is what ended in the half of the time that was flat."""
    tried = probe()
    tried.feed(reply(START + 0.1 * n, 9000.0, seconds=0.1 * n + 0.01) for n in range(1, 100))
    until_decided(tried, lambda at: 2000.0 if at < 1 else 100.0)
    assert tried.decision == PASS
    assert tried.measured_from is not None
    assert tried.measured_from >= START + 1.5
    assert tried.told()["objectives"][0]["misses"] == 0


def test_a_level_settles_for_two_median_requests_at_least() -> None:
    for seconds, settled in ((0.1, 3.0), (4.0, 8.0)):
        tried = probe(COARSE, users=1)
        for second in range(1, 30):
            tried.feed([reply(START + second + 0.5, seconds=min(seconds, second + 0.5))] * 3)
            tried.tick(START + second + 1, 1)
            if tried.measured_from is not None:
                break
        assert START + second + 1 == pytest.approx(START + settled, abs=1.0), seconds


def test_a_confirmation_takes_twice_as_many_requests() -> None:
    plain, confirmed = probe(), probe(CONFIRM)
    for each in (plain, confirmed):
        until_decided(each, lambda _: 100.0, a_second=10)
        assert each.decision == PASS
    assert 80 <= plain.told()["requests"] <= 100
    assert 160 <= confirmed.told()["requests"] <= 180


def test_what_workers_have_not_told_yet_does_not_lower_the_rate() -> None:
    """They tell once a second; 20 requests end in each."""
    tried = probe()
    for second in range(30):
        told = [reply(START + second + (each + 0.5) / 20) for each in range(20)]
        tried.feed(told[:4])  # the others come with the next report, after the level is decided
        if tried.tick(START + second + 1, 10) is not None:
            break
        tried.feed(told[4:])
    assert tried.decision == PASS
    assert tried.told()["requests_per_s"] == pytest.approx(20, rel=0.05)


def test_on_the_way_up_a_level_only_has_to_look_fine() -> None:
    tried = probe(COARSE, users=2)
    until_decided(tried, lambda _: 100.0, a_second=4)
    assert (tried.decision, tried.binding) == (FINE, None)
    assert tried.told()["requests"] < 20


def test_a_queue_that_grows_is_a_fail_before_any_goal_is_missed() -> None:
    tried = probe(open_loop=True, slo="ttft_p95<9000s")
    taken = until_decided(tried, lambda _: 100.0, in_flight=lambda second: 5 + 8 * int(second))
    assert (tried.decision, tried.binding) == (FAIL, "queue")
    assert 10 <= taken < 20


def test_what_grows_for_a_minute_in_the_closed_loop_is_a_fail() -> None:
    tried = probe(slo="ttft_p95<9000s")
    assert until_decided(tried, lambda at: 100.0 + 50.0 * at) == 60
    assert (tried.decision, tried.binding) == (FAIL, "queue")


def test_all_objectives_must_pass_and_the_one_that_fails_binds() -> None:
    tried = probe(slo="ttft_p95<500ms ttft_p50<90ms e2e_p95<9s")
    until_decided(tried, lambda _: 100.0)
    assert (tried.decision, tried.binding) == (FAIL, "ttft_p50<90ms")


def test_what_is_not_measured_is_undecided_when_the_time_is_over() -> None:
    tried = probe(slo="tpot_p95<50ms")
    assert until_decided(tried, lambda _: 100.0, a_second=2) > 600
    assert tried.decision == UNDECIDED


def test_rows_are_read_as_workers_send_them() -> None:
    record = RequestRecord(id="a", status="ok", start_time=5.5, intended_time=5.25, end_time=7.5, ttft_ms=12.5)
    record.pool_ms, record.send_ms, record.tpot_ms, record.error = 1.0, 0.5, 20.0, 'said "no",\r\nand left'
    shed = RequestRecord(id="b", status="shed", intended_time=6.0)
    first, second = ended(csv_rows([record, shed]).encode())
    assert (first.status, first.start, first.end, first.before_sent_ms) == ("ok", 5.5, 7.5, 1.5)
    assert first.figures == {"ttft_ms": 12.5, "tpot_ms": 20.0}
    assert (second.status, second.start, second.end, second.before_sent_ms) == ("shed", 6.0, 6.0, None)


def test_a_retry_is_no_lateness_of_our_own() -> None:
    late, again = (RequestRecord(id=str(n), status="ok", start_time=5.0, queue_ms=700.0) for n in range(2))
    again.parent = "0"
    first, second = ended(csv_rows([late, again]).encode())
    assert (first.figures, second.figures) == ({"queue_ms": 700.0}, {})
