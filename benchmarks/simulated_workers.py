"""Many Locust workers in one process, without load: they say what workers say. For master_rate.py, which starts it.

    python benchmarks/simulated_workers.py PORT WORKERS ROWS

Each ships ROWS rows a second, out of step with the others, until the master asks to finish and has confirmed the last
batch of each. Then one line of JSON tells how long confirmations took. Ends when it is killed.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import Any

import locust
import msgpack  # type: ignore[import-untyped]
import zmq
from locust.stats import RequestStats

import tokenswarm
from tokenswarm.record import RequestRecord, csv_rows
from tokenswarm.recording.messages import (
    Assignment,
    Batch,
    Done,
    Finish,
    Hello,
    Message,
    Ping,
    Pong,
    Ready,
    Taken,
    Totals,
    decode,
    encode,
    kind,
)
from tokenswarm.timing import percentile

POLL_MS = 20
INTERVAL_BYTES = 2500
"""What an interval line of a busy worker takes."""


class Peer:
    """One worker without load."""

    def __init__(self, port: int, number: int, of: int, rows: bytes, row_count: int, report: dict[str, Any]) -> None:
        self.identity = f"simulated-{number}"
        self.socket: Any = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, self.identity.encode())
        self.socket.connect(f"tcp://127.0.0.1:{port}")
        self.sent_rows = 0
        self.ended = False
        self.confirmed: list[int] = []
        self.trips: list[int] = []
        self._rows, self._row_count, self._report = rows, row_count, report
        self._due = time.monotonic() + number / of
        self._seconds = 0
        self._state = "ready"
        self._place: Assignment | None = None
        self._seq = 0
        self._sent_at: dict[int, int] = {}
        self._finishing = False
        self._say("client_ready", locust.__version__)

    def hear(self) -> None:
        """Answer what the master says."""
        name, data, _ = msgpack.loads(self.socket.recv(), raw=False, strict_map_key=False)
        if name == "spawn":
            self._spawn(data["user_classes_count"])
        elif name == kind(Assignment):
            self._place = decode(data, Assignment)
            self._tell(Ready(run=self._place.run, worker=self._place.worker, model="m", clock="kernel"))
        elif name == kind(Taken):
            seq = decode(data, Taken).seq
            if seq in self._sent_at:
                self.confirmed.append(time.monotonic_ns() - self._sent_at.pop(seq))
            self.ended = self._finishing and not self._sent_at
        elif name == kind(Pong):
            self.trips.append(time.monotonic_ns() - decode(data, Pong).sent)
        elif name == kind(Finish) and self._place is not None and not self._finishing:
            self._ship(self._place)
            self._finishing = True
            self._sent_at[self._seq] = time.monotonic_ns()
            self._tell(Done(run=self._place.run, worker=self._place.worker, batches=self._seq))

    def tick(self) -> None:
        """What is due each second."""
        if time.monotonic() < self._due:
            return
        self._due += 1.0
        self._seconds += 1
        self._say("heartbeat", {"state": self._state, "current_cpu_usage": 10.0, "current_memory_usage": 10**8})
        if self._seconds % 3 == 0:
            self._say("stats", self._report)
        if self._place is not None and not self._finishing:
            self._tell(Ping(sent=time.monotonic_ns()))
            self._ship(self._place)

    def _spawn(self, counts: dict[str, int]) -> None:
        if self._state == "ready":
            self._tell(Hello(version=tokenswarm.__version__, hostname=socket.gethostname(), pid=os.getpid()))
        self._state = "running"
        self._say("spawning", None)
        self._say("spawning_complete", {"user_classes_count": counts, "user_count": sum(counts.values())})

    def _ship(self, place: Assignment) -> None:
        line = {"worker": place.worker, "seq": self._seq, "time": time.time(), "padding": "x" * INTERVAL_BYTES}
        batch = Batch(
            run=place.run,
            worker=place.worker,
            seq=self._seq,
            rows=self._rows,
            row_count=self._row_count,
            interval=json.dumps(line).encode() + b"\n",
            responses=b"",
            totals=Totals(),
            in_flight=1,
        )
        self._sent_at[self._seq] = time.monotonic_ns()
        self._tell(batch)
        self._seq += 1
        self.sent_rows += self._row_count

    def _tell(self, message: Message) -> None:
        self._say(kind(message), encode(message))

    def _say(self, name: str, data: Any) -> None:
        self.socket.send(msgpack.dumps((name, data, self.identity)))


def rows_of_a_second(count: int) -> bytes:
    """Rows as long as real ones are."""
    record = RequestRecord(id="01234567-100-1000", user_class="Chat", name="/v1/chat/completions", status="ok")
    for name, hint in RequestRecord.__annotations__.items():
        if "float" in str(hint):
            setattr(record, name, 1234.567)
    return csv_rows([record] * count).encode()


def report_of_three_seconds(rows: int) -> dict[str, Any]:
    """Locust's own statistics of that many requests, with the entries that a chat leaves."""
    stats = RequestStats()
    for entry in ("POST", "TTFT", "TPOT", "TOKENS"):
        for number in range(rows * 3):
            stats.log_request(entry, "/v1/chat/completions", number % 1000, 1000)
    counts = {"user_classes_count": {"Chat": 1}, "user_count": 1}
    total = stats.total.get_stripped_report()
    return {"stats": stats.serialize_stats(), "stats_total": total, "errors": {}, **counts}


def main(port: int, workers: int, rows: int) -> None:
    lines, report = rows_of_a_second(rows), report_of_three_seconds(rows)
    peers = {peer.socket: peer for peer in (Peer(port, n, workers, lines, rows, report) for n in range(workers))}
    poller = zmq.Poller()
    for peer_socket in peers:
        poller.register(peer_socket, zmq.POLLIN)
    while not all(peer.ended for peer in peers.values()):
        for ready, _ in poller.poll(POLL_MS):
            peers[ready].hear()
        for peer in peers.values():
            peer.tick()
    told: dict[str, Any] = {"rows": sum(peer.sent_rows for peer in peers.values())}
    for name in ("confirmed", "trips"):
        values = sorted(value for peer in peers.values() for value in getattr(peer, name))
        told |= {f"{name}_p{q}_ms": round(percentile(values, q) / 1e6, 2) for q in (50, 99)}
        told[f"{name}_max_ms"] = round(values[-1] / 1e6, 2)
    print(json.dumps(told), flush=True)
    time.sleep(60)  # the sockets stay open


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:4]))
