"""The way to the master: what was not confirmed is sent again, and in the end written on the worker's own machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_messages import batch

from tokenswarm.recording import shipping
from tokenswarm.recording.messages import Batch, Done, decode, kind
from tokenswarm.recording.shipping import Shipper


class Wire:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.broken = False

    def __call__(self, name: str, data: bytes) -> None:
        if not self.broken:
            self.sent.append((name, data))

    def numbers(self) -> list[int]:
        return [decode(data, Batch).seq for name, data in self.sent if name == kind(Batch)]


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_confirmed_batches_are_let_go(wire: Wire) -> None:
    shipper = Shipper(0, wire)
    for seq in range(3):
        shipper.ship(batch(seq=seq))
    shipper.done(Done(run="r", worker=0, batches=3))
    assert wire.numbers() == [0, 1, 2]
    assert wire.sent[-1][0] == kind(Done)
    for seq in (2, 0, 1, 99):
        shipper.taken(seq)
    assert not shipper.delivered
    shipper.taken(3)
    assert shipper.delivered


def test_what_is_not_confirmed_is_sent_again(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    shipper = Shipper(0, wire)
    shipper.ship(batch(seq=0))
    shipper.ship(batch(seq=1))
    shipper.taken(1)
    assert wire.numbers() == [0, 1], "not at once: it may be on its way"
    monkeypatch.setattr(shipping, "RESEND_SECONDS", 0.0)
    shipper.send_again()
    assert wire.numbers() == [0, 1, 0]


def test_a_broken_connection_loses_nothing(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    shipper = Shipper(0, wire)
    wire.broken = True
    shipper.ship(batch(seq=0))
    wire.broken = False
    monkeypatch.setattr(shipping, "RESEND_SECONDS", 0.0)
    shipper.send_again()
    assert wire.numbers() == [0]


def test_what_never_arrived_is_written_here(wire: Wire, tmp_path: Path) -> None:
    shipper = Shipper(2, wire)
    for seq in range(3):
        fields: dict[str, Any] = {"responses": b'{"id":"x"}\n'} if seq == 2 else {}
        shipper.ship(batch(seq=seq, rows=b"row %d\n" % seq, row_count=1, **fields))
    shipper.done(Done(run="r", worker=2, batches=3))
    shipper.taken(1)
    rescued = shipper.rescue(tmp_path / "run-worker-2")
    assert rescued == (tmp_path / "run-worker-2", 2)
    lines = (tmp_path / "run-worker-2" / "requests.csv").read_text().splitlines()
    assert lines[0].startswith("id,worker,")
    assert lines[1:] == ["row 0", "row 2"]
    assert len((tmp_path / "run-worker-2" / "intervals.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "run-worker-2" / "responses.jsonl").exists()
    assert shipper.delivered
    assert shipper.rescue(tmp_path / "again") is None
