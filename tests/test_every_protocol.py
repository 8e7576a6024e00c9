"""The shortest scenario runs over each protocol, against the simulator that speaks it."""

from __future__ import annotations

from pathlib import Path

import pytest
from locust_process import headless
from simulator_process import Running

from tokenswarm.protocols import PROTOCOLS

NAMES = [name for name in PROTOCOLS if name != "custom"]  # which takes no server: tests/test_custom.py


@pytest.mark.parametrize("name", NAMES)
def test_chat_runs_over_it(tmp_path: Path, quick_simulator: Running, name: str) -> None:
    options = ("-u", "3", "-r", "3", "-t", "1s", "--protocol", name, "--output-tokens", "20")
    rows = headless(tmp_path, quick_simulator.url, *options).rows()
    assert rows
    assert {(row["status"], row["protocol"], row["clock"]) for row in rows} == {("ok", name, "kernel")}
    streamed = {row["id"] for row in rows if row["ttft_ms"]}
    assert len(streamed) == (len(rows) if PROTOCOLS[name].streams else 0)
    assert all(float(row["ttft_ms"]) <= float(row["e2e_ms"]) for row in rows if row["id"] in streamed)
