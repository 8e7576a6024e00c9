"""Somebody sets the wall clock during a run. The kernel stamps by it; no stamp may make a wrong arrival look exact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
MS = 1_000_000


@pytest.mark.parametrize("step_ms", [20, -20, 3_600_000, -3_600_000])
def test_no_arrival_around_a_set_clock_is_wrong(settable_clock: str, reading: str, step_ms: int) -> None:
    command = [sys.executable, HERE / "set_clock_child.py", reading, str(step_ms * MS)]
    env = os.environ | {"LD_PRELOAD": settable_clock, "PYTHONPATH": str(HERE)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    scenes: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    after = scenes.pop("afterwards")
    for scene, reads in scenes.items():
        for read in reads:
            before, sent = read["sent"]
            assert read["low"] <= sent and before <= read["at"], (scene, read, "outside its bounds")
            assert read["clock"] == "POLL", (scene, read, "a stamp that nobody can read")
    for read in after:  # stamps count again
        assert read["clock"] == "KERNEL"
        before, sent = read["sent"]
        assert read["low"] <= sent
        assert before - 0.01 * MS <= read["at"] < sent + 5 * MS
