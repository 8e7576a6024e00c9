"""Seats and numbered batches: what is missing is known, what comes twice counts once."""

from __future__ import annotations

from typing import Any

import pytest
from test_messages import batch

from tokenswarm.errors import MessageError
from tokenswarm.recording.ledger import FARTHEST_AHEAD, Ledger, Seat, Worker
from tokenswarm.recording.messages import Done, Totals


def seat() -> Seat:
    return Seat(Worker(index=0))


def numbers(taker: Seat, *seqs: int) -> list[bool]:
    return [taker.take(batch(seq=seq)) for seq in seqs]


def done(batches: int) -> Done:
    return Done(run="r", worker=0, batches=batches)


def test_batches_in_order_are_complete_once_the_last_is_here() -> None:
    taker = seat()
    assert numbers(taker, 0, 1, 2) == [True] * 3
    assert not taker.complete
    taker.done(done(3))
    assert taker.complete
    assert taker.worker.rows == 6
    assert taker.worker.batches == 3


def test_a_batch_that_comes_twice_counts_once() -> None:
    taker = seat()
    assert numbers(taker, 0, 1, 1, 0, 2) == [True, True, False, False, True]
    assert taker.worker.rows == 6


def test_a_gap_is_missing_until_it_is_filled() -> None:
    taker = seat()
    assert numbers(taker, 0, 3)
    taker.done(done(4))
    assert (taker.missing, taker.worker.missing_batches, taker.complete) == (2, 2, False)
    assert numbers(taker, 2, 1) == [True, True]
    assert (taker.missing, taker.worker.missing_batches, taker.complete) == (0, 0, True)


def test_batches_after_the_last_that_came_are_missing_too() -> None:
    taker = seat()
    numbers(taker, 0)
    taker.done(done(3))
    assert (taker.missing, taker.complete) == (2, False)


def test_an_older_batch_does_not_turn_the_totals_back() -> None:
    taker = seat()
    taker.take(batch(seq=1, totals=Totals(ok=9), in_flight=1))
    taker.take(batch(seq=0, totals=Totals(ok=4), in_flight=5))
    assert taker.totals.ok == 9
    assert taker.worker.in_flight == 1


def test_the_largest_uncertainty_and_the_last_offset_are_kept() -> None:
    taker = seat()
    for seq, (offset, uncertainty) in enumerate([(5_000_000, 400_000), (6_000_000, 100_000)]):
        taker.take(batch(seq=seq, offset_ns=offset, uncertainty_ns=uncertainty))
    assert (taker.worker.clock_offset_ms, taker.worker.clock_uncertainty_ms) == (6.0, 0.4)


def test_absurd_numbers_are_refused_and_cost_nothing() -> None:
    taker = seat()
    with pytest.raises(MessageError, match="far past"):
        taker.take(batch(seq=FARTHEST_AHEAD + 1))
    numbers(taker, 0, 1)
    for claimed in (1, FARTHEST_AHEAD * 2):
        with pytest.raises(MessageError, match="says that it sent"):
            taker.done(done(claimed))
    taker.done(done(2))
    assert taker.complete


def test_workers_sit_in_the_order_of_the_start_and_others_behind_them() -> None:
    ledger = Ledger(["a", "b", "c"])
    assert [ledger.join(name).worker.index for name in ("c", "late", "a", "later")] == [2, 3, 0, 4]
    assert ledger.absent() == ["b"]
    assert [taken.worker.index for taken in ledger] == [0, 2, 3, 4]


def test_a_worker_that_begins_anew_in_the_same_run_gets_another_seat() -> None:
    ledger = Ledger(["a"])
    seats = []
    for _ in range(3):
        seats.append(ledger.join("a"))
        seats[-1].take(batch(seq=0))
    assert [taken.worker.index for taken in seats] == [0, 1, 2]


def test_a_worker_that_only_asks_again_keeps_its_seat() -> None:
    ledger = Ledger(["a"])
    assert [ledger.join(name).worker.index for name in ("a", "a", "b", "b", "a")] == [0, 0, 1, 1, 0]


def test_nobody_writes_from_anothers_seat() -> None:
    ledger = Ledger(["a", "b"])
    ledger.join("a")
    assert ledger.seat(0, "a").worker.client_id == "a"
    for index, client in ((0, "b"), (1, "b"), (7, "a")):
        with pytest.raises(MessageError, match=f"worker {index}"):
            ledger.seat(index, client)


def test_what_workers_tell_is_added_up() -> None:
    ledger = Ledger(["a", "b"])
    for name in ("a", "b"):
        ledger.join(name).take(batch(seq=0, totals=Totals(ok=2), in_flight=3, exceptions={"x": 1, name: 5}))
    assert ledger.totals().ok == 4
    assert ledger.in_flight() == 6
    assert ledger.exceptions() == {"a": 5, "b": 5, "x": 2}


def told(ledger: Ledger, index: int, **state: Any) -> None:
    """A report of the worker with that seat."""
    seat = next(seat for seat in ledger if seat.worker.index == index)
    seat.take(batch(seq=seat.worker.batches, worker=index, **state))


def through(ledger: Ledger, gone: tuple[int, ...] = (), spawned: bool = True) -> tuple[str, list[int]]:
    why, idle = ledger.through(lambda seat: seat.worker.index in gone, spawned)
    return why, [seat.worker.index for seat in idle]


def two_at_work() -> Ledger:
    ledger = Ledger(["a", "b"])
    for index, name in enumerate("ab"):
        ledger.join(name)
        told(ledger, index, users=3, totals=Totals(started=5))
    return ledger


DRAINED = {"users": 3, "through": "requests", "drained": True, "totals": Totals(started=9)}


def test_a_run_is_through_when_every_worker_is_and_nothing_is_in_flight() -> None:
    ledger = two_at_work()
    told(ledger, 0, **DRAINED)
    assert through(ledger) == ("", [])
    told(ledger, 1, **{**DRAINED, "drained": False})
    assert through(ledger) == ("", []), "its last replies are still to come"
    told(ledger, 1, **DRAINED)
    assert through(ledger) == ("requests", [])


def test_nobody_is_looked_for_while_all_are_at_work() -> None:
    """The master asks with every report, and whether a process lives takes a while to find out."""

    def gone(seat: Seat) -> bool:
        raise AssertionError(f"nobody needs to know of worker {seat.worker.index}")

    assert two_at_work().through(gone, spawned=True) == ("", [])


def test_a_worker_that_is_gone_is_not_waited_for() -> None:
    ledger = two_at_work()
    assert through(ledger, gone=(1,)) == ("", [])
    told(ledger, 0, **DRAINED)
    assert through(ledger, gone=(1,)) == ("requests", [])


def test_a_worker_without_users_is_not_waited_for_once_all_users_are_there() -> None:
    ledger = Ledger(["a", "b"])
    for index, name in enumerate("ab"):
        ledger.join(name)
        told(ledger, index, users=0)
    told(ledger, 0, **DRAINED)
    assert through(ledger, spawned=False) == ("", [])
    assert through(ledger) == ("requests", [1])
    told(ledger, 1, users=1)
    assert through(ledger) == ("", [])


def test_a_worker_that_has_not_reported_yet_is_waited_for() -> None:
    ledger = Ledger(["a", "b"])
    ledger.join("a")
    ledger.join("b")
    told(ledger, 0, **DRAINED)
    assert through(ledger) == ("", [])
