"""How true our times are, and what they cost: the real Locust against a server that writes down when it sent what.

    python benchmarks/truth.py                              200 streams of 50 chunks a second, 25 s
    python benchmarks/truth.py --streams 50,200,500 --json truth.json
    python benchmarks/truth.py --sender --streams 1000      a server in C, for more than the simulator can send
    python benchmarks/truth.py --sender --streams 1000 --tls --python

The server has one core to itself, Locust another one, and everything stays on loopback. Exit status 1: a target was
missed. docs/accuracy.md says what the figures mean and what they cannot see. Not here: how fast the simulator is
(simulator_rate.py).
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import servers
from comparison import Client, Errors, Truth, client_figures, hold_against

LOCUSTFILE = Path(__file__).resolve().parent.parent / "locustfiles" / "chat.py"
SPAWN_RATE = 100
RECEIVER = "TOKENSWARM_RECEIVER"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run to be made."""

    streams: int
    seconds: int
    sender: bool = False
    groups: int = 0
    """Of the sender's streams; 0: each steps by itself."""
    tls: bool = False
    receiver: str | None = None
    """Who reads the sockets; None: whoever the environment says."""
    processes: int = 1

    @property
    def name(self) -> str:
        parts = [f"{self.streams}"]
        parts += ["TLS"] * self.tls + [self.receiver or ""] + [f"× {self.processes}"] * (self.processes > 1)
        return " ".join(filter(None, parts))


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run that was made."""

    plan: Plan
    truth: Truth
    client: Client
    late_steps: int
    server_cpu_percent: float
    """Of one core, at the rate that the client saw."""
    other_cpu_percent: float
    """What else the two cores did, in per cent of one core: other programs, interrupts, and what a hypervisor took."""


class Targets(msgspec.Struct, frozen=True):
    """What a run must reach. Milliseconds, shares, microseconds."""

    ttft_p50_ms: float
    ttft_p99_ms: float
    merged_share: float = 1.0
    cpu_us_per_chunk: float = float("inf")


SIMULATOR_TARGETS = Targets(0.1, 1.0)
SIMULATOR_STREAMS = 200
"""Up to here they hold; beyond, the client may well be at the end of its core."""
SENDER_TARGETS = Targets(0.05, 0.05, 0.005, 20.0)
SENDER_STREAMS = 1000
"""Up to here they hold; the cost is of so many, as a chunk costs more where there are few."""
TLS_COST = 1.5
"""At most so many times the cost of the plain run."""


def run_locust(server: servers.Server, plan: Plan, run_dir: Path, cores: list[int]) -> None:
    """A headless run as anybody would start it. Raises RuntimeError with what it printed if it failed."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--host", server.url]
    command += ["--users", str(plan.streams), "--spawn-rate", str(SPAWN_RATE), "--run-time", f"{plan.seconds}s"]
    command += ["--output-tokens", str(servers.OUTPUT_TOKENS), "--extra-body", '{"ignore_eos":true}']
    command += ["--run-dir", str(run_dir), *server.locust_options]
    if plan.processes > 1:
        command += ["--processes", str(plan.processes)]
    prefixes = ("LOCUST_", "TOKENSWARM_", "LLM_", "OPENAI_")
    env = {name: value for name, value in os.environ.items() if name == RECEIVER or not name.startswith(prefixes)}
    if plan.receiver is not None:
        env[RECEIVER] = plan.receiver
    done = subprocess.run(
        command,
        cwd=run_dir.parent,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=servers.pin(cores),
    )
    if done.returncode != 0:
        raise RuntimeError(f"Locust ended with {done.returncode}:\n{done.stdout[-2000:]}")


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


def measure(plan: Plan, cores: list[int]) -> Run:
    """Raises RuntimeError with the reason if there is nothing to be measured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_dir = folder / "run"
        began = time.monotonic()
        busy, ours = busy_seconds(cores[:2]), children_seconds()
        if plan.sender:
            started = servers.sender(plan.streams, folder, cores[0], plan.tls, plan.groups)
        else:
            started = servers.simulator(plan.streams, folder, cores[0])
        with started as server:
            run_locust(server, plan, run_dir, cores[1:2] if plan.processes == 1 else cores)
        others = busy_seconds(cores[:2]) - busy - (children_seconds() - ours)
        percent = max(0.0, others) / (time.monotonic() - began) * 100
        sends, client = server.sends(), client_figures(run_dir, plan.streams)
        a_chunk = server.cpu_seconds / sum(len(send.sent_ns) for send in sends.values())
        return Run(
            plan=plan,
            truth=hold_against(sends, run_dir),
            client=client,
            late_steps=server.late_steps,
            server_cpu_percent=a_chunk * client.chunks_per_s * 100,
            other_cpu_percent=percent,
        )


def missed(run: Run) -> list[str]:
    """The targets that the run missed, in words."""
    plan, truth, client = run.plan, run.truth, run.client
    targets, most_streams = (SENDER_TARGETS, SENDER_STREAMS) if plan.sender else (SIMULATOR_TARGETS, SIMULATOR_STREAMS)
    if plan.streams > most_streams or plan.receiver == "python":
        return []
    cost = targets.cpu_us_per_chunk if plan.streams == SENDER_STREAMS else float("inf")
    problems = []
    for name, value, most in (
        ("TTFT error p50, ms", truth.ttft.p50, targets.ttft_p50_ms + truth.uncertainty_ms),
        ("TTFT error p99, ms", truth.ttft.p99, targets.ttft_p99_ms + truth.uncertainty_ms),
        ("share of merged reads", client.merged_reads / client.reads, targets.merged_share),
        ("µs a chunk", client.cpu_us_per_chunk, cost * (TLS_COST if plan.tls else 1)),
        ("requests without a row", truth.lost, 0),
        ("rows without an exact line in the send log", truth.unmatched, 0),
        ("share of rows whose true arrival is out of bounds", 1 - truth.inside_share, 0),
        ("share of rows not on the kernel's clock", 1 - truth.kernel_share, 0),
    ):
        if value > most:
            problems.append(f"{plan.name} streams: {name}: {value:.4g}, more than {most:g}")
    return problems


def dear_tls(runs: list[Run]) -> list[str]:
    """Where TLS costs too much more than the same run without."""
    plain = {run.plan: run.client.cpu_us_per_chunk for run in runs}
    problems = []
    for run in runs:
        base = plain.get(msgspec.structs.replace(run.plan, tls=False))
        times = run.client.cpu_us_per_chunk / base if run.plan.tls and base is not None else 0.0
        if times > TLS_COST and run.plan.streams == SENDER_STREAMS:
            problems.append(f"{run.plan.name} streams: × {times:.2f} the cost without, more than {TLS_COST:g}")
    return problems


def table(runs: list[Run]) -> str:
    """One column a run."""

    def errors(value: Errors) -> str:
        return f"{value.p50:.3f} / {value.p99:.3f} / {value.max:.3f}"

    def pair(p50: float, p99: float) -> str:
        return f"{p50:.2f} / {p99:.2f}"

    lines: list[tuple[str, Callable[[Run, Truth, Client], str]]] = [
        ("streams", lambda r, t, c: r.plan.name),
        ("chunks/s", lambda r, t, c: f"{c.chunks_per_s:,.0f}"),
        ("rows (not ok, unmatched, lost)", lambda r, t, c: f"{t.rows:,} ({t.not_ok}, {t.unmatched}, {t.lost})"),
        ("TTFT error p50 / p99 / max, ms", lambda r, t, c: errors(t.ttft)),
        ("  earliest, ms", lambda r, t, c: f"{t.ttft.earliest:.3f}"),
        ("  rows that claim to be exact", lambda r, t, c: f"{t.sure_share:.2%}"),
        ("  TTFT error of those", lambda r, t, c: errors(t.sure)),
        ("  true arrival inside the bounds", lambda r, t, c: f"{t.inside_share:.2%}"),
        ("last token error p50 / p99 / max, ms", lambda r, t, c: errors(t.last_token)),
        ("clocks of several processes known to, ms", lambda r, t, c: f"{t.uncertainty_ms:.3f}"),
        ("rows on the kernel's clock", lambda r, t, c: f"{t.kernel_share:.2%}"),
        ("user space: lag of a read p50 / p99, ms", lambda r, t, c: pair(c.read_lag_p50_ms, c.read_lag_p99_ms)),
        ("  worst of a request p50 / p99, ms", lambda r, t, c: pair(t.worst_lag_p50_ms, t.worst_lag_p99_ms)),
        ("  p99 of a read, as a multiple of ours", lambda r, t, c: f"× {c.read_lag_p99_ms / t.ttft.p99:,.0f}"),
        ("merged reads (late) of all", lambda r, t, c: f"{c.merged_reads:,} ({c.late_merged_reads:,}) of {c.reads:,}"),
        ("client CPU", lambda r, t, c: f"{c.cpu_percent:.0f} %, {c.cpu_us_per_chunk:.1f} µs a chunk"),
        ("server CPU", lambda r, t, c: f"{r.server_cpu_percent:.0f} %"),
        ("server steps over 1 ms late", lambda r, t, c: f"{r.late_steps:,}"),
        ("other work on the two cores", lambda r, t, c: f"{r.other_cpu_percent:.0f} % of a core"),
        ("verdict", lambda r, t, c: t.verdict),
    ]
    cells = [(name, [cell(run, run.truth, run.client) for run in runs]) for name, cell in lines]
    wide = max(len(text) for _, texts in cells for text in texts) + 3
    return "\n".join(f"{name:42}" + "".join(f"{text:>{wide}}" for text in texts) for name, texts in cells)


def stream_counts(text: str) -> list[int]:
    """The numbers of `--streams`; ValueError (which argparse words) unless they are positive."""
    counts = [int(part) for part in text.split(",")]
    if min(counts) < 1:
        raise ValueError
    return counts


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add: Any = parser.add_argument
    add(
        "--streams",
        type=stream_counts,
        default=[SIMULATOR_STREAMS],
        metavar="N,…",
        help="users at the same time, one run for each number (default: 200)",
    )
    add("--seconds", type=int, default=25, help="length of each run (default: %(default)s)")
    add("--sender", action="store_true", help="load the server in C instead of the simulator; needs gcc")
    add("--groups", type=int, default=0, help="of the sender's streams, each of which sends in one burst")
    add("--tls", action="store_true", help="a run over TLS as well; with --sender, needs OpenSSL's headers")
    add("--python", action="store_true", help="a run without the receive thread as well")
    add("--processes", type=int, default=1, help="of Locust, which then has all cores (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all figures there as well")
    given = parser.parse_args()
    if (given.tls or given.groups) and not given.sender:
        parser.error("--tls and --groups need --sender")
    return given


def plans(given: argparse.Namespace) -> Iterable[Plan]:
    """The runs that the command line asks for."""
    for streams in given.streams:
        plan = Plan(
            streams=streams,
            seconds=given.seconds,
            sender=given.sender,
            groups=given.groups,
            processes=given.processes,
        )
        yield plan
        if given.tls:
            yield msgspec.structs.replace(plan, tls=True)
        if given.python:
            yield msgspec.structs.replace(plan, receiver="python")


def main() -> int:
    given = arguments()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("This needs two cores: one for the server, one for Locust.", file=sys.stderr)
        return 2
    try:
        runs = [measure(plan, cores) for plan in plans(given)]
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(runs))
    if given.json is not None:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(runs)) + b"\n")
    problems = [problem for run in runs for problem in missed(run)] + dear_tls(runs)
    for problem in problems:
        print(f"Missed: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
