"""What the exporter costs: CPU, memory and the time of a scrape, with 8 GPUs read 5 times a second.

    python benchmarks/exporter_cost.py                 a minute
    python benchmarks/exporter_cost.py --seconds 20

The GPUs are the tests' stand-in for NVML, which answers within microseconds: what is measured is the exporter's own
work. A driver's time comes on top, in the kernel. Needs Linux and gcc. Exit status 1: a target was missed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import psutil

ROOT = Path(__file__).resolve().parent.parent
STAND_IN = ROOT / "tests" / "fake_nvml.c"
SCRIPT = ("cards 0 1 2 3 4 5 6 7", "* utilization square 20 95 0.7", "* power square 200000 650000 0.9")
PROCESSES = "* process {pid} 1073741824"

MOST_CPU_PERCENT: Final = 1.0
MOST_MEGABYTES: Final = 60.0
MOST_SCRAPE_MS: Final = 10.0


class Cost(msgspec.Struct, frozen=True):
    """Of one run. CPU is a share of one core, memory the resident set at the end."""

    what: str
    cpu_percent: float
    megabytes: float
    scrape_ms_p50: float
    scrape_ms_p99: float
    page_bytes: int
    missed_readings: float


def start(folder: Path, gpus: bool, options: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
    """The exporter and its port."""
    env = dict(os.environ)
    if gpus:
        library = folder / "libnvidia-ml.so.1"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O2", "-Wl,-soname,libnvidia-ml.so.1", "-o", library, STAND_IN], check=True
        )
        (folder / "script").write_text(
            "\n".join([*SCRIPT, *(PROCESSES.format(pid=pid) for pid in range(100, 104))]) + "\n"
        )
        env |= {"LD_LIBRARY_PATH": str(folder), "FAKE_NVML": str(folder / "script")}
    command = [sys.executable, "-m", "metrics_exporter", "--port", "0", "--announce", "--exit-with-stdin", *options]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, urlsplit(json.loads(process.stdout.readline())["url"]).port or 0


def get(port: int, path: str) -> tuple[bytes, float]:
    """What is at a path, and how many milliseconds that took, connection included."""
    begin = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    body = connection.getresponse().read()
    connection.close()
    return body, (time.perf_counter() - begin) * 1000


def measure(what: str, seconds: float, *, gpus: bool, scraped: bool, options: Sequence[str] = ()) -> Cost:
    """Run it for so long; `scraped`: by a Prometheus each 5 s and a puller each second."""
    with tempfile.TemporaryDirectory() as folder:
        process, port = start(Path(folder), gpus, options)
        try:
            time.sleep(2)  # start and discovery are not what running costs
            watched = psutil.Process(process.pid)
            before, begin = watched.cpu_times(), time.monotonic()
            following, pulls = json.loads(get(port, "/samples")[0])["next"] if scraped else 0, 0
            while (elapsed := time.monotonic() - begin) < seconds:
                if scraped and elapsed >= pulls:
                    following = json.loads(get(port, f"/samples?since={following}")[0])["next"]
                    if pulls % 5 == 0:
                        get(port, "/metrics")
                    pulls += 1
                time.sleep(0.05)
            after = watched.cpu_times()
            used = after.user + after.system - before.user - before.system
            megabytes = watched.memory_info().rss / 1e6
            # After the CPU was read: two hundred scrapes in a row are not what running costs.
            times = [get(port, "/metrics")[1] for _ in range(200)]
            page = get(port, "/metrics")[0]
            missed = sum(
                float(line.rpartition(b" ")[2])
                for line in page.splitlines()
                if line.startswith(b"tokenswarm_exporter_missed_readings_total")
            )
        finally:
            process.kill()
            process.wait()
    quantiles = statistics.quantiles(times, n=100)
    return Cost(what, used / elapsed * 100, megabytes, statistics.median(times), quantiles[98], len(page), missed)


def line(cost: Cost) -> str:
    return (
        f"{cost.what:44} {cost.cpu_percent:5.2f} % of a core {cost.megabytes:5.1f} MB   "
        f"scrape p50 {cost.scrape_ms_p50:5.2f} p99 {cost.scrape_ms_p99:5.2f} ms   {cost.page_bytes / 1000:5.1f} kB   "
        f"{cost.missed_readings:.0f} missed"
    )


def missed_targets(cost: Cost) -> list[str]:
    """In words; empty if all were met."""
    targets: tuple[tuple[str, float, float], ...] = (
        ("% of a core", cost.cpu_percent, MOST_CPU_PERCENT),
        ("MB", cost.megabytes, MOST_MEGABYTES),
        ("ms at the median of scrapes", cost.scrape_ms_p50, MOST_SCRAPE_MS),
    )
    return [f"{cost.what}: {value:.2f} {unit}, and not {most:g}" for unit, value, most in targets if value > most]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of each run (default: %(default)g)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    given = parser.parse_args()
    runs: list[tuple[str, dict[str, Any]]] = [
        ("8 GPUs, nobody asks", {"gpus": True, "scraped": False}),
        ("8 GPUs, pulled each 1 s, scraped each 5 s", {"gpus": True, "scraped": True}),
        ("no GPU, pulled each 1 s, scraped each 5 s", {"gpus": False, "scraped": True}),
    ]
    costs = []
    for what, options in runs:
        costs.append(measure(what, given.seconds, **options))
        print(line(costs[-1]), flush=True)
    if given.json is not None:
        given.json.write_bytes(msgspec.json.encode(costs))
    missed = [problem for cost in costs for problem in missed_targets(cost)]
    print("\n".join(missed) or "All targets met.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
