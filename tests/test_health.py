"""What a process can tell of its own health: each thing by itself, and that nothing unreadable stops the rest."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from test_receiver import Collector, needs_thread, tcp_pair, wait_until

from tokenswarm.recording import health
from tokenswarm.recording.health import Collections, Health
from tokenswarm.transport import receiver
from tokenswarm.transport.receiver import Receiver

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
BURN = "while True: pass"


@pytest.fixture
def made() -> Iterator[Health]:
    made = Health(lambda: 7_000_000)
    yield made
    made.close()


# The process


def taken(health: Health) -> dict[str, Any]:
    """All parts of it."""
    return {name: value for part in health.take() for name, value in part.items()}


def test_a_loop_that_works_is_told_from_one_that_sleeps(made: Health) -> None:
    taken(made)
    time.sleep(0.2)
    idle = taken(made)
    until = time.thread_time() + 0.2
    while time.thread_time() < until:
        pass
    busy = taken(made)
    assert idle["loop_cpu_percent"] < 50 < busy["loop_cpu_percent"] + (busy["loop_wait_percent"] or 0)
    assert busy["loop_lag_ms"] == 7.0


@linux
def test_waiting_for_a_processor_that_another_program_has(made: Health) -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    burner = subprocess.Popen([sys.executable, "-c", BURN], preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    try:
        os.sched_setaffinity(0, {core})
        taken(made)
        until = time.thread_time() + 0.3
        while time.thread_time() < until:
            pass
        found = taken(made)
    finally:
        os.sched_setaffinity(0, before)
        burner.kill()
        burner.wait()
    assert found["loop_wait_percent"] > 20
    assert found["loop_wait_percent"] + found["loop_cpu_percent"] > 80


def test_collections_are_counted_and_timed() -> None:
    watch = Collections()
    gc.collect()
    gc.collect()
    found = watch.take()
    assert found["gc_pauses"] >= 2
    assert 0 < found["gc_pause_max_ms"] < found["gc_pause_ms"]
    watch.close()
    watch.close()
    gc.collect()
    assert watch.take() == {"gc_pauses": 0, "gc_pause_ms": 0.0, "gc_pause_max_ms": 0.0}


def test_a_health_that_was_closed_leaves_nothing_to_the_garbage_collector() -> None:
    before = list(gc.callbacks)
    Health(lambda: 0).close()
    assert gc.callbacks == before


@linux
def test_descriptors_are_counted(tmp_path: Path) -> None:
    before = health.descriptors()
    files = [(tmp_path / str(i)).open("w") for i in range(10)]
    assert health.descriptors() == before + 10
    for file in files:
        file.close()


@linux
def test_descriptors_are_listed_where_the_kernel_does_not_count_them() -> None:
    folder = "/proc/self/task"  # has no size, as /proc/self/fd before Linux 6.2
    assert health.descriptors(folder) == len(os.listdir(folder))
    code = (
        "import resource\n"
        "from tokenswarm.recording.health import descriptors\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        f"print(descriptors({folder!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n", "not one is left to look with: all are in use"


# The receive ring


@needs_thread
def test_a_full_ring_is_told_and_no_thread_is_started_for_it(monkeypatch: pytest.MonkeyPatch, made: Health) -> None:
    receiver.stop()
    assert taken(made)["ring_full"] is None
    assert receiver.ring_full() is None
    tiny, sink = Receiver(gevent.get_hub(), records=2, ring_bytes=4096), Collector()
    monkeypatch.setattr(receiver, "_current", tiny)
    assert taken(made)["ring_full"] is None, "it did not run before"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours, theirs = tcp_pair(listener)
    with ours, theirs:
        reader = tiny.start_reading(ours.fileno(), sink)
        for _ in range(5):
            theirs.sendall(b".")
            time.sleep(0.01)
        full = taken(made)
        wait_until(lambda: len(sink.data) == 5)
        after = taken(made)
        reader.close()
    tiny.close()
    assert full["ring_full"] == 1
    assert full["ring_full_ms"] > 5
    assert after["ring_full"] == 0


# The host


def test_the_clocks_do_not_jump_by_themselves(made: Health) -> None:
    assert abs(taken(made)["clock_jump_ms"]) < 0.5


@linux
def test_what_the_hypervisor_took_is_a_share_of_all_processors(made: Health) -> None:
    stolen, total = health.host_cpu()
    assert 0 <= stolen < total
    time.sleep(0.05)  # /proc counts in ticks of 10 ms
    assert 0 <= taken(made)["steal_percent"] <= 100


def netstat(**counters: int) -> str:
    names, values = " ".join(counters), " ".join(map(str, counters.values()))
    return f"TcpExt: {names}\nTcpExt: {values}\nIpExt: InNoRoutes\nIpExt: 0\n"


def test_only_counters_that_mean_trouble_are_read(tmp_path: Path) -> None:
    page = tmp_path / "netstat"
    page.write_text(netstat(SyncookiesSent=5, PruneCalled=3, TCPBacklogDrop=0, TCPTimeouts=9))
    assert health.tcp_counters(str(page)) == {"PruneCalled": 3, "TCPBacklogDrop": 0}


def test_only_counters_that_grew_are_told() -> None:
    before = {"PruneCalled": 3, "TCPBacklogDrop": 1}
    assert health.tcp_growth(before, {"PruneCalled": 5, "TCPBacklogDrop": 1, "TCPRcvCollapsed": 7}) == {
        "PruneCalled": 2
    }
    assert health.tcp_growth(None, before) is None
    assert health.tcp_growth(before, None) is None


@linux
def test_a_reader_that_does_not_read_shows_in_the_kernels_counters(made: Health) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours, theirs = tcp_pair(listener)
    with ours, theirs:
        theirs.setblocking(False)
        give_up = time.monotonic() + 10
        found: dict[str, int] = {}
        while "TCPToZeroWindowAdv" not in found and time.monotonic() < give_up:
            try:
                theirs.send(b"x" * 65536)
            except BlockingIOError:
                time.sleep(0.01)
            found |= taken(made)["tcp_trouble"]
    assert found["TCPToZeroWindowAdv"] >= 1


V2 = "usage_usec 5\nnr_periods 9\nnr_throttled 2\nthrottled_usec {}\n"
V1 = "nr_periods 9\nnr_throttled 2\nthrottled_time {}\n"


@pytest.mark.parametrize(
    ("own", "stats", "nanoseconds"),
    [
        ("0::/a/b\n", {"a/b/cpu.stat": V2.format(5)}, 5_000),
        ("0::/a/b\n", {"a/cpu.stat": V2.format(7), "cpu.stat": "usage_usec 5\n"}, 7_000),
        ("3:cpu,cpuacct:/x\n2:memory:/y\n0::/\n", {"cpu/cpu.stat": V1.format(11), "cpu/y/cpu.stat": V1.format(90)}, 11),
    ],
    ids=["version 2", "a cgroup above", "version 1, as a container sees it"],
)
def test_time_for_which_our_cgroups_were_held_back(
    tmp_path: Path, own: str, stats: dict[str, str], nanoseconds: int
) -> None:
    for name, text in stats.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text)
    (tmp_path / "own").write_text(own)
    files = health.throttled_files(tmp_path / "fs", tmp_path / "own")
    assert health.throttled_ns(files) == nanoseconds


def test_without_a_cgroup_it_is_unknown(tmp_path: Path) -> None:
    assert health.throttled_files(tmp_path, tmp_path / "nothing") == []
    assert health.known(lambda: health.throttled_ns([])) is None


@pytest.fixture
def tight_cgroup() -> Iterator[Path]:
    """A cgroup of version 1 that may use a tenth of a processor."""
    folder = Path("/sys/fs/cgroup/cpu") / f"tokenswarm-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "cpu.cfs_quota_us").write_text("10000")
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    yield folder
    folder.rmdir()


def test_a_cgroup_with_too_little_shows(tight_cgroup: Path) -> None:
    code = (
        "import json, os, time\n"
        "from pathlib import Path\n"
        f"Path({str(tight_cgroup / 'cgroup.procs')!r}).write_text(str(os.getpid()))\n"
        "from tokenswarm.recording.health import Health\n"
        "health = Health(lambda: 0)\n"
        "until = time.thread_time() + 0.05\n"
        "while time.thread_time() < until: pass\n"
        "print(json.dumps({name: value for part in health.take() for name, value in part.items()}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["throttled_percent"] > 5


def test_sockets_and_ports(tmp_path: Path) -> None:
    page = tmp_path / "sockstat"
    page.write_text("sockets: used 300\nTCP: inuse 12 orphan 0 tw 30 alloc 14 mem 1\nUDP: inuse 2 mem 0\n")
    assert health.sockets(str(page)) == 42
    page.write_text("32768\t60999\n")
    assert health.ports(str(page)) == 28232


# Whatever happens


def test_counters_that_began_anew_are_unknown_and_not_negative() -> None:
    assert health.growth((5, 1.0), (7, 1.5)) == (2, 0.5)
    assert health.growth((5, 1.0), (0, 0.0)) is None
    assert health.growth(None, (7, 1.5)) is None


@linux
def test_without_a_single_descriptor_the_rest_is_still_told() -> None:
    code = (
        "import json, os, resource\n"
        "from tokenswarm.recording.health import Health\n"
        "health = Health(lambda: 0)\n"
        "list(health.take())\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0) + 1, 1000))\n"
        "print(json.dumps({name: value for part in health.take() for name, value in part.items()}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    unread = ("cpu_percent", "loop_wait_percent", "tcp_trouble", "steal_percent", "sockets", "ports")
    assert [found[name] for name in unread] == [None] * len(unread)
    assert found["loop_cpu_percent"] is not None
    assert found["clock_jump_ms"] is not None
    assert found["descriptors"] == found["descriptor_limit"]
