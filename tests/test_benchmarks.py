"""The benchmarks run, and what they compare is there. Not here: what they find, which is the machine's affair."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from locust_process import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import large_run

LENGTH = 2 * 128
"""Output chunks of two replies."""


def truth(folder: Path, *options: str) -> list[dict[str, Any]]:
    """The figures of each run that benchmarks/truth.py makes with these options."""
    figures = folder / "truth.json"
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "truth.py"),
        "--seconds",
        "3",
        "--json",
        str(figures),
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: a target was missed, on a machine that others use
    runs: list[dict[str, Any]] = json.loads(figures.read_text())
    return runs


@pytest.mark.skipif(sys.platform != "linux", reason="kernel receive stamps and epoll are Linux's")
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: [0])(0)) < 2, reason="needs two cores")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
def test_rows_are_held_against_what_the_sender_wrote_down(tmp_path: Path) -> None:
    (run,) = truth(tmp_path, "--sender", "--streams", "4", "--groups", "1")
    found, client = run["truth"], run["client"]
    assert found["rows"] >= 4
    assert (found["unmatched"], found["lost"]) == (0, 0)
    assert (found["inside_share"], found["kernel_share"]) == (1, 1)
    assert client["reads"] > LENGTH
    assert client["cpu_us_per_chunk"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="kernel receive stamps and epoll are Linux's")
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: [0])(0)) < 2, reason="needs two cores")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
@pytest.mark.skipif(not Path("/usr/include/openssl/ssl.h").exists(), reason="needs OpenSSL's headers")
def test_the_sender_speaks_tls(tmp_path: Path) -> None:
    plain, tls = truth(tmp_path, "--sender", "--streams", "4", "--tls")
    assert (plain["plan"]["tls"], tls["plan"]["tls"]) == (False, True)
    assert (tls["truth"]["unmatched"], tls["truth"]["lost"], tls["truth"]["inside_share"]) == (0, 0, 1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the exporter's stand-in for NVML is Linux's")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
def test_the_exporters_cost_is_measured_with_and_without_gpus(tmp_path: Path) -> None:
    figures = tmp_path / "cost.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "exporter_cost.py"), "--seconds", "2", "--json", str(figures)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    quiet, scraped, without = json.loads(figures.read_text())
    assert 0 < quiet["cpu_percent"] < 100
    assert 10 < scraped["megabytes"] < 100
    assert without["page_bytes"] < scraped["page_bytes"] / 4  # the cards were there


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_the_report_of_a_large_run_is_measured(tmp_path: Path) -> None:
    """Of a small one here. What is made for it is a run without fault, whose rows and intervals agree."""
    run, figures = large_run.write(tmp_path / "run", large_run.Size(3000, 1, 60)), tmp_path / "report.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "large_report.py"), "--run", str(run), "--json", str(figures)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(figures.read_text())
    assert found["cpu_s"] > 0 and 10 < found["peak_mb"] < 1500
    assert 4 < found["report.html_mb"] < 8
    summary = json.loads((run / "summary.json").read_text())
    assert summary["defects"] == []
    assert (summary["requests"]["all"]["due"], summary["requests"]["unaccounted"]) == (3000, 0)
    assert len(summary["slo"]["objectives"]) == 3 and summary["goodput"]["due"] > 2000
    assert {figure["metric"] for figure in summary["hardware"]} >= {"power_watts", "cpu_busy_ratio"}
