"""How often the verdict finds fault where there is none: short runs of moderate load, and the rules that fired.

    python benchmarks/healthy.py                60 runs of 12 s, about 16 minutes
    python benchmarks/healthy.py --runs 10

Each is the real Locust against the embedded simulator, on loopback and with whatever else this machine does: what else
ran on its processors is printed beside each verdict, for a neighbour's noise may honestly degrade a run. Exit status 1:
a rule fired at degraded or worse. Notes are counted, but are no fault.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

LOCUSTFILES = Path(__file__).resolve().parent.parent / "locustfiles"
SHAPES: Final[dict[str, tuple[str, ...]]] = {
    "a few users": ("chat.py", "--users", "5", "--output-tokens", "40"),
    "short answers": ("chat.py", "--users", "20", "--output-tokens", "20"),
    "many users": ("chat.py", "--users", "60", "--output-tokens", "60"),
    "users that think": ("think_time.py", "--users", "30", "--output-tokens", "30"),
    "conversations": ("poem.py", "--users", "10", "--output-tokens", "30"),
    "two processes": ("chat.py", "--users", "20", "--output-tokens", "40", "--processes", "2"),
    "portable transport": ("chat.py", "--users", "5", "--output-tokens", "30", "--transport", "portable"),
}


class Outcome(msgspec.Struct, frozen=True):
    """One run: the rules that fired, and the machine meanwhile."""

    shape: str
    reasons: list[dict[str, Any]]
    client: dict[str, Any]
    other_cpu_percent: float
    """Of one core: what neither Locust nor its children used."""


def run(shape: str, seconds: int) -> Outcome:
    """Raises RuntimeError with what Locust printed if there is no verdict."""
    locustfile, *options = SHAPES[shape]
    prefixes = ("LOCUST_", "TOKENSWARM_", "LLM_", "OPENAI_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILES / locustfile), "--headless", *options]
    command += ["--spawn-rate", "100", "--run-time", f"{seconds}s", "--warmup", "3", "--run-dir", "run"]
    with tempfile.TemporaryDirectory() as folder:
        before, ours = psutil.cpu_times(), psutil.Process().cpu_times()
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        after, now = psutil.cpu_times(), psutil.Process().cpu_times()
        try:
            summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
        except OSError:
            raise RuntimeError(f"Locust ended with {done.returncode}:\n{done.stderr[-2000:]}") from None
    total, idle = sum(after) - sum(before), after.idle - before.idle + after.iowait - before.iowait
    mine = now.children_user - ours.children_user + now.children_system - ours.children_system
    others = max(0.0, total - idle - mine) / (total / (psutil.cpu_count() or 1)) * 100
    return Outcome(shape, summary["verdict"]["reasons"], summary["client"], others)


def line(number: int, outcome: Outcome) -> str:
    """One run in words."""
    faults = [f"{reason['level'].upper()} {reason['text']}" for reason in outcome.reasons if reason["level"] != "note"]
    notes = [reason["rule"] for reason in outcome.reasons if reason["level"] == "note"]
    found = "; ".join(faults) or "valid"
    aside = f" (notes: {', '.join(notes)})" if notes else ""
    return f"{number:3}  {outcome.shape:20} others {outcome.other_cpu_percent:4.0f} % of a core  {found}{aside}"


def table(outcomes: Sequence[Outcome]) -> str:
    """How often each rule fired, at each level."""
    counted = Counter((reason["level"], reason["rule"]) for outcome in outcomes for reason in outcome.reasons)
    lines = [f"{count:4} × {level:9} {rule}" for (level, rule), count in sorted(counted.items())]
    faulty = sum(any(reason["level"] != "note" for reason in outcome.reasons) for outcome in outcomes)
    return "\n".join([*lines, f"{faulty} of {len(outcomes)} healthy runs were found at fault."])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=60, help="how many, of each shape in turn (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=12, help="length of each (default: %(default)s)")
    given = parser.parse_args()
    outcomes = []
    try:
        for number, shape in enumerate(itertools.islice(itertools.cycle(SHAPES), given.runs), 1):
            outcomes.append(run(shape, given.seconds))
            print(line(number, outcomes[-1]), flush=True)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(outcomes))
    return 1 if any(reason["level"] != "note" for outcome in outcomes for reason in outcome.reasons) else 0


if __name__ == "__main__":
    sys.exit(main())
