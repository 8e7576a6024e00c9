"""Workers on other machines: another clock, a slow and lossy way to the master and the server, a cable pulled out.

The other machine is a network namespace of this one, and a process whose wall clock is wrong. What is measured there is
compared with the simulator's log of what it sent, when.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from locust_process import LocustProcess, read_rows
from network_link import ADDRESSES, Network, network
from simulator_process import Running, simulator
from skewed_clock import SkewedClock
from swarm_process import Swarm, headless_swarm, is_whole

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernel receive stamps are Linux's")

LATE_MS = 5.0
"""Between the simulator's note before a send and the kernel's stamp, in the best of many cases: the machine may be busy
with others."""
PACE = ("--decode-base", "10", "--prefill-base", "30", "--output-tokens", "30")
REPLIES = ("--output-tokens", "30", "--extra-body", '{"ignore_eos": true}')


def sends(server: Running) -> dict[str, dict[str, Any]]:
    return {line["id"]: line for line in map(json.loads, server.log_path.read_text().splitlines())}


def master_ns(run: Swarm, epoch: str | float) -> float:
    """A time of the run directory on CLOCK_MONOTONIC of the master's machine, which is the simulator's too."""
    start = run.manifest["start"]
    return float(start["monotonic_ns"] + (float(epoch) - start["time"]) * 1e9)


def times_are_the_masters(run: Swarm, server: Running, worker: LocustProcess, there_ms: float, back_ms: float) -> None:
    """A worker's rows against the simulator's log. A request takes `there_ms` to the server at least, and its first
    token `back_ms` back: so it must look on the master's clock, within what the run says that it knows of this
    worker's. TTFT needs no other clock, and is as true as anywhere."""
    entry = run.entry(worker)
    sure_ms = entry["clock_uncertainty_ms"] + 0.01
    rows, log = run.rows_by_worker()[entry["index"]], sends(server)
    there, back, more = [], [], []
    for row in rows:
        sent, asked = log[row["id"]], float(row["ttft_ms"]) - float(row["ttft_sent_ms"])
        assert row["clock"] == "kernel"
        if int(row["first_read_chunks"]) > 1 or sent["inexact"]:
            continue
        there.append((sent["received_ns"] - master_ns(run, row["start_time"])) / 1e6 - asked)
        back.append((master_ns(run, row["first_token_time"]) - sent["sent_ns"][0]) / 1e6)
        served_ms = (sent["sent_ns"][0] - sent["received_ns"]) / 1e6
        more.append(float(row["ttft_sent_ms"]) - served_ms)
    assert len(back) > 10
    stamped = [row for row in rows if row["ttft_low_ms"] == row["ttft_ms"]]
    assert len(stamped) > len(rows) / 2, "the kernel's stamps were not taken for its own clock's"
    for way, least_ms in ((there, there_ms), (back, back_ms)):
        assert least_ms - sure_ms < min(way) < least_ms + sure_ms + LATE_MS
    assert there_ms + back_ms - 0.01 < min(more) < there_ms + back_ms + LATE_MS


def test_a_wrong_clock_is_put_right(tmp_path: Path) -> None:
    """37 s fast, beside one that is right."""
    clock = SkewedClock(tmp_path, 37.0)
    load = ("--expect-workers", "2", "-u", "6", "-r", "6", *REPLIES)
    with simulator(tmp_path, *PACE) as server, headless_swarm(tmp_path, 1, server.url, *load) as run:
        wrong = run.join(env=clock.env)
        run.until(lambda: run.all_at_work() and min(map(len, run.rows_by_worker().values())) > 15)
        run.master.interrupt()
        run.wait()
    assert is_whole(run, server)
    for worker, offset_ms in ((run.workers[0], 0.0), (wrong, 37_000.0)):
        entry = run.entry(worker)
        assert entry["clock"] == "kernel"
        assert abs(entry["clock_offset_ms"] - offset_ms) <= entry["clock_uncertainty_ms"] + 0.1
        assert entry["clock_uncertainty_ms"] < 20
        times_are_the_masters(run, server, worker, there_ms=0.0, back_ms=0.0)
    manifest = run.manifest
    for line in run.master.intervals():
        assert manifest["start"]["time"] < line["time"] <= manifest["end"]["time"]
    for row in read_rows(run.run_dir):
        assert manifest["start"]["time"] < float(row["start_time"]) < float(row["end_time"]) < manifest["end"]["time"]


def test_a_slow_and_lossy_way_and_a_cable_pulled_out_cost_nothing(tmp_path: Path) -> None:
    """10 ms there and 30 back, one packet of a hundred lost; a clock a minute slow; and for some seconds no way at all,
    until Locust misses the worker. What no round trip can see is that one direction is slower: the clocks seem 10 ms
    apart, and the run says that it is not sure by 20."""
    clock = SkewedClock(tmp_path, -60.0)
    with linked(to_second_ms=30.0, to_first_ms=10.0, loss=0.01) as net, across(tmp_path, net, clock) as (run, server):
        remote = run.workers[0]
        rank = run.entry(remote)["index"]
        net.pull_out()
        run.until(lambda: "setting state to missing" in run.master.output)
        time.sleep(5)
        net.plug_in()
        before = len(run.rows_by_worker()[rank])
        run.until(lambda: len(run.rows_by_worker()[rank]) > before + 20)
    assert is_whole(run, server)
    assert run.manifest["problems"] == []
    entry = run.entry(remote)
    assert 5.0 < abs(entry["clock_offset_ms"] + 60_000.0) <= entry["clock_uncertainty_ms"] < 35.0
    times_are_the_masters(run, server, remote, there_ms=10.0, back_ms=30.0)


@contextmanager
def linked(**cable: float) -> Iterator[Network]:
    with ExitStack() as stack:
        try:
            joined = stack.enter_context(network(**cable))
        except OSError as error:
            pytest.skip(f"two network namespaces need root, CAP_NET_ADMIN and /dev/net/tun: {error}")
        yield joined


@contextmanager
def across(folder: Path, net: Network, clock: SkewedClock) -> Iterator[tuple[Swarm, Running]]:
    """Simulator, master and a worker on the first machine, another worker on the second; stopped in order."""
    here, there = net.prefixes
    address = ADDRESSES[0]
    with simulator(folder, *PACE, "--host", address, prefix=here) as server:
        load = ("--expect-workers", "2", "-u", "4", "-r", "4", *REPLIES)
        options = ("--master-bind-host", address, *load)
        with headless_swarm(folder, 0, server.url, *options, master_host=address, prefix=here) as run:
            run.join(prefix=there, env=clock.env)
            run.join(prefix=here)
            run.until(lambda: run.all_at_work() and min(map(len, run.rows_by_worker().values())) > 20)
            yield run, server
            run.master.interrupt()
            run.wait()
