"""Every worker learns of every step of the load, also where messages are lost."""

from __future__ import annotations

import msgspec

from tokenswarm.recording.ledger import Ledger
from tokenswarm.recording.messages import Batch, Step, Totals
from tokenswarm.session.telling import HEARD_SECONDS, Telling

FIRST = Step(run="r", serial=1, number=0, users=30, at=100.0)
SECOND = Step(run="r", serial=2, number=1, users=60, at=110.0)


class Cluster:
    """A master and two workers with 10 and 20 users; what is sent to `deaf` ones is lost."""

    def __init__(self) -> None:
        self.clients = {"a": 10, "b": 20}
        self.deaf: set[str] = set()
        self.heard: list[tuple[str, Step]] = []
        self.ledger = Ledger(["a", "b"])
        for client in self.clients:
            self.ledger.join(client)
        self.telling = Telling(self.send, lambda: self.clients)
        self.sequence = {"a": 0, "b": 0}

    def send(self, client: str, step: Step) -> None:
        if client not in self.deaf:
            self.heard.append((client, step))

    def report(self, client: str) -> None:
        """A batch with what its worker knows."""
        known = max((step.serial for who, step in self.heard if who == client), default=-1)
        index = list(self.clients).index(client)
        batch = Batch(
            run="r", worker=index, seq=self.sequence[client], rows=b"", row_count=0, interval=b"", responses=b"",
            totals=Totals(), in_flight=0, step=known,
        )  # fmt: skip
        self.sequence[client] += 1
        self.ledger.seat(index, client).take(batch)

    def tell(self, step: Step, now: float) -> None:
        self.telling.tell(step, self.ledger, now)

    def look(self, now: float) -> None:
        self.telling.repeat("r", self.ledger, now)


def test_each_worker_is_told_how_many_users_sit_before_its_own() -> None:
    cluster = Cluster()
    cluster.tell(FIRST, 0.0)
    assert cluster.heard == [
        ("a", msgspec.structs.replace(FIRST, before=0, own=10)),
        ("b", msgspec.structs.replace(FIRST, before=10, own=20)),
    ]


def test_a_worker_whose_message_was_lost_is_told_again_and_nobody_else() -> None:
    cluster = Cluster()
    cluster.tell(FIRST, 0.0)
    cluster.deaf = {"b"}
    cluster.tell(SECOND, 10.0)
    cluster.deaf, cluster.heard[2:] = set(), [("a", SECOND)]
    for client in "ab":
        cluster.report(client)
    cluster.look(10.0 + HEARD_SECONDS / 2)
    assert len(cluster.heard) == 3, "its report may have been on its way already"
    cluster.look(10.1 + HEARD_SECONDS)
    assert cluster.heard[3:] == [("b", msgspec.structs.replace(SECOND, before=10, own=20))]
    cluster.report("b")
    cluster.look(20.0 + HEARD_SECONDS)
    assert len(cluster.heard) == 4, "it has heard"


def test_a_worker_that_has_not_reported_yet_or_has_gone_is_left_alone() -> None:
    cluster = Cluster()
    cluster.deaf = {"a", "b"}
    cluster.tell(FIRST, 0.0)
    cluster.deaf = set()
    cluster.report("a")
    del cluster.clients["a"]
    cluster.look(100.0)
    assert cluster.heard == []


def test_users_that_moved_to_another_worker_are_noticed() -> None:
    cluster = Cluster()
    cluster.tell(FIRST, 0.0)
    assert not cluster.telling.is_outdated(cluster.ledger)
    cluster.clients["b"] = 15
    assert cluster.telling.is_outdated(cluster.ledger), "the last one's part ends somewhere else"
    cluster.clients |= {"a": 15, "b": 20}
    assert cluster.telling.is_outdated(cluster.ledger)
