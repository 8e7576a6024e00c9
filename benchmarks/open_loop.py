"""Does the open loop keep its schedule? Requests a second as asked, and how much later than due each was sent.

    python benchmarks/open_loop.py                                     poisson, 500 requests/s for 60 s
    python benchmarks/open_loop.py --arrivals gamma:2 --rate 200 --seconds 20

One Locust process on one core, the sender in C on another with replies of 8 chunks; all rows count whose request was
due while all users were there. Exit status 1: sent later than 5 ms after it was due (p99), or at a rate more than 1 %
off the asked one, and more than the arrivals vary by themselves (twice their standard deviation). Linux, two cores, a C
compiler.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import servers

LOCUSTFILE: Final = Path(__file__).resolve().parent.parent / "locustfiles" / "chat.py"
USERS: Final = 50
TOKENS: Final = 8
SETTLED_SECONDS: Final = 1.0
LATE_MS: Final = 5.0
OFF: Final = 0.01
BEFORE_SENT: Final = ("queue_ms", "pool_ms", "dns_ms", "tcp_ms", "tls_ms", "send_ms")


def load(folder: Path, arrivals: str, rate: float, seconds: int) -> Path:
    """The run directory of a run of so many requests a second. Raises RuntimeError with what Locust printed."""
    one, other = sorted(os.sched_getaffinity(0))[:2]
    with servers.sender(4 * USERS, folder, one, tokens=TOKENS) as server:
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--host", server.url]
        command += ["--users", str(USERS), "--spawn-rate", "100", "--run-time", f"{seconds + 2}s"]
        command += ["--arrivals", arrivals, "--rate-per-user", str(rate / USERS), "--run-dir", str(folder / "run")]
        prefixes = ("LOCUST_", "TOKENSWARM_", "LLM_", "OPENAI_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, preexec_fn=servers.pin([other])
        )
    if not (folder / "run" / "summary.json").exists():
        raise RuntimeError(f"Locust ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return folder / "run"


def figures(run_dir: Path) -> dict[str, Any]:
    """What came of it, from its rows."""
    boundaries = json.loads((run_dir / "run.json").read_text())["boundaries"]
    times = {boundary["event"]: boundary["time"] for boundary in boundaries}
    begin, end = times["spawned"] + SETTLED_SECONDS, times["stopping"]
    with (run_dir / "requests.csv").open(newline="") as file:
        due = [row for row in csv.DictReader(file) if begin <= float(row["intended_time"]) < end]
    sent = [row for row in due if row["pool_ms"]]
    late = np.array([sum(float(row[name] or 0) for name in BEFORE_SENT) for row in sent])
    gaps = np.diff(np.sort([float(row["intended_time"]) for row in due]))
    intervals = [json.loads(line) for line in (run_dir / "intervals.jsonl").read_text().splitlines()]
    return {
        "seconds": end - begin,
        "due": len(due),
        "sent": len(sent),
        "ok": sum(row["status"] == "ok" for row in due),
        "late_ms": {str(q): float(np.percentile(late, q)) for q in (50, 90, 99, 99.9, 100)},
        "gap_variation": float(gaps.std() / gaps.mean()),
        "cpu_percent": float(np.median([line["cpu_percent"] for line in intervals[2:-2] if line["cpu_percent"]])),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arrivals", default="poisson", help="as Locust's --arrivals (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=60, help="length of the run (default: %(default)s)")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = figures(load(Path(folder), given.arrivals, given.rate, given.seconds))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    late, offered, achieved = found["late_ms"], found["due"] / found["seconds"], found["sent"] / found["seconds"]
    print(f"{given.arrivals}, {given.rate:g} requests/s asked, {found['seconds']:.1f} s, {found['due']:,} due")
    print(f"offered     {offered:8.1f} a second, gaps vary by {found['gap_variation']:.3f} of their mean")
    print(f"achieved    {achieved:8.1f} a second, {achieved / given.rate:.2%} of what was asked; {found['ok']:,} ok")
    print("due → sent  " + "  ".join(f"p{q} {value:.2f} ms" for q, value in late.items()))
    print(f"client      {found['cpu_percent']:8.1f} % of a core")
    chance = 2 * found["gap_variation"] / found["due"] ** 0.5
    return 0 if late["99"] < LATE_MS and abs(achieved / given.rate - 1) < max(OFF, chance) else 1


if __name__ == "__main__":
    sys.exit(main())
