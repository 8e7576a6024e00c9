"""How much two processes do, against one: each at the end of what it may use, and the sender with room to spare.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --share 0.3 --users 800

Two cores hold no two saturated clients and what feeds them. So each client process gets a share of a core (0.4), by the
kernel's own accounting, and more streams than it can read with that: what it then reads in a second is what it can do.
The sender in C has the rest. Linux, as root, with cgroups of version 1. Exit status 1: two do less than 1.8 times as
much.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import servers

LOCUSTFILE = Path(__file__).resolve().parent.parent / "locustfiles" / "chat.py"
CGROUPS: Final = Path("/sys/fs/cgroup/cpu")
PERIOD_US: Final = 10_000
RUN_SECONDS: Final = 25
SETTLED_SECONDS: Final = 12.0
TARGET: Final = 1.8


@contextmanager
def held_to(share: float, name: str) -> Iterator[Path]:
    """A cgroup that has so much of a core. Raises OSError where none can be made."""
    folder = CGROUPS / f"tokenswarm-{os.getpid()}-{name}"
    folder.mkdir()
    try:
        (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (folder / "cpu.cfs_quota_us").write_text(str(int(share * PERIOD_US)))
        yield folder
    finally:
        folder.rmdir()


def start(cwd: Path, cgroup: Path | None, *options: str) -> subprocess.Popen[bytes]:
    """One process of Locust, in the cgroup."""

    def join() -> None:
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))

    prefixes = ("LOCUST_", "TOKENSWARM_", "LLM_", "OPENAI_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), *options]
    return subprocess.Popen(
        command, cwd=cwd, env=env, preexec_fn=join, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )


def chunks_per_second(processes: int, share: float, users: int) -> float:
    """What so many processes, each with so many users and so much of a core, read in a second."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as groups:
        folder = Path(name)
        load = ["--headless", "--users", str(users * processes), "--spawn-rate", str(200 * processes)]
        load += ["--run-time", f"{RUN_SECONDS}s", "--stop-timeout", "0", "--run-dir", str(folder / "run")]
        load += ["--output-tokens", str(servers.OUTPUT_TOKENS), "--extra-body", '{"ignore_eos":true}']
        each = [groups.enter_context(held_to(share, str(number))) for number in range(processes)]
        with servers.sender(users * processes, folder, min(os.sched_getaffinity(0))) as server:
            load += ["--host", server.url]
            if processes == 1:
                running = [start(folder, each[0], *load)]
            else:
                master = ("--master", "--expect-workers", str(processes), "--master-bind-port", "15557")
                running = [start(folder, None, *master, *load)]
                running += [start(folder, group, "--worker", "--master-port", "15557") for group in each]
            for process in running:
                process.wait(RUN_SECONDS * 6)
        return settled_rate(folder / "run")


def settled_rate(run_dir: Path) -> float:
    """Chunks a second of all processes together, from when all users are there until the stop."""
    boundaries: list[dict[str, Any]] = json.loads((run_dir / "run.json").read_text())["boundaries"]
    times = {boundary["event"]: boundary["time"] for boundary in boundaries}
    begin, stop = times["start"] + SETTLED_SECONDS, times["stopping"]
    lines = [json.loads(line) for line in (run_dir / "intervals.jsonl").read_text().splitlines()]
    inside = [line for line in lines if begin < line["time"] - line["seconds"] and line["time"] < stop]
    seconds = sum(float(line["seconds"]) for line in inside) / len({line["worker"] for line in inside})
    return sum(int(line["chunks"]) for line in inside) / seconds


def main() -> int:
    """Print both rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.4, help="of a core, for each client process (0.4)")
    parser.add_argument("--users", type=int, default=1000, help="of each client process (1000)")
    given = parser.parse_args()
    try:
        one = chunks_per_second(1, given.share, given.users)
        two = chunks_per_second(2, given.share, given.users)
    except OSError as error:
        print(f"no process can be held to a share of a core here: {error}", file=sys.stderr)
        return 2
    print(f"each process held to {given.share:g} of a core, {given.users:,} streams of 50 chunks/s each")
    print(f"one process   {one:>9,.0f} chunks/s, {given.share / one * 1e6:.1f} µs a chunk")
    print(f"two processes {two:>9,.0f} chunks/s, {2 * given.share / two * 1e6:.1f} µs a chunk")
    print(f"ratio         {two / one:>9.2f}")
    return 0 if two >= TARGET * one else 1


if __name__ == "__main__":
    sys.exit(main())
