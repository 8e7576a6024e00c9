"""Each fault of the measuring side, caused for real: the real Locust, the simulator, and a verdict that finds it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from locust_process import LocustProcess, headless
from simulator_process import Running, simulator
from test_accuracy import LATE_MS, monotonic_ns, sends
from test_receiver import needs_thread

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is looked at is Linux's")

LOAD = ("-u", "5", "-r", "20", "-t", "3s", "--warmup", "0", "--output-tokens", "20")
USER = """
import os, time
import gevent
from gevent.monkey import get_original
from locust import events, task
from locust.exception import StopUser
from tokenswarm.users import ChatUser

class Plain(ChatUser):
    pass

def during_the_load(fault):
    @events.spawning_complete.add_listener
    def begin(**_):
        gevent.spawn_later(0.5, fault)
"""


def judged(
    folder: Path, host: str, code: str, *options: str, **settings: object
) -> tuple[LocustProcess, dict[str, str]]:
    """A run of a scenario with a fault in it, and the rules that fired, with their levels."""
    locustfile = folder / "faulty.py"
    locustfile.write_text(USER + code)
    run = headless(folder, host, *LOAD, *options, locustfile=locustfile, **settings)
    reasons = run.json("summary.json")["verdict"]["reasons"]
    return run, {reason["rule"]: reason["level"] for reason in reasons}


def assert_true(run: LocustProcess, log: dict[str, dict[str, Any]]) -> None:
    """The first token of each row was sent inside the row's bounds."""
    for row in run.rows():
        sent, started = log[row["id"]], monotonic_ns(run, row["start_time"])
        earliest, latest = ((sent[name][0] - started) / 1e6 for name in ("sent_ns", "done_ns"))
        assert float(row["ttft_low_ms"]) - LATE_MS <= latest
        assert earliest <= float(row["ttft_ms"]) + 0.01


@contextmanager
def burner(core: int) -> Iterator[None]:
    """A program that wants all of a core."""
    command = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(command, preexec_fn=lambda: os.sched_setaffinity(0, {core})) as process:
        try:
            yield
        finally:
            process.kill()


def test_a_healthy_run_meets_none_of_these_rules(tmp_path: Path, quick_simulator: Running) -> None:
    run, rules = judged(tmp_path, quick_simulator.url, "")
    at_fault = {
        "loop_blocked",
        "ring_full",
        "usage_disagrees",
        "usage_zero",
        "descriptors",
        "users_share",
        "clock_jump",
    }
    assert not at_fault & set(rules), "what no neighbour can cause"
    assert 'id="chart-client"' in (run.run_dir / "report.html").read_text(encoding="utf-8")


HOG = """
def burn():
    while True:
        gevent.sleep(0)
        until = time.monotonic() + 0.02
        while time.monotonic() < until:
            pass

@events.test_start.add_listener
def begin(**_):
    gevent.spawn(burn)
"""


def test_a_burner_on_a_busy_clients_core_is_noted_and_times_stay_true(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    with simulator(tmp_path, "--prefill-base", "20") as server, burner(core):
        run, rules = judged(tmp_path, server.url, HOG + f"os.sched_setaffinity(0, {{{core}}})")
        log = sends(server.log_path)
    assert rules["cpu_contention"] == rules["client_busy"] == "note"
    assert rules["in_flight_share"] == "invalid", "users that ask again too late"
    assert_true(run, log)


STANDS_STILL = """
from tokenswarm.transport import receiver

@events.test_start.add_listener
def shrink_the_ring(**_):
    receiver.stop()
    receiver._current = receiver.Receiver(gevent.get_hub(), records=4, ring_bytes=65536)

during_the_load(lambda: get_original("time", "sleep")(1.5))
"""


@needs_thread
def test_a_blocked_loop_fills_the_ring_and_then_the_kernel(tmp_path: Path) -> None:
    fast = ("--decode-base", "0", "--jitter", "0", "--output-tokens", "20000")
    with simulator(tmp_path, *fast) as server:
        _, rules = judged(tmp_path, server.url, STANDS_STILL, "--output-tokens", "20000")
    assert rules["loop_blocked"] == "degraded"
    assert rules["ring_full"] == "degraded"
    assert rules["tcp_trouble"] == "degraded"


SLOW_LYING_LEAVING_AND_SHORT_OF_DESCRIPTORS = """
import resource
from tokenswarm.recording.health import descriptors

class Lied(ChatUser):
    fixed_count = 3
    kinds = ["none", "half-usage", "zero-usage"]

    def __init__(self, environment):
        super().__init__(environment)
        get_original("time", "sleep")(0.9)

    @task
    def ask(self):
        self.kinds.append(self.kinds.pop(0))
        self.chat("How are you?", extra_body={"simulator": {"fault": self.kinds[0]}})

class Leaves(ChatUser):
    @task
    def ask(self):
        self.chat("How are you?")
        raise StopUser

del Plain
kept = resource.getrlimit(resource.RLIMIT_NOFILE)
during_the_load(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 1, kept[1])))

@events.test_stopping.add_listener
def raise_again(**_):
    resource.setrlimit(resource.RLIMIT_NOFILE, kept)
"""


def test_users_that_come_late_and_leave_lying_usage_and_too_few_descriptors(
    tmp_path: Path, quick_simulator: Running
) -> None:
    more = ("-t", "6s", "--extra-body", '{"ignore_eos": true}')
    _, rules = judged(tmp_path, quick_simulator.url, SLOW_LYING_LEAVING_AND_SHORT_OF_DESCRIPTORS, *more)
    assert rules["spawn_rate"] == "note"
    assert rules["usage_disagrees"] == "invalid"
    assert rules["usage_zero"] == "degraded"
    assert rules["users_share"] == "invalid"
    assert rules["descriptors"] == "degraded"


SET_CLOCK = """
import ctypes
during_the_load(lambda: ctypes.CDLL(None).set_wall_clock(ctypes.c_int64(-250_000_000)))
"""


def test_a_clock_that_is_set_during_a_run(tmp_path: Path, settable_clock: str) -> None:
    with simulator(tmp_path) as server:
        run, rules = judged(tmp_path, server.url, SET_CLOCK, env={"LD_PRELOAD": settable_clock})
        log = sends(server.log_path)
    assert rules["clock_jump"] == "degraded"
    assert run.json("summary.json")["client"]["clock_jump_ms"] == pytest.approx(250, abs=5)
    assert_true(run, log)


OVERLOAD = """
class Hasty(ChatUser):
    @task
    def ask(self):
        gevent.spawn(self.chat, "How are you?")
        gevent.sleep(1 / 30)

del Plain
"""


def test_an_overloaded_server_has_no_steady_state(tmp_path: Path) -> None:
    twenty_a_second = ("--max-batch", "4", "--decode-base", "10", "--prefill-base", "0")
    with simulator(tmp_path, *twenty_a_second) as server:
        load = ("-u", "1", "-t", "9s", "--extra-body", '{"ignore_eos": true}')
        run, rules = judged(tmp_path, server.url, OVERLOAD, *load)
    assert rules["no_steady_state"] == "degraded"
    (text,) = (r["text"] for r in run.json("run.json")["verdict"]["reasons"] if r["rule"] == "no_steady_state")
    assert "went from" in text


def test_a_busy_client_that_stamps_by_itself(tmp_path: Path, quick_simulator: Running) -> None:
    _, rules = judged(tmp_path, quick_simulator.url, HOG, "--transport", "portable")
    assert rules["busy_user_clock"] == "invalid"


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of version 1 without a limit so far; one that comes counts in stretches of 10 ms."""
    folder = Path("/sys/fs/cgroup/cpu") / f"tokenswarm-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "cpu.cfs_period_us").write_text("10000")
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    yield folder
    folder.rmdir()


THROTTLED = """
GROUP = os.environ["TEST_CGROUP"]

def limit(quota):
    with open(f"{GROUP}/cpu.cfs_quota_us", "w") as file:
        file.write(str(quota))

with open(f"{GROUP}/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
during_the_load(lambda: limit(1000))  # a tenth of a processor, for one who wants all of it
events.test_stopping.add_listener(lambda **_: limit(-1))
"""


def test_a_container_that_is_held_back(tmp_path: Path, quick_simulator: Running, cgroup: Path) -> None:
    _, rules = judged(tmp_path, quick_simulator.url, HOG + THROTTLED, env={"TEST_CGROUP": str(cgroup)})
    assert rules["cgroup_throttling"] == "invalid"
