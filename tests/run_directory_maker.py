"""Run directories whose truth is known, for the tests of `tokenswarm.results`.

The load is a closed loop on a ruler: every user sends back to back, every request takes `e2e` seconds, its output
chunks are evenly spaced, and TTFTs cycle through a list.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenswarm import histogram
from tokenswarm.record import RequestRecord, csv_header, csv_rows

T0 = 1_763_646_000.0
"""Start of every made run, UTC epoch seconds."""

HEALTHY: dict[str, Any] = {
    "cpu_percent": 40.0,
    "loop_cpu_percent": 35.0,
    "loop_wait_percent": 1.0,
    "loop_lag_ms": 0.5,
    "gc_pauses": 3,
    "gc_pause_ms": 0.6,
    "gc_pause_max_ms": 0.3,
    "ring_full": 0,
    "ring_full_ms": 0.0,
    "tcp_trouble": {},
    "steal_percent": 0.1,
    "throttled_percent": 0.0,
    "clock_jump_ms": 0.0,
    "descriptors": 60,
    "descriptor_limit": 1024,
    "sockets": 40,
    "ports": 28232,
}
"""What a worker in good health says of itself every second."""

Record = RequestRecord


def request(index: int, start: float, ttft: float, e2e: float, tokens: int = 11, **fields: Any) -> Record:
    """A successful request; `start`, `ttft` and `e2e` in seconds after T0; one token a chunk."""
    gap = (e2e - ttft) / (tokens - 1) if tokens > 1 else 0.0
    record = RequestRecord(
        id=f"r{index}",
        user_class="ChatUser",
        name="/v1/chat/completions",
        protocol="openai-chat",
        model="a-model",
        status="ok",
        http_status=200,
        finish_reason="stop",
        start_time=T0 + start,
        intended_time=T0 + start,
        first_token_time=T0 + start + ttft,
        end_time=T0 + start + e2e,
        ttft_ms=ttft * 1e3,
        ttft_sent_ms=ttft * 1e3 - 0.2,
        ttft_due_ms=ttft * 1e3,
        ttft_low_ms=ttft * 1e3,
        ttfo_ms=ttft * 1e3,
        tpot_ms=gap * 1e3 if tokens > 1 else None,
        e2e_ms=e2e * 1e3,
        last_token_ms=e2e * 1e3,
        chunks=tokens,
        queue_ms=0.05,
        pool_ms=0.1,
        send_ms=0.1,
        clock="kernel",
        attempts=1,
        output_tokens=tokens,
        token_source="usage",
        input_tokens=100,
        output_chars=4 * tokens,
        client_lag_ms=0.02,
    )
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def failed(index: int, start: float, after: float, error_class: str, error: str, status: str = "failed") -> Record:
    """A request that ended without a token, `after` seconds after its start."""
    record = RequestRecord(id=f"f{index}", status=status, error_class=error_class, error=error, model="a-model")
    record.start_time = record.intended_time = T0 + start
    record.end_time = T0 + start + after
    record.e2e_ms = after * 1e3
    record.pool_ms = record.send_ms = 0.1
    record.clock = "kernel"
    return record


def closed_loop(
    users: int = 10,
    seconds: float = 60.0,
    e2e: float = 0.5,
    ttfts: Sequence[float] = (0.1,),
    change: Callable[[Record, int], None] | None = None,
) -> list[Record]:
    """Every user starts at 0 and sends back to back until `seconds`; `change` may alter each record."""
    records = []
    for user in range(users):
        for turn in range(math.floor(seconds / e2e)):
            index = len(records)
            record = request(index, turn * e2e, ttfts[index % len(ttfts)], e2e)
            record.worker = user % 2
            if change is not None:
                change(record, index)
            records.append(record)
    return records


def boundaries(users: int, spawned: float, stopping: float, stopped: float) -> list[dict[str, Any]]:
    """A plain run: target at 0, reached at `spawned`, and stopped (seconds after T0)."""
    events = (("start", 0.0, 0), ("target", 0.0, users), ("spawned", spawned, users))
    events += (("stopping", stopping, users), ("stopped", stopped, 0))
    return [{"event": event, "time": T0 + at, "users": n} for event, at, n in events]


def write(
    directory: Path,
    records: Sequence[Record],
    bounds: list[dict[str, Any]] | None = None,
    users: int = 10,
    without_row: Sequence[Record] = (),
    itl_ms: float = 40.0,
    health: Callable[[int, int], dict[str, Any]] | None = None,
    **run: Any,
) -> Path:
    """Write the directory; `run` replaces fields of run.json. `without_row`: started, but in flight at a kill. `health`
    gives what to change in the interval line of a (worker, second)."""
    directory.mkdir(parents=True, exist_ok=True)
    last = max((record.end_time or 0.0 for record in records), default=T0 + 60)
    bounds = boundaries(users, 0.0, last - T0, last - T0) if bounds is None else bounds
    described = {
        "schema": 1,
        "run_id": "20251120T134000Z-chat",
        "label": "chat",
        "suite": {"tokenswarm": "0.1.0", "locust": "2.47.0", "python": "3.11.7"},
        "host": {"hostname": "client-1", "cpus": 2, "platform": "Linux"},
        "command": ["locust", "-f", "chat.py"],
        "target": {
            "host": "http://10.0.0.9:8000",
            "simulator": False,
            "protocol": "openai-chat",
            "model": "a-model",
            "transport": "fast",
        },
        "options": {"request_timeout": 300.0, "warmup": None},
        "seed": 0,
        "user_classes": [{"name": "ChatUser", "think_time": False}],
        "load": {"arrivals": "closed", "users": users, "spawn_rate": 100.0, "run_time": 60.0},
        "workers": [{"index": 0, "hostname": "client-1", "pid": 1, "clock": "kernel"}],
        "start": {"time": T0, "utc": "2025-11-20T13:40:00Z", "monotonic_ns": 5},
        "end": {"time": last, "utc": "2025-11-20T13:41:00Z", "monotonic_ns": 6},
        "boundaries": bounds,
        "rows": {"written": len(records), "lost": 0},
        "problems": [],
        "verdict": None,
    }
    (directory / "run.json").write_text(json.dumps(described | run, ensure_ascii=False), encoding="utf-8")
    (directory / "requests.csv").write_text(csv_header() + csv_rows(records), encoding="utf-8")
    lines = intervals(records, without_row, users, itl_ms)
    for line in lines if health else ():
        line |= health(line["worker"], line["seq"])
    (directory / "intervals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return directory


def intervals(
    records: Sequence[Record], without_row: Sequence[Record], users: int, itl_ms: float
) -> list[dict[str, Any]]:
    """One line a worker a second, as the recorder writes them."""
    everything = [*records, *without_row]
    seconds = math.ceil(max((record.end_time or T0) for record in everything) - T0) if everything else 0
    if without_row:
        seconds = math.floor(min(record.end_time or T0 for record in without_row) - T0)
    itl = histogram.encode_ns([round(itl_ms * 1e6)] * 10)
    lines = []
    for worker in sorted({record.worker for record in everything}):
        mine = [record for record in everything if record.worker == worker]
        started = Counter(math.floor((record.start_time or T0) - T0) for record in mine)
        ended: dict[int, list[Record]] = defaultdict(list)
        for record in mine:
            ended[math.ceil((record.end_time or T0) - T0) - 1].append(record)
        for second in range(seconds):
            done = ended[second]
            now = T0 + second + 1.0
            flying = sum((r.start_time or T0) <= now < (r.end_time or T0) for r in mine)
            lines.append(_interval(worker, second, done, started[second], flying, users, itl))
    return sorted(lines, key=lambda line: line["time"])


def _interval(
    worker: int, second: int, done: list[Record], started: int, flying: int, users: int, itl: str
) -> dict[str, Any]:
    tokens: dict[int, float] = defaultdict(float)
    inputs: dict[int, float] = defaultdict(float)
    for record in done:
        if record.ttft_ms is not None and record.output_tokens and record.first_token_time is not None:
            for chunk in range(record.output_tokens):
                at = record.first_token_time + chunk * (record.tpot_ms or 0.0) / 1e3
                tokens[math.floor(at - 1e-6)] += 1
            inputs[math.floor(record.first_token_time)] += record.input_tokens or 0
    return {
        "worker": worker,
        "seq": second,
        "time": T0 + second + 1.0,
        "seconds": 1.0,
        "users": users // 2 if users > 1 else users,
        "target_users": users // 2 if users > 1 else users,
        "in_flight": flying,
        "started": started,
        "ended": dict(Counter(record.status for record in done)),
        "errors": dict(Counter(record.error_class for record in done if record.error_class)),
        "chunks": sum(record.chunks for record in done),
        "characters": sum(record.output_chars for record in done),
        "bytes": 0,
        "tokens": [[s, n] for s, n in sorted(tokens.items())],
        "input_tokens": [[s, n] for s, n in sorted(inputs.items())],
        "ttft": histogram.encode_ns([]),
        "itl": itl if done else "",
        "client_lag": "",
        "merged_reads": 2,
        "late_merged_reads": 1,
        **HEALTHY,
    }
