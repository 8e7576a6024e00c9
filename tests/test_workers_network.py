"""Workers on other machines: another clock, a slow and lossy way to the master and the server, a cable pulled out.

The other machine is a network namespace of this one, and a process whose wall clock is wrong. What is measured there is
compared with the simulator's log of what it sent, when.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from locust_process import LocustProcess, read_rows
from network_link import ADDRESSES, Network, network
from simulator_process import Running, simulator
from skewed_clock import SkewedClock
from swarm_process import Swarm, free_port, headless_swarm, is_whole

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernel receive stamps are Linux's")

LATE_MS = 5.0
"""Between the simulator's note before a send and the kernel's stamp; the machine may be busy with others."""
PACE = ("--decode-base", "10", "--prefill-base", "30", "--output-tokens", "30")
REPLIES = ("--output-tokens", "30", "--extra-body", '{"ignore_eos": true}')


def sends(server: Running) -> dict[str, dict[str, Any]]:
    return {line["id"]: line for line in map(json.loads, server.log_path.read_text().splitlines())}


def master_ns(run: Swarm, epoch: str | float) -> float:
    """A time of the run directory on CLOCK_MONOTONIC of the master's machine, which is the simulator's too."""
    start = run.manifest["start"]
    return float(start["monotonic_ns"] + (float(epoch) - start["time"]) * 1e9)


def times_are_the_masters(
    run: Swarm, server: Running, worker: LocustProcess, way_ms: float, resent: float = 0.0
) -> None:
    """A worker's rows against the log: each first token came `way_ms` after it was sent, on the master's clock, within
    what the run says of its clock; and TTFT, which needs no other clock, is as true as anywhere. A share of `resent`
    rows may have come later, since packets were lost."""
    entry = run.entry(worker)
    sure_ms = entry["clock_uncertainty_ms"]
    rows, log = run.rows_by_worker()[entry["index"]], sends(server)
    late = 0
    for row in rows:
        sent = log[row["id"]]
        assert row["clock"] == "kernel"
        if int(row["max_read_chunks"]) > 1 or sent["inexact"]:
            continue
        first = (master_ns(run, row["first_token_time"]) - sent["sent_ns"][0]) / 1e6 - way_ms
        received = (sent["received_ns"] - master_ns(run, row["start_time"])) / 1e6 - way_ms
        assert first > -sure_ms - 0.01
        assert received > -sure_ms - 0.01
        if first > sure_ms + LATE_MS or received > sure_ms + LATE_MS + float(row["tcp_ms"] or 0):
            late += 1
            continue
        served_ms = (sent["sent_ns"][0] - sent["received_ns"]) / 1e6
        trip = float(row["ttft_sent_ms"]) - served_ms - 2 * way_ms
        assert -0.01 < trip < 2 * LATE_MS
    assert len(rows) > 10
    assert late <= resent * len(rows)


def test_a_worker_with_a_wrong_clock_is_put_right(tmp_path: Path) -> None:
    """37 s fast, beside one that is right; and the clock is set while the run is on, as a time service may do."""
    clock = SkewedClock(tmp_path, 37.0)
    with simulator(tmp_path, *PACE) as server:
        with headless_swarm(tmp_path, 1, server.url, "--expect-workers", "2", "-u", "6", "-r", "6", *REPLIES) as run:
            wrong = run.join(env=clock.env)
            run.until(lambda: min(map(len, run.rows_by_worker().values()), default=0) > 15 and run.all_at_work())
            run.master.interrupt()
            run.wait()
    assert is_whole(run, server)
    for worker, offset_ms in ((run.workers[0], 0.0), (wrong, 37_000.0)):
        entry = run.entry(worker)
        assert entry["clock"] == "kernel"
        assert abs(entry["clock_offset_ms"] - offset_ms) <= entry["clock_uncertainty_ms"] + 0.1
        assert entry["clock_uncertainty_ms"] < 20
        times_are_the_masters(run, server, worker, way_ms=0.0)
    manifest = run.manifest
    for line in run.master.intervals():
        assert manifest["start"]["time"] < line["time"] <= manifest["end"]["time"]
    for row in read_rows(run.run_dir):
        assert manifest["start"]["time"] < float(row["start_time"]) < float(row["end_time"]) < manifest["end"]["time"]
