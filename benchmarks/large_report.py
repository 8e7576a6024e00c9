"""What the report of a large run takes: time, memory, and the size of what it writes.

    python benchmarks/large_report.py                       1,000,000 requests, 8 GPUs, an hour at 5 samples a second
    python benchmarks/large_report.py --requests 100000 --gpus 2
    python benchmarks/large_report.py --run DIRECTORY       of a run that is there

The run is made by large_run.py, about a gigabyte of it, into a temporary folder; `tokenswarm report` then runs as a
process of its own (Linux). Exit status 1: a run of a million requests or fewer took 15 s or 1.5 GB, or a report 8 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

import large_run

TARGET_REQUESTS: Final = 1_000_000
TARGET_SECONDS: Final = 15.0
TARGET_MB: Final = 1500.0
TARGET_HTML_MB: Final = 8.0


def measure(run: Path) -> None:
    """In the child: the command, and then what it took, as JSON."""
    from tokenswarm.cli import main as tokenswarm

    with redirect_stdout(sys.stderr):
        status = tokenswarm(["report", str(run)])
    # Of this program: what getrusage tells may be of the one that started it.
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    used = os.times()
    print(json.dumps({"status": status, "cpu_s": used.user + used.system, "peak_mb": int(kilobytes) / 1024}))


def report(run: Path) -> dict[str, Any]:
    """Of one report. Raises CalledProcessError if there is none."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--measure", str(run)]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = {"seconds": time.perf_counter() - began, **json.loads(child.stdout)}
    if found["status"]:
        raise subprocess.CalledProcessError(found["status"], command, stderr=child.stderr)
    return found | {f"{name}_mb": (run / name).stat().st_size / 1e6 for name in ("summary.json", "report.html")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=TARGET_REQUESTS, help="(default: %(default)s)")
    parser.add_argument("--gpus", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=3600, help="that the run took (default: %(default)s)")
    parser.add_argument("--run", type=Path, metavar="DIRECTORY", help="do not make one, take this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure:
        measure(given.measure)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        size = large_run.Size(given.requests, given.gpus, given.seconds)
        run = given.run or large_run.write(Path(folder) / "run", size)
        files = " ".join(f"{file.name} {file.stat().st_size / 1e6:,.0f} MB" for file in sorted(run.iterdir()))
        print(
            f"{given.run or f'{size.requests:,} requests, {size.gpus} GPUs, {size.seconds:,} s'}: {files}", flush=True
        )
        found = report(run)
    goals = {"seconds": TARGET_SECONDS, "cpu_s": None, "peak_mb": TARGET_MB, "summary.json_mb": None}
    goals["report.html_mb"] = TARGET_HTML_MB
    for name, goal in goals.items():
        print(f"{name:16} {found[name]:9,.2f}" + (f"   goal {goal:,.0f}" if goal else ""))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    ours = (name for name, goal in goals.items() if goal is not None and found[name] > goal)
    return 1 if given.requests <= TARGET_REQUESTS and any(ours) else 0


if __name__ == "__main__":
    sys.exit(main())
