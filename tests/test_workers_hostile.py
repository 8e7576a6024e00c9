"""The master's port has no lock: whatever comes to it from outside is refused with a log line and stops nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import zmq
from simulator_process import simulator
from swarm_process import Swarm, all_hold, headless_swarm, is_whole

from tokenswarm.recording.messages import Batch, Done, Hello, Message, Ping, Ready, Totals, encode, kind

LOCUSTS_OWN = ("client_ready", "exception", "heartbeat", "locustfile", "logs", "spawning", "spawning_complete", "stats")
LOCUSTS_OWN += ("client_stopped", "quit")


class Stranger:
    """A peer at the master's port. It may send anything."""

    def __init__(self, address: str, identity: bytes = b"stranger") -> None:
        self.identity = identity
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, identity)
        self._socket.setsockopt(zmq.RCVTIMEO, 60_000)
        self._socket.connect(address)

    def send(self, *frames: bytes) -> None:
        self._socket.send_multipart(frames)

    def say(self, name: Any, data: Any = None, node: Any = None) -> None:
        """A message as Locust packs it; `node` is who it claims to be from."""
        self.send(msgpack.dumps((name, data, self.identity.decode() if node is None else node)))

    def tell(self, message: Message, node: str | None = None, **changes: Any) -> None:
        """One of our own messages, as it is or, with `changes`, as it should not be."""
        data = encode(message)
        if changes:
            data = msgspec.msgpack.encode(msgspec.msgpack.decode(data) | changes)
        self.say(kind(message), data, node)

    def hear(self, name: str) -> Any:
        """What the master next says of this kind."""
        while True:
            said, data, _ = msgpack.loads(self._socket.recv(), raw=False, strict_map_key=False)
            if said == name:
                return data

    def become_a_worker(self) -> None:
        """By Locust's own account."""
        self.say("client_ready", version("locust"))
        self.hear("ack")

    def is_heard(self) -> None:
        """Everything that was sent before has been dealt with: the master answers what comes after it.

        It is asked again, since Locust opens its port anew after some of what it cannot read."""
        self._socket.setsockopt(zmq.RCVTIMEO, 5_000)
        for attempt in range(4711, 4723):
            self.tell(Ping(sent=attempt))
            try:
                while msgspec.msgpack.decode(self.hear("tokenswarm-pong"))["sent"] < 4711:
                    pass
            except zmq.Again:
                continue
            return
        raise AssertionError("the master does not answer")

    def close(self) -> None:
        self._context.destroy(linger=0)


@contextmanager
def strangers(address: str) -> Iterator[Callable[..., Stranger]]:
    made: list[Stranger] = []

    def make(*args: Any) -> Stranger:
        made.append(Stranger(address, *args))
        return made[-1]

    try:
        yield make
    finally:
        for stranger in made:
            stranger.close()


@contextmanager
def disturbed(folder: Path) -> Iterator[tuple[Swarm, Callable[..., Stranger]]]:
    """A run of two workers, while strangers talk to its master; afterwards it must be as if there had been none."""
    with (
        simulator(folder, "--output-tokens", "20") as server,
        headless_swarm(folder, 2, server.url, "-u", "4", "-r", "4") as run,
        strangers(run.master_address) as make,
    ):
        run.until(run.all_at_work)
        yield run, make
        before = len(run.rows())
        run.until(lambda: len(run.rows()) > before + 50)  # still at it
        run.master.interrupt()
        run.wait()
    assert is_whole(run, server)
    assert len(run.manifest["workers"]) == 2
    assert run.manifest["problems"] == []
    posts = run.master.locust_stats()["POST", "/v1/chat/completions"]
    assert int(posts["Request Count"]) == len(run.rows()), "Locust's tables took nothing from strangers"
    assert "refused" in run.master.output
    assert "Traceback" not in run.output
    assert "\x1b" not in run.master.output


def garbage() -> Iterator[tuple[bytes, ...]]:
    """Frames that are no message of Locust's."""
    chance = random.Random(5)
    for size in (0, 1, 2, 10, 1000):
        yield (chance.randbytes(size),)
    yield (b"\xc1",)  # the one byte that msgpack never uses
    yield (b"\x93\xa5heart",)  # cut off
    yield (b"\x91" * 5000,)  # nested too deep
    yield (bytes(10_000_000),)
    yield (b"\xdb\xff\xff\xff\xff",)  # a text of 4 GB is said to follow
    yield (b"\xdd\xff\xff\xff\xff",)  # a list of 4 billion things
    yield (b"", b"", b"")
    yield (b"", msgpack.dumps(("heartbeat", None, "stranger")))
    for value in (5, None, [], [1, 2], [1, 2, 3, 4], {}, {"a": 1}, "text", ["heartbeat"], [[], [], []], [{}, {}, {}]):
        yield (msgpack.dumps(value),)
    for broken in ({"__datetime__": True}, {"__datetime__": 1, "as_str": 5}, {"__ObjectId__": 1, "as_str": "x"}):
        yield (msgpack.dumps(("stats", broken, "stranger")),)
    yield (b"\x93\xa5stats\x81\x92\x01\x02\x03\xa8stranger",)  # a map whose key is a list
    yield (b"\x93\xa5stats\x81\x81\x01\x02\x03\xa8stranger",)  # … or a map
    yield (b"\x93\xa5stats\xa3\xff\xfe\xfd\xa8stranger",)  # not UTF-8
    yield (b"\x93\xa5stats\xc7\x05\x2ahello\xa8stranger",)  # an extension type
    yield (b"\x93\xa5stats\xc7\x0c\xff" + b"\xff" * 12 + b"\xa8stranger",)  # a time that cannot be
    yield (msgpack.dumps((["heartbeat"], None, "stranger")),)
    yield (msgpack.dumps(("heartbeat", None, ["stranger"])),)
    yield (msgpack.dumps((None, None, None)),)


JUNK = (None, 0, -1, 5, 1.5, True, b"junk", "junk", "", [], [1], {}, {"a": 1}, {"version": None}, {"version": 5})
JUNK += ({"state": [], "current_cpu_usage": "x"}, {"user_classes_count": 7}, {"stats": 1, "user_classes_count": {}})
JUNK += ({"msg": 1, "traceback": []}, {"worker_id": 1, "logs": 2}, {"user_classes_count": {"Chat": "many"}})


def test_strangers_change_nothing(tmp_path: Path) -> None:
    all_hold(tmp_path, what_strangers_say_is_refused, what_a_known_worker_says_is_looked_at)


def what_strangers_say_is_refused(folder: Path) -> None:
    with disturbed(folder) as (run, stranger):
        peer, odd = stranger(), stranger(b"\xff\xfe\x01")
        stranger(b"\x1b[31mred").say("client_ready", version("locust"))
        peer.say("client_ready", "\x1b[31mred")
        peer.say("\x1b[31mred")
        for frames in garbage():
            peer.send(*frames)
            odd.send(*frames)
        for name in LOCUSTS_OWN:
            for data in JUNK:
                if name != "client_ready":
                    peer.say(name, data)
        junk_in_our_own_messages(run, peer)
        bits_flipped(run, peer)
        for number in range(20):  # nobody gets a seat who is no worker
            other = stranger(b"stranger-%d" % number)
            other.tell(Hello(version="0.1.0", hostname="elsewhere", pid=number))
            other.tell(Hello(version="0.1.0", hostname="elsewhere", pid=number))
            other.is_heard()
        peer.is_heard()


def what_a_known_worker_says_is_looked_at(folder: Path) -> None:
    """It may keep back the users that it was given for a while, since Locust trusts it; nothing else. And Locust would
    handle the message before once more, after one that it cannot read: what others said would count twice."""
    with disturbed(folder) as (run, stranger):
        peer = stranger()
        for names in (LOCUSTS_OWN[:-2], LOCUSTS_OWN[-2:-1], LOCUSTS_OWN[-1:], ()):  # the last two make it one no more
            peer.become_a_worker()
            for name in names:
                for data in JUNK:
                    peer.say(name, data)
        for frames in garbage():
            peer.send(*frames)
        until = time.monotonic() + 4
        while time.monotonic() < until:  # longer than Locust's workers wait between their reports
            peer.send(b"\x00\x00")
            time.sleep(0.02)
        words_of_other_workers(run, peer)
        peer.say("quit")
        peer.is_heard()


def words_of_other_workers(run: Swarm, peer: Stranger) -> None:
    """Forged in their names."""
    for entry in run.manifest["workers"]:
        victim, rank = entry["client_id"], entry["index"]
        forged = batch(run, rank)
        for seq in (0, 1, 5, 20, 50, 99_000):
            peer.tell(forged, victim, seq=seq)
            peer.tell(forged, seq=seq)
        for batches in (0, 50, 10**18):
            peer.tell(Done(run=run.run_dir.name, worker=rank, batches=batches), victim)
        peer.tell(Ready(run=run.run_dir.name, worker=rank, refused="I do not like it"), victim)
        peer.say("quit", node=victim)
        peer.say("client_stopped", node=victim)
        peer.say("spawning_complete", {"user_classes_count": {"Chat": 0}, "user_count": 0}, victim)
        peer.say("stats", {"user_classes_count": {}, "stats": [], "stats_total": {}, "errors": {}}, victim)
        peer.say("exception", {"msg": "not mine", "traceback": "none"}, victim)


def junk_in_our_own_messages(run: Swarm, peer: Stranger) -> None:
    """Nothing of it, none that was cut off, another version's, another run's, of a rank that is not theirs, absurd."""
    ours = (batch(run, 0), ready(run), done(run), Hello(version="0.1.0", hostname="h", pid=1), Ping(sent=1))
    for message in ours:
        for data in (*JUNK, bytes(10_000_000), b"\x91" * 100_000):
            peer.say(kind(message), data)
        whole = encode(message)
        for cut in range(0, len(whole), 7):
            peer.say(kind(message), whole[:cut])
        for schema in (0, 2, -1, "1", None, 2**62, []):
            peer.tell(message, schema=schema)
    for worker in (0, 1, 2, 99, -1, 2**40):
        for run_id in (run.run_dir.name, "another", "", "../run", "\x1b[31m", 5):
            peer.tell(batch(run, 0), worker=worker, run=run_id)
            peer.tell(ready(run), worker=worker, run=run_id)
            peer.tell(ready(run), worker=worker, run=run_id, refused="I do not like it")
            peer.tell(done(run), worker=worker, run=run_id)
    for changes in ({"seq": 2**62}, {"seq": -1}, {"row_count": 5}, {"rows": b"half a line"}, {"rows": bytes(10**7)}):
        peer.tell(batch(run, 0), **changes)
    peer.say("tokenswarm-nonsense", b"")
    peer.say("tokenswarm-finish", encode(Ping(sent=1)))


def bits_flipped(run: Swarm, peer: Stranger) -> None:
    """Noise that is nearly right."""
    chance = random.Random(6)
    models = [msgpack.dumps((kind(m), encode(m), "stranger")) for m in (batch(run, 0), ready(run), done(run))]
    models += [msgpack.dumps((name, {"version": "2.47.0", "state": "ready"}, "stranger")) for name in LOCUSTS_OWN]
    for _ in range(2000):
        noise = bytearray(chance.choice(models))
        for _ in range(chance.randint(1, 4)):
            noise[chance.randrange(len(noise))] = chance.randrange(256)
        peer.send(bytes(noise))


def batch(run: Swarm, rank: int) -> Batch:
    line = b'{"worker": %d, "seq": 0, "time": 0}\n' % rank
    return Batch(
        run=run.run_dir.name,
        worker=rank,
        seq=0,
        rows=b"forged\n",
        row_count=1,
        interval=line,
        responses=b"",
        totals=Totals(started=1_000_000),
        in_flight=1000,
        problems=["forged"],
    )


def ready(run: Swarm) -> Ready:
    return Ready(run=run.run_dir.name, worker=0, model="forged", clock="user")


def done(run: Swarm) -> Done:
    return Done(run=run.run_dir.name, worker=0, batches=1)
