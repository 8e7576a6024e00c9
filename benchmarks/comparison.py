"""What a run directory says, held against what its server says that it sent: how true our times were, and at what cost.

Client and send log share nothing but the computer's monotonic clock.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from tokenswarm import histogram
from tokenswarm.simulator.sendlog import SendRecord
from tokenswarm.target import CHECK_ID
from tokenswarm.timing import percentile

RESOLUTION_NS = 5_000
"""Epoch seconds in the CSV have six decimals, and converting a stamp costs a few µs more."""


class Errors(msgspec.Struct, frozen=True):
    """Sizes of (our instant − just before the server's write), in milliseconds."""

    p50: float
    p99: float
    max: float
    earliest: float
    """The most negative of them, sign kept: an arrival before its sending would be nonsense."""


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """How true a run's rows were."""

    rows: int
    """Rows whose first token came and was exactly logged."""
    unmatched: int
    """Rows with a first token but no exact line in the send log."""
    lost: int
    """Requests that the server answered and that have no row, and rows that the run says were lost."""
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
    uncertainty_ms: float
    """Of the workers' clocks against the master's, on which their instants are told; 0 where there is one process."""
    worst_lag_p50_ms: float
    worst_lag_p99_ms: float
    verdict: str


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """What the client says of itself: rate and CPU while all streams were on, reads over the whole run."""

    chunks_per_s: float
    cpu_percent: float
    """Of one core, all processes together."""
    cpu_us_per_chunk: float
    reads: int
    merged_reads: int
    late_merged_reads: int
    read_lag_p50_ms: float
    read_lag_p99_ms: float


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


def errors_of(differences_ns: Iterable[int]) -> Errors:
    """Of at least one difference."""
    signed = [difference / 1e6 for difference in differences_ns]
    sizes = sorted(map(abs, signed))
    return Errors(percentile(sizes, 50), percentile(sizes, 99), sizes[-1], min(0.0, *signed))


def hold_against(sends: Mapping[str, SendRecord], run_dir: Path) -> Truth:
    """Join the run's rows to the send log and say how far they are apart. Raises RuntimeError if nothing joins."""
    manifest = json.loads((run_dir / "run.json").read_text(), parse_float=Decimal)
    clock = Clock(manifest["start"])
    with (run_dir / "requests.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first, sure, last, inside, matched = [], [], [], 0, []
    uncertainty_ms = float(max(worker["clock_uncertainty_ms"] for worker in manifest["workers"]))
    slack = RESOLUTION_NS + int(uncertainty_ms * 1e6)
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
        inside += low - slack <= send.done_ns[0] and send.sent_ns[0] <= at + slack
        if row["status"] == "ok":
            end = clock.monotonic(row["start_time"]) + int(Decimal(row["last_token_ms"]) * 1_000_000)
            last.append(end - send.sent_ns[-1])
    if not sure or not last:
        raise RuntimeError("no row has a line in the send log, or none is sure of its times")
    worst = sorted(float(row["client_lag_ms"]) for row in matched)
    ids = {row["id"] for row in rows}
    return Truth(
        rows=len(matched),
        unmatched=len(started) - len(matched),
        # The check before the run asks for a reply as well, and has no row.
        lost=sum(id not in ids and id != CHECK_ID for id in sends) + manifest["rows"]["lost"],
        not_ok=sum(row["status"] != "ok" for row in rows),
        kernel_share=sum(row["clock"] == "kernel" for row in started) / len(started),
        ttft=errors_of(first),
        sure_share=len(sure) / len(matched),
        sure=errors_of(sure),
        inside_share=inside / len(matched),
        last_token=errors_of(last),
        uncertainty_ms=uncertainty_ms,
        worst_lag_p50_ms=percentile(worst, 50),
        worst_lag_p99_ms=percentile(worst, 99),
        verdict=manifest["verdict"]["level"],
    )


def client_figures(run_dir: Path, streams: int) -> Client:
    """Raises RuntimeError if the run was too short for all its users to come."""
    lines = [json.loads(line) for line in (run_dir / "intervals.jsonl").read_text().splitlines()]
    workers: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        workers[line["worker"]].append(line)
    chunks_per_s = cores = 0.0
    all_users = 0
    for mine in workers.values():
        users = max(line["users"] for line in mine)
        # The second in which the last user came is left out.
        steady = [line for line in mine if line["users"] == line["target_users"] == users][1:]
        if not steady:
            raise RuntimeError("the run was too short for all its users; give more --seconds")
        seconds = sum(line["seconds"] for line in steady)
        all_users += users
        chunks_per_s += sum(line["chunks"] for line in steady) / seconds
        cores += sum(line["cpu_percent"] / 100 * line["seconds"] for line in steady) / seconds
    if all_users != streams:
        raise RuntimeError(f"the run had {all_users} users instead of {streams}; give more --seconds")
    lag = histogram.merge(line["client_lag"] for line in lines)
    return Client(
        chunks_per_s=chunks_per_s,
        cpu_percent=cores * 100,
        cpu_us_per_chunk=cores / chunks_per_s * 1e6,
        reads=lag.get_total_count(),
        merged_reads=sum(line["merged_reads"] for line in lines),
        late_merged_reads=sum(line["late_merged_reads"] for line in lines),
        read_lag_p50_ms=histogram.percentile_ms(lag, 50) or 0.0,
        read_lag_p99_ms=histogram.percentile_ms(lag, 99) or 0.0,
    )
