"""How true our times are: the real Locust against a simulator that writes down when it sent what.

    python benchmarks/truth.py                              200 streams of 50 chunks a second, 25 s
    python benchmarks/truth.py --streams 50,200,500 --json truth.json

The simulator has one core to itself, Locust another one, and everything stays on loopback. Exit status 1: a target was
missed at 200 streams or fewer (TTFT error p50 within 0.1 ms, p99 within 1 ms, every row on the kernel's clock).
docs/accuracy.md says what the figures mean and what they cannot see. Not here: how fast the simulator is
(simulator_rate.py).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from tokenswarm import histogram
from tokenswarm.simulator.sendlog import SendRecord
from tokenswarm.timing import percentile

LOCUSTFILE = Path(__file__).resolve().parent.parent / "locustfiles" / "chat.py"
OUTPUT_TOKENS = 128
STEP_MS = 20
SPAWN_RATE = 100

TARGET_STREAMS = 200
"""Up to here the targets hold; beyond, the client may well be at the end of its core."""
TARGET_P50_MS = 0.1
TARGET_P99_MS = 1.0
RESOLUTION_MS = 0.005
"""Epoch seconds in the CSV have six decimals, and converting a stamp costs a few µs more."""


class Errors(msgspec.Struct, frozen=True):
    """Sizes of (our instant − just before the server's write), in milliseconds."""

    p50: float
    p99: float
    max: float
    earliest: float
    """The most negative of them, sign kept: an arrival before its sending would be nonsense."""


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """One run, held against the send log."""

    streams: int
    rows: int
    """Rows whose first token came and was exactly logged."""
    unmatched: int
    """Rows with a first token but no exact line in the send log."""
    not_ok: int
    kernel_share: float
    """Of the rows with a first token."""
    ttft: Errors
    sure_share: float
    """Rows that claim to know their TTFT exactly (ttft_low equals ttft)."""
    sure: Errors
    """TTFT errors of those."""
    inside_share: float
    """Rows whose true first arrival lies within [ttft_low, ttft]."""
    last_token: Errors
    chunks_per_s: float
    reads: int
    merged_reads: int
    late_merged_reads: int
    read_lag_p50_ms: float
    read_lag_p99_ms: float
    worst_lag_p50_ms: float
    worst_lag_p99_ms: float
    cpu_percent: float
    cpu_us_per_chunk: float
    late_steps: int
    other_cpu_percent: float
    """What else the two cores did, in per cent of one core: other programs, interrupts, and what a hypervisor took."""
    verdict: str


def nanoseconds(epoch_seconds: str | Decimal) -> int:
    """Exactly: a float would be 0.2 µs off by now."""
    return int(Decimal(epoch_seconds) * 1_000_000_000)


class Clock:
    """Wall times of a run directory, back to CLOCK_MONOTONIC by the anchor that `run.json` keeps."""

    def __init__(self, start: Mapping[str, Any]) -> None:
        self._wall = nanoseconds(start["time"])
        self._monotonic = int(start["monotonic_ns"])

    def monotonic(self, epoch_seconds: str) -> int:
        return nanoseconds(epoch_seconds) - self._wall + self._monotonic


def pin(core: int) -> Any:
    """For a child process: run on this core only."""
    return lambda: os.sched_setaffinity(0, {core})


@contextmanager
def simulator(streams: int, log: Path, core: int) -> Iterator[str]:
    """The URL of a simulator that steps every 20 ms, whatever the load, for as long as the block lasts."""
    command = [sys.executable, "-m", "tokenswarm.simulator", "--port", "0", "--announce", "--exit-with-stdin"]
    command += ["--decode-base", str(STEP_MS), "--decode-per-seq", "0", "--jitter", "0", "--prefill-per-token", "0"]
    command += ["--max-batch", str(streams), "--log", str(log)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=pin(core),
    ) as process:
        assert process.stdout is not None
        try:
            announced = process.stdout.readline()
            if not announced:
                raise RuntimeError("the simulator did not start: " + " ".join(command))
            yield json.loads(announced)["url"]
        finally:
            process.terminate()


def late_steps(url: str) -> int:
    """Steps that the simulator began over 1 ms late so far."""
    with urllib.request.urlopen(f"{url}/metrics") as page:
        lines = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines() if line[:1] != "#")
    return int(float(lines["simulator_late_steps_total"]))


def run_locust(url: str, streams: int, seconds: int, run_dir: Path, core: int) -> None:
    """A headless run as anybody would start it. Raises RuntimeError with what it printed if it failed."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--host", url]
    command += ["--users", str(streams), "--spawn-rate", str(SPAWN_RATE), "--run-time", f"{seconds}s"]
    command += ["--output-tokens", str(OUTPUT_TOKENS), "--extra-body", '{"ignore_eos":true}']
    command += ["--run-dir", str(run_dir)]
    prefixes = ("LOCUST_", "TOKENSWARM_", "LLM_", "OPENAI_")
    kept = "TOKENSWARM_RECEIVER"  # who reads the sockets is what one may want to compare
    env = {name: value for name, value in os.environ.items() if name == kept or not name.startswith(prefixes)}
    done = subprocess.run(
        command,
        cwd=run_dir.parent,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=pin(core),
    )
    if done.returncode != 0:
        raise RuntimeError(f"Locust ended with {done.returncode}:\n{done.stdout[-2000:]}")


def read_sends(log: Path) -> dict[str, SendRecord]:
    """The send log by request id."""
    decode = msgspec.json.Decoder(SendRecord).decode
    with log.open("rb") as lines:
        return {record.id: record for record in map(decode, lines)}


def busy_seconds(cores: Iterable[int]) -> float:
    """What these cores have worked so far, for whomever, and what the hypervisor took from them."""
    lines = dict(line.split(" ", 1) for line in Path("/proc/stat").read_text().splitlines())
    user, nice, system, _, _, irq, softirq, steal = range(8)
    times = [[int(ticks) for ticks in lines[f"cpu{core}"].split()] for core in cores]
    ticks = sum(core[kind] for core in times for kind in (user, nice, system, irq, softirq, steal))
    return ticks / os.sysconf("SC_CLK_TCK")


def children_seconds() -> float:
    """CPU time of the processes that we started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def errors_of(differences_ns: Iterable[int]) -> Errors:
    """Of at least one difference."""
    signed = [difference / 1e6 for difference in differences_ns]
    sizes = sorted(map(abs, signed))
    return Errors(percentile(sizes, 50), percentile(sizes, 99), sizes[-1], min(0.0, *signed))


def hold_against(sends: Mapping[str, SendRecord], run_dir: Path, streams: int, **surroundings: Any) -> Truth:
    """Join the run's rows to the send log and say how far they are apart; `surroundings` go into the result as is."""
    manifest = json.loads((run_dir / "run.json").read_text(), parse_float=Decimal)
    clock = Clock(manifest["start"])
    with (run_dir / "requests.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first, sure, last, inside, matched = [], [], [], 0, []
    started = [row for row in rows if row["first_token_time"]]
    for row in started:
        send = sends.get(row["id"])
        if send is None or {0, len(send.sent_ns) - 1} & {*send.inexact}:
            continue
        matched.append(row)
        at = clock.monotonic(row["first_token_time"])
        low = at - int((Decimal(row["ttft_ms"]) - Decimal(row["ttft_low_ms"])) * 1_000_000)
        first.append(at - send.sent_ns[0])
        if low == at:
            sure.append(first[-1])
        slack = int(RESOLUTION_MS * 1e6)
        inside += low - slack <= send.done_ns[0] and send.sent_ns[0] <= at + slack
        if row["status"] == "ok":
            end = clock.monotonic(row["start_time"]) + int(Decimal(row["last_token_ms"]) * 1_000_000)
            last.append(end - send.sent_ns[-1])
    if not sure or not last:
        raise RuntimeError("no row has a line in the send log, or none is sure of its times")
    worst = sorted(float(row["client_lag_ms"]) for row in matched)
    return Truth(
        streams=streams,
        rows=len(matched),
        unmatched=len(started) - len(matched),
        not_ok=sum(row["status"] != "ok" for row in rows),
        kernel_share=sum(row["clock"] == "kernel" for row in started) / len(started),
        ttft=errors_of(first),
        sure_share=len(sure) / len(matched),
        sure=errors_of(sure),
        inside_share=inside / len(matched),
        last_token=errors_of(last),
        worst_lag_p50_ms=percentile(worst, 50),
        worst_lag_p99_ms=percentile(worst, 99),
        verdict=manifest["verdict"]["level"],
        **client_figures(run_dir, streams),
        **surroundings,
    )


def client_figures(run_dir: Path, streams: int) -> dict[str, Any]:
    """What the client says of itself: rate and CPU while all streams were on, reads over the whole run."""
    lines = [json.loads(line) for line in (run_dir / "intervals.jsonl").read_text().splitlines()]
    # The second in which the last user came is left out.
    steady = [line for line in lines if line["users"] == line["target_users"] == streams][1:]
    if not steady:
        raise RuntimeError("the run was too short for all its users; give more --seconds")
    seconds = sum(line["seconds"] for line in steady)
    chunks = sum(line["chunks"] for line in steady)
    busy = sum(line["cpu_percent"] / 100 * line["seconds"] for line in steady)
    lag = histogram.merge(line["client_lag"] for line in lines)
    return {
        "chunks_per_s": chunks / seconds,
        "reads": lag.get_total_count(),
        "merged_reads": sum(line["merged_reads"] for line in lines),
        "late_merged_reads": sum(line["late_merged_reads"] for line in lines),
        "read_lag_p50_ms": histogram.percentile_ms(lag, 50) or 0.0,
        "read_lag_p99_ms": histogram.percentile_ms(lag, 99) or 0.0,
        "cpu_percent": busy / seconds * 100,
        "cpu_us_per_chunk": busy / chunks * 1e6,
    }


def measure(streams: int, seconds: int, cores: list[int]) -> Truth:
    """One run of so many streams."""
    with tempfile.TemporaryDirectory() as folder:
        log, run_dir = Path(folder) / "sends.jsonl", Path(folder) / "run"
        began = time.monotonic()
        busy, ours = busy_seconds(cores[:2]), children_seconds()
        with simulator(streams, log, cores[0]) as url:
            run_locust(url, streams, seconds, run_dir, cores[1])
            late = late_steps(url)
        others = busy_seconds(cores[:2]) - busy - (children_seconds() - ours)
        percent = max(0.0, others) / (time.monotonic() - began) * 100
        return hold_against(read_sends(log), run_dir, streams, late_steps=late, other_cpu_percent=percent)


def missed(truth: Truth) -> list[str]:
    """The targets that the run missed, in words; none are set for more than 200 streams."""
    if truth.streams > TARGET_STREAMS:
        return []
    problems = []
    for name, value, most in (("p50", truth.ttft.p50, TARGET_P50_MS), ("p99", truth.ttft.p99, TARGET_P99_MS)):
        if value > most:
            problems.append(f"TTFT error {name} is {value:.3f} ms, more than {most:g} ms")
    if truth.kernel_share < 1:
        problems.append(f"only {truth.kernel_share:.2%} of the rows are on the kernel's clock")
    if truth.unmatched:
        problems.append(f"{truth.unmatched} rows have no exact line in the send log")
    return [f"{truth.streams} streams: {problem}" for problem in problems]


def table(truths: list[Truth]) -> str:
    """One column a run."""

    def errors(value: Errors) -> str:
        return f"{value.p50:.3f} / {value.p99:.3f} / {value.max:.3f}"

    def pair(p50: float, p99: float) -> str:
        return f"{p50:.2f} / {p99:.2f}"

    lines: list[tuple[str, list[str]]] = [
        ("streams", [f"{t.streams}" for t in truths]),
        ("chunks/s", [f"{t.chunks_per_s:,.0f}" for t in truths]),
        ("rows (not ok, unmatched)", [f"{t.rows:,} ({t.not_ok}, {t.unmatched})" for t in truths]),
        ("TTFT error p50 / p99 / max, ms", [errors(t.ttft) for t in truths]),
        ("  earliest, ms", [f"{t.ttft.earliest:.3f}" for t in truths]),
        ("  rows that claim to be exact", [f"{t.sure_share:.2%}" for t in truths]),
        ("  TTFT error of those", [errors(t.sure) for t in truths]),
        ("  true arrival inside the bounds", [f"{t.inside_share:.2%}" for t in truths]),
        ("last token error p50 / p99 / max, ms", [errors(t.last_token) for t in truths]),
        ("rows on the kernel's clock", [f"{t.kernel_share:.2%}" for t in truths]),
        ("user space: lag of a read p50 / p99, ms", [pair(t.read_lag_p50_ms, t.read_lag_p99_ms) for t in truths]),
        ("  worst of a request p50 / p99, ms", [pair(t.worst_lag_p50_ms, t.worst_lag_p99_ms) for t in truths]),
        ("  p99 of a read, as a multiple of ours", [f"× {t.read_lag_p99_ms / t.ttft.p99:,.0f}" for t in truths]),
        (
            "merged reads (late) of all",
            [f"{t.merged_reads:,} ({t.late_merged_reads:,}) of {t.reads:,}" for t in truths],
        ),
        ("client CPU", [f"{t.cpu_percent:.0f} %, {t.cpu_us_per_chunk:.1f} µs a chunk" for t in truths]),
        ("server steps over 1 ms late", [f"{t.late_steps}" for t in truths]),
        ("other work on the two cores", [f"{t.other_cpu_percent:.0f} % of a core" for t in truths]),
        ("verdict", [t.verdict for t in truths]),
    ]
    wide = max(len(cell) for _, cells in lines for cell in cells) + 3
    return "\n".join(f"{name:42}" + "".join(f"{cell:>{wide}}" for cell in cells) for name, cells in lines)


def stream_counts(text: str) -> list[int]:
    """The numbers of `--streams`; ValueError (which argparse words) unless they are positive."""
    counts = [int(part) for part in text.split(",")]
    if min(counts) < 1:
        raise ValueError
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--streams",
        type=stream_counts,
        default=[TARGET_STREAMS],
        metavar="N,…",
        help="users at the same time, one run for each number (default: 200)",
    )
    parser.add_argument("--seconds", type=int, default=25, help="length of each run (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("This needs two cores: one for the simulator, one for Locust.", file=sys.stderr)
        return 2
    try:
        truths = [measure(streams, given.seconds, cores) for streams in given.streams]
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(truths))
    if given.json is not None:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(truths)) + b"\n")
    problems = [problem for truth in truths for problem in missed(truth)]
    for problem in problems:
        print(f"Missed: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
