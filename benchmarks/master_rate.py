"""What a master costs that many workers report to: CPU, memory, lag, and whether every row arrives.

    python benchmarks/master_rate.py                       200 workers of 500 rows a second each, 20 s
    python benchmarks/master_rate.py --workers 50 --rows 2000

The master is the real Locust with its book, on one core; the workers are simulated on the other one: they say what
workers say, statistics and heartbeats of Locust's included, and make no load (simulated_workers.py). Exit status 1: a
row is missing. Not here: the report at the end, which is another process (the master is ended before it).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

LOCUSTFILE = Path(__file__).resolve().parent.parent / "locustfiles" / "chat.py"
WORKERS = Path(__file__).resolve().parent / "simulated_workers.py"
START_SECONDS = 60.0
SETTLE_SECONDS = 3.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--rows", type=int, default=500, help="of each worker, a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), given.workers, given.rows, given.seconds)
    for name, value in figures.items():
        print(f"{name:34} {value:,}" if isinstance(value, int | float) else f"{name:34} {value}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if figures["rows missing"] == 0 else 1


def measure(folder: Path, workers: int, rows: int, seconds: float) -> dict[str, Any]:
    """Run the master against simulated workers, and look at it from outside."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    cores = sorted(os.sched_getaffinity(0))
    run_dir = folder / "run"
    locust = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--master", "--headless"]
    locust += ["--master-bind-port", str(port), "--expect-workers", str(workers), "-u", str(workers), "-r", "1000"]
    locust += ["--host", "http://127.0.0.1:9", "--run-dir", str(run_dir)]
    simulated = [sys.executable, str(WORKERS), str(port), str(workers), str(rows)]
    with (folder / "master.log").open("wb") as log:
        master = subprocess.Popen(locust, stdout=log, stderr=log, cwd=folder)
        peers = subprocess.Popen(simulated, stdout=subprocess.PIPE)
    try:
        os.sched_setaffinity(master.pid, {cores[0]})
        os.sched_setaffinity(peers.pid, {cores[-1]})
        wait_for(lambda: (run_dir / "intervals.jsonl").exists() and (run_dir / "intervals.jsonl").stat().st_size > 0)
        time.sleep(SETTLE_SECONDS)
        usage = psutil.Process(master.pid), psutil.Process(peers.pid)
        before, began = [cpu(process) for process in usage], time.monotonic()
        memory = [usage[0].memory_info().rss]
        while time.monotonic() - began < seconds:
            time.sleep(0.5)
            memory.append(usage[0].memory_info().rss)
        elapsed = time.monotonic() - began
        busy = [(cpu(process) - start) / elapsed for process, start in zip(usage, before, strict=True)]
        master.send_signal(signal.SIGTERM)
        assert peers.stdout is not None
        told = json.loads(peers.stdout.readline())  # once the master has confirmed everything
        written = sum(1 for _ in (run_dir / "requests.csv").open("rb")) - 1
    except Exception:
        print((folder / "master.log").read_text()[-3000:], file=sys.stderr)
        raise
    finally:
        for process in (peers, master):
            process.kill()
            process.wait()
    return {
        "workers": workers,
        "rows/s of each": rows,
        "rows sent": told["rows"],
        "rows missing": told["rows"] - written,
        "master CPU, % of a core": round(busy[0] * 100, 1),
        "simulated workers' CPU, %": round(busy[1] * 100, 1),
        "master memory at first, MB": round(memory[0] / 1e6),
        "master memory at last, MB": round(memory[-1] / 1e6),
        "batch to confirmation, p50 ms": told["confirmed_p50_ms"],
        "batch to confirmation, p99 ms": told["confirmed_p99_ms"],
        "batch to confirmation, max ms": told["confirmed_max_ms"],
        "clock round trip, p50 ms": told["trips_p50_ms"],
        "clock round trip, p99 ms": told["trips_p99_ms"],
    }


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def wait_for(condition: Any) -> None:
    give_up = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError("the run did not begin")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
