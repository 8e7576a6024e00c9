"""The recorder hands on once a second, in pieces between which others go first: whatever happens there, every row goes
out once, and belongs to the batch whose counts have it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from tokenswarm.record import RequestRecord
from tokenswarm.recording.messages import Batch
from tokenswarm.recording.recorder import ROWS_AT_ONCE, Recorder
from tokenswarm.timing import Anchor, Timeline


class Request:
    """One in flight, which its owner ends."""

    messages: tuple[Any, ...] = ()

    def __init__(self, recorder: Recorder, number: int) -> None:
        self.record = RequestRecord(id=f"r{number}", worker=3)
        self.timeline = Timeline(0, 0)
        self._recorder = recorder
        recorder.open(self)

    def end(self, status: str) -> bool:
        self.record.status = status
        self._recorder.close(self, None)
        return True

    def tell(self) -> None:
        pass


@pytest.fixture
def sent() -> list[Batch]:
    return []


@pytest.fixture
def recorder(sent: list[Batch]) -> Iterator[Recorder]:
    made = Recorder("run", 3, Anchor(0, 0), lambda: (5, 6), lambda: 0, sent.append)
    yield made
    made._health.close()


def ids(batch: Batch) -> list[str]:
    return [line.split(",", 1)[0] for line in batch.rows.decode().splitlines()]


def ended(batch: Batch) -> int:
    return sum(json.loads(batch.interval)["ended"].values())


def test_what_ends_between_two_pieces_is_of_the_next_batch(recorder: Recorder, sent: list[Batch]) -> None:
    many = 2 * ROWS_AT_ONCE + 1
    for number in range(many):
        Request(recorder, number).end("ok")
    late = iter(range(many, 2 * many))
    recorder.tick(lambda: Request(recorder, next(late)).end("ok") and None)
    recorder.tick()
    first, second = sent
    assert ids(first) == [f"r{number}" for number in range(many)]
    assert (first.row_count, ended(first), first.totals.ended, first.seq) == (many, many, many, 0)
    pauses = next(late) - many
    assert pauses > many // ROWS_AT_ONCE, "rows, histograms and the machine's health are pieces of their own"
    assert ids(second) == [f"r{number}" for number in range(many, many + pauses)]
    assert (second.row_count, ended(second), second.totals.ended, second.seq) == (pauses, pauses, many + pauses, 1)


def test_a_run_that_ends_between_two_pieces_loses_nothing(recorder: Recorder, sent: list[Batch]) -> None:
    Request(recorder, 0).end("ok")
    still_on = Request(recorder, 1)
    ticker = gevent.spawn(recorder.tick, gevent.sleep)
    gevent.sleep(0)
    assert recorder.batches == 1 and not sent, "it has begun"
    ticker.kill()
    assert recorder.finish() == [still_on]
    assert [ids(batch) for batch in sent] == [["r0"], ["r1"]]
    assert [batch.in_flight for batch in sent] == [1, 0]
    assert recorder.batches == 2 == len({batch.seq for batch in sent})


def test_a_tick_that_fails_does_not_stop_the_next(recorder: Recorder, sent: list[Batch]) -> None:
    def refuse(batch: Batch) -> None:
        raise RuntimeError("no")

    recorder._sink = refuse
    with pytest.raises(RuntimeError):
        recorder.tick()
    recorder._sink = sent.append
    recorder.tick()
    assert [batch.seq for batch in sent] == [1]
