"""What a large dataset costs: how long until its first prompt, what it adds to the memory, and what a prompt takes.

    python benchmarks/dataset.py                        1,000,000 records, each kind of file in each order
    python benchmarks/dataset.py --records 10000000 --characters 480 --kinds jsonl

Each is read in a process of its own, as a worker reads it: looked through before the load, then some prompts. Memory
is the growth of that process's largest resident size (Linux). Exit status 1: one of a million records grew by 50 MB.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tokenswarm.workload.dataset import Contents, Dataset
from tokenswarm.workload.order import ORDERS

TARGET_RECORDS: Final = 1_000_000
TARGET_MB: Final = 50
MOST_PROMPTS: Final = 100_000
KINDS: Final[dict[str, Callable[[str], tuple[str, str, str, str]]]] = {
    "jsonl": lambda text: ("", json.dumps({"messages": [{"role": "user", "content": f"%d {text}"}]}), "\n", "\n"),
    "csv": lambda text: ("id,prompt\n", f'%d,"a first line\n{text}"', "\n", "\n"),
    "json": lambda text: ("[", json.dumps({"conversations": [{"from": "human", "value": f"%d {text}"}]}), ",\n", "]"),
}
"""By the file's ending: its beginning, a record with its number, what is between two, the end."""


def write(path: Path, records: int, characters: int) -> None:
    """A file of so many records, all different, each with so many characters and some more."""
    begin, record, between, end = KINDS[path.suffix[1:]]("x" * characters)
    with path.open("w", encoding="utf-8") as file:
        file.write(begin)
        numbers = iter(range(records))
        while some := list(itertools.islice(numbers, 10_000)):
            file.write(between.join(record % number for number in some))
            file.write(between if some[-1] < records - 1 else end)


def measure(path: str, order: str) -> None:
    """In the child: prints what it took, as JSON."""
    before, began, worked = _peak_mb(), time.perf_counter(), time.process_time()
    source = Dataset(Contents(path, order=order), worker=0, tell=print)
    source.next()
    start, start_cpu = time.perf_counter() - began, time.process_time() - worked
    began = time.process_time()
    for _ in range(MOST_PROMPTS):
        source.next()
    each = (time.process_time() - began) / MOST_PROMPTS
    print(json.dumps({"start_s": start, "cpu_s": start_cpu, "us": each * 1e6, "mb": _peak_mb() - before}))


def _peak_mb() -> float:
    # Of this program: what getrusage tells may be of the one that started it.
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kilobytes) / 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=TARGET_RECORDS)
    parser.add_argument("--characters", type=int, default=200, help="of each prompt")
    parser.add_argument("--kinds", default=",".join(KINDS), help="endings of the files, with commas between them")
    parser.add_argument("--measure", nargs=2, metavar=("FILE", "ORDER"), help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.measure:
        measure(*chosen.measure)
        return 0
    missed = 0
    print(f"{chosen.records:,} records\nfile   size/MB  order       start/s  of CPU/s  growth/MB  us a prompt")
    with tempfile.TemporaryDirectory() as folder:
        for kind in chosen.kinds.split(","):
            path = Path(folder) / f"large.{kind}"
            write(path, chosen.records, chosen.characters)
            for order in ORDERS:
                command = [sys.executable, __file__, "--measure", str(path), order]
                found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                missed += chosen.records <= TARGET_RECORDS and found["mb"] >= TARGET_MB
                size = path.stat().st_size / 1e6
                start = f"{found['start_s']:8.2f} {found['cpu_s']:9.2f}"
                print(f"{kind:5} {size:8,.0f}  {order:10} {start} {found['mb']:10.1f} {found['us']:12.1f}", flush=True)
            path.unlink()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
