"""Makes the run directory of a large load test that nobody ran: requests by the million, hardware five times a second.

Requests come as a Poisson process; a short stretch of them is made as real records and written by the suite itself,
and then repeated with other identifiers and times. Not here: what a report of it takes (large_report.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from metrics_exporter.gpu.metrics import GPU
from metrics_exporter.host.metrics import HOST
from tokenswarm import histogram
from tokenswarm.record import RequestRecord, csv_header, csv_rows
from tokenswarm.scraping import exporter

Floats = npt.NDArray[np.float64]

T0: Final = 1_795_255_200
"""The first second of the run, UTC epoch seconds."""
WORKERS: Final = 4
STRETCH: Final = 50_000
"""Requests that are made, before they repeat."""
SAMPLES_A_SECOND: Final = 5
VARIANTS: Final = 100
"""Different samples of hardware, and different histograms, before they repeat."""
CORES: Final = 16
SLO: Final = "ttft_p95<1500ms tpot_p95<60ms error_rate<5%"
GOODPUT: Final = "ttft<800ms tpot<40ms"
CLASSES: Final = {"Chat": 0.7, "Summarise": 0.2, "Complete": 0.1}
TASKS: Final = 12
"""Names of requests in each class."""
SERVERS: Final = 4
WRONG: Final = {
    ("failed", "http_5xx"): (0.008, 503, "The engine is overloaded, request %d was not taken; please retry"),
    ("failed", "rate_limited"): (0.004, 429, 'Rate limit "tokens per minute" reached for organisation %d'),
    ("failed", "truncated"): (0.001, 200, "the stream ended without its terminator, after %d bytes"),
    ("failed", "connect"): (0.001, None, "=connection refused (%d)"),
    ("timeout", "stall_timeout"): (0.002, 200, "nothing came for 30 s after chunk %d"),
    ("timeout", "first_token_timeout"): (0.001, 200, "no token within 60 s (%d)"),
    ("cancelled", ""): (0.004, 200, ""),
    ("shed", ""): (0.001, None, ""),
}
"""Status and class: the share of all requests, HTTP status and message."""
LABELS: Final = {
    "throttle_reason": ("gpu_idle", "sw_power_cap", "hw_slowdown", "sync_boost", "sw_thermal_slowdown",
                        "hw_thermal_slowdown", "hw_power_brake_slowdown", "display_clock_setting"),
    "process_memory_bytes": ("4711", "4712"),
    "ecc_errors_total": ("corrected", "uncorrected"),
    "remapped_rows": ("corrected", "uncorrected"),
    "cpu_mode_ratio": ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"),
}  # fmt: skip
"""What is behind the dot of metrics that have a label."""
COUNTER: Final = "energy_joules_total"
AVERAGED: Final = (
    "up",
    "utilization",
    "power_watts",
    "power_instant",
    "sm_clock",
    "memory_clock",
    "throttle",
    "cpu_busy",
)
"""What is read at every interval begins with one of these, and has a mean and a maximum."""


@dataclass(frozen=True)
class Size:
    """What to make; `seconds` for which requests are sent."""

    requests: int
    gpus: int
    seconds: int = 3600

    @property
    def stretches(self) -> int:
        """How often what is made comes."""
        return max(1, self.requests // STRETCH)

    @property
    def stretch_requests(self) -> int:
        return self.requests // self.stretches

    @property
    def stretch_s(self) -> int:
        return self.seconds // self.stretches


@dataclass(frozen=True)
class Stretch:
    """Requests in order of their ends, with times in seconds since the stretch began; NaN: none."""

    records: list[RequestRecord]
    starts: Floats
    first_tokens: Floats
    ends: Floats


def write(directory: Path, size: Size, seed: int = 0) -> Path:
    """All files of the run."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    stretch = _stretch(size, rng)
    with (directory / "requests.csv").open("wb") as file:
        file.write(csv_header().encode())
        file.writelines(_rows(stretch, size))
    with (directory / "intervals.jsonl").open("wb") as file:
        file.writelines(_intervals(stretch, size, rng))
    with (directory / "hardware.csv").open("wb") as file:
        file.write(exporter.header().encode())
        file.writelines(_samples(size, rng))
    (directory / "run.json").write_text(json.dumps(_described(size), indent=1), encoding="utf-8")
    return directory


def _stretch(size: Size, rng: np.random.Generator) -> Stretch:
    n = size.stretch_requests
    starts = np.sort(rng.uniform(0, size.stretch_s, n))
    prompts = np.clip(rng.lognormal(6.5, 0.9, n), 8, 30_000).astype(int)
    outputs = np.clip(rng.lognormal(4.8, 0.7, n), 2, 2048).astype(int)
    slow = np.where(rng.random(n) < 0.0005, 20.0, 1.0)
    ttft = slow * (30 + prompts * 0.15) * rng.lognormal(0, 0.35, n)
    tpot = rng.lognormal(3.1, 0.25, n)
    shares = np.array([share for share, *_ in WRONG.values()])
    kinds = rng.choice(len(WRONG) + 1, n, p=[*shares, 1 - shares.sum()])
    classes = rng.choice(list(CLASSES), n, p=list(CLASSES.values()))
    every = zip(
        kinds.tolist(), classes.tolist(), prompts.tolist(), outputs.tolist(), rng.random(n).tolist(), strict=True
    )
    records = [
        _record(index, more, *one)
        for index, (more, one) in enumerate(zip(every, zip(ttft.tolist(), tpot.tolist(), strict=True), strict=True))
    ]
    last = np.array([record.last_token_ms or record.e2e_ms or 0.0 for record in records])
    ends = starts + last / 1e3 + 2e-4
    first_tokens = np.array([np.nan if record.ttft_ms is None else record.ttft_ms / 1e3 for record in records]) + starts
    for record, start, end, first in zip(records, starts.tolist(), ends.tolist(), first_tokens.tolist(), strict=True):
        record.start_time, record.end_time = start, end
        record.intended_time = start - (record.queue_ms or 0.0) / 1e3
        record.first_token_time = None if np.isnan(first) else first
    order = np.argsort(ends, kind="stable")
    return Stretch([records[index] for index in order], starts[order], first_tokens[order], ends[order])


def _record(index: int, drawn: tuple[int, str, int, int, float], ttft: float, tpot: float) -> RequestRecord:
    kind, user_class, prompt, output, chance = drawn
    worker = index % WORKERS
    record = RequestRecord(id=f"c69190b6-{worker}-%d", worker=worker, user_class=user_class, status="ok")
    record.name = f"{user_class.lower()} {index % TASKS}"
    record.protocol, record.model, record.http_status = "openai-chat", "meta-llama/Llama-3.1-8B-Instruct", 200
    record.asked_output_tokens, record.request_bytes = output, prompt * 4 + 300
    record.queue_ms, record.clock, record.attempts = 0.05 + chance, "kernel", 1
    record.pool_ms, record.send_ms, record.headers_ms = 0.02 + chance / 10, 0.03 + chance / 50, 1 + 4 * chance
    record.conn_reused, record.remote_addr = chance < 0.999, f"10.0.0.{index % SERVERS + 1}:8000"
    if user_class == "Chat":
        record.conversation, record.turn = f"c69190b6-{worker}-u%d", index % 8 + 1
    if kind < len(WRONG):
        (status, error_class), (_, http_status, message) = list(WRONG.items())[kind]
        record.status, record.error_class, record.http_status = status, error_class or None, http_status
        record.error = (message % index).replace("%", "%%") if message else None
        record.e2e_ms = 30_000 * chance if status == "timeout" else 50 * chance
        if error_class != "truncated" and status != "cancelled":
            return record
        output = max(2, output // 4)
    record.finish_reason = "length" if chance < 0.3 else "stop"
    record.ttft_ms = record.ttft_low_ms = record.ttfo_ms = ttft
    record.ttft_sent_ms = ttft - record.pool_ms - record.send_ms
    record.ttft_due_ms = ttft + record.queue_ms
    record.ttst_ms, record.tpot_ms, record.itl_mean_ms = tpot * (0.5 + chance), tpot, tpot
    record.itl_p50_ms, record.itl_p99_ms, record.itl_max_ms = tpot * 0.98, tpot * 2, tpot * (2 + chance)
    record.tokens_per_chunk, record.chunks, record.first_read_chunks, record.max_read_chunks = 1.0, output, 1, 1
    record.last_token_ms = ttft + tpot * (output - 1)
    record.e2e_ms = record.last_token_ms + 0.2
    record.output_tokens, record.token_source = output, "usage"
    record.input_tokens, record.cached_tokens = prompt, int(prompt * chance / 2)
    record.output_chars, record.response_bytes = output * 4, output * 220
    record.output_tps, record.decode_tps = output * 1e3 / record.e2e_ms, 1e3 / tpot
    record.client_lag_ms = 0.02 + chance
    return record


def _rows(stretch: Stretch, size: Size) -> Iterator[bytes]:
    """The stretch again and again: its text has a place for each number that differs."""
    numbers = np.full((len(stretch.records), 6), np.nan)
    numbers[:, 0] = np.arange(len(stretch.records))
    for index, record in enumerate(stretch.records):
        numbers[index, 1] = np.nan if record.conversation is None else index // 5
        times = record.start_time, record.intended_time, record.first_token_time, record.end_time
        numbers[index, 2:] = [np.nan if time is None else T0 + np.floor(time) for time in times]
        record.start_time, record.intended_time, record.first_token_time, record.end_time = (
            None if time is None else T0 + time for time in times
        )
    text = re.sub(r"\b1795\d{6}(?=\.\d{6})", "%d", csv_rows(stretch.records))
    there = ~np.isnan(numbers)
    shift = np.array([len(stretch.records), len(stretch.records), *[size.stretch_s] * 4])
    for number in range(size.stretches):
        yield (text % tuple((numbers + number * shift)[there].astype(int).tolist())).encode()


def _intervals(stretch: Stretch, size: Size, rng: np.random.Generator) -> Iterator[bytes]:
    """A line a worker a second, that agrees with the rows."""
    seconds = int(np.ceil(stretch.ends.max())) + (size.stretches - 1) * size.stretch_s + 1
    statuses = np.array([record.status for record in stretch.records])
    workers = np.array([record.worker for record in stretch.records])
    tokens = np.array([record.output_tokens or 0 for record in stretch.records], dtype=np.float64)
    inputs = np.array([record.input_tokens or 0 for record in stretch.records], dtype=np.float64)

    def per_second(times: Floats, chosen: npt.NDArray[np.bool_], weights: Floats | None = None) -> Floats:
        chosen = chosen & ~np.isnan(times)
        counted = np.bincount(times[chosen].astype(int), None if weights is None else weights[chosen])
        found = np.zeros(seconds)
        for number in range(size.stretches):
            found[number * size.stretch_s :][: len(counted)] += counted
        return found

    texts = {name: _histograms(rng, *spread) for name, spread in _SPREADS.items()}
    for worker in range(WORKERS):
        mine = workers == worker
        ended = {name: per_second(stretch.ends, mine & (statuses == name)) for name in np.unique(statuses).tolist()}
        started = per_second(stretch.starts, mine)
        out, into = per_second(stretch.ends, mine, tokens), per_second(stretch.first_tokens, mine, inputs)
        flying = np.cumsum(started) - np.cumsum(sum(ended.values()))
        for second in range(seconds):
            line = _HEALTHY | {name: found[(second * WORKERS + worker) % VARIANTS] for name, found in texts.items()}
            line |= {"worker": worker, "seq": second, "time": T0 + second + 1 + worker / 1e4, "seconds": 1.0}
            line |= {"users": _users(size) // WORKERS, "target_users": _users(size) // WORKERS}
            line |= {"in_flight": int(flying[second]), "started": int(started[second])}
            line |= {"ended": {name: int(counts[second]) for name, counts in ended.items() if counts[second]}}
            line |= {"chunks": int(out[second]), "characters": int(out[second]) * 4, "bytes": int(out[second]) * 220}
            line |= {"tokens": [[T0 + second - 1, out[second] * 0.3], [T0 + second, out[second] * 0.7]]}
            line |= {"input_tokens": [[T0 + second, into[second]]]}
            yield json.dumps(line).encode() + b"\n"


def _users(size: Size) -> int:
    return max(WORKERS, size.requests // size.seconds)


_SPREADS: Final = {"ttft": (70, 5.0, 0.6), "itl": (5000, 3.1, 0.4), "client_lag": (5000, -3.0, 1.0)}
"""Of each histogram: how many values, and the mean and deviation of their logarithms, in milliseconds."""

_HEALTHY: Final[dict[str, Any]] = {
    "errors": {}, "merged_reads": 2, "late_merged_reads": 0, "cpu_percent": 40.0, "loop_cpu_percent": 35.0,
    "loop_wait_percent": 1.0, "loop_lag_ms": 0.5, "gc_pauses": 3, "gc_pause_ms": 0.6, "gc_pause_max_ms": 0.3,
    "ring_full": 0, "ring_full_ms": 0.0, "tcp_trouble": {}, "steal_percent": 0.1, "throttled_percent": 0.0,
    "clock_jump_ms": 0.0, "descriptors": 260, "descriptor_limit": 65536, "sockets": 240, "ports": 28232,
}  # fmt: skip


def _histograms(rng: np.random.Generator, values: int, mean: float, deviation: float) -> list[str]:
    drawn = rng.lognormal(mean, deviation, (VARIANTS, values)) * 1e6
    return [histogram.encode_ns(some) for some in drawn.astype(np.int64)]


def _samples(size: Size, rng: np.random.Generator) -> Iterator[bytes]:
    """Every metric of every GPU and of their machine, five times a second."""
    values = rng.random((VARIANTS, 3))
    parts = [
        b"".join(
            _lines(f"GPU-6a1f0b52-0000-4000-8000-{gpu:012}", GPU_METRICS, values[variant]) for gpu in range(size.gpus)
        )
        + _lines("host", HOST_METRICS, values[variant])
        + b"".join(_lines(f"core:{core}", ("busy_ratio",), values[variant]) for core in range(CORES))
        for variant in range(VARIANTS)
    ]
    for number in range(size.seconds * SAMPLES_A_SECOND):
        time = f"{T0 + number / SAMPLES_A_SECOND:.6f}"
        energy = "".join(
            f"@,gpu1,GPU-6a1f0b52-0000-4000-8000-{gpu:012},{COUNTER},{1000 * gpu + number * 90.25:.12g},,\n"
            for gpu in range(size.gpus)
        )
        yield (parts[number % VARIANTS] + energy.encode()).replace(b"@", time.encode())


def _keys(metrics: dict[str, Any]) -> tuple[str, ...]:
    told = [name for name, metric in metrics.items() if metric.samples and name != COUNTER]
    return tuple(f"{name}.{label}" if label else name for name in told for label in LABELS.get(name, ("",)))


GPU_METRICS: Final = _keys(dict(GPU.metrics))
HOST_METRICS: Final = _keys(dict(HOST.metrics))


def _lines(device: str, metrics: tuple[str, ...], chances: Floats) -> bytes:
    lines = []
    for metric in metrics:
        scale = next((scale for ending, scale in _SCALES.items() if metric.endswith(ending)), 1.0)
        value, mean, most = np.round(scale * (0.2 + 0.8 * chances), 0 if scale > 1 else 3)
        more = f"{mean:.12g},{most:.12g}" if metric.startswith(AVERAGED) else ","
        lines.append(f"@,gpu1,{device},{metric},{value:.12g},{more}\n")
    return "".join(lines).encode()


_SCALES: Final = {"_watts": 600.0, "_hertz": 1.9e9, "_bytes": 8e10, "_celsius": 70.0, "_per_second": 1e9}


def _described(size: Size) -> dict[str, Any]:
    users, end = _users(size), T0 + size.seconds
    events = [("start", 0, 0), ("target", 0, users), ("spawned", 2, users)]
    events += [("stopping", size.seconds, users), ("stopped", size.seconds + 30, 0)]
    gpus = [
        {"device": f"GPU-6a1f0b52-0000-4000-8000-{gpu:012}", "kind": "gpu", "gpu": str(gpu)} for gpu in range(size.gpus)
    ]
    return {
        "schema": 1,
        "run_id": "20261121T100000Z-large",
        "label": "large",
        "suite": {"tokenswarm": "0.1.0", "locust": "2.47.0", "python": "3.11.7"},
        "host": {"hostname": "client-1", "cpus": 16, "platform": "Linux"},
        "command": ["locust", "-f", "chat.py", "--arrivals", "poisson"],
        "target": {"host": "http://10.0.0.1:8000", "protocol": "openai-chat", "transport": "fast"},
        "options": {"request_timeout": 300.0, "slo": SLO, "goodput": GOODPUT},
        "seed": 0,
        "user_classes": [{"name": name, "options": {"slo": SLO} if name == "Chat" else {}} for name in CLASSES],
        "load": {
            "arrivals": "poisson",
            "rate_per_user": 1.0,
            "users": users,
            "spawn_rate": 1000,
            "run_time": size.seconds,
        },
        "workers": [{"index": index, "hostname": "client-1", "clock": "kernel"} for index in range(WORKERS)],
        "start": {"time": T0, "utc": "2026-11-21T10:00:00Z"},
        "end": {"time": end + 30, "utc": "2026-11-21T11:00:30Z"},
        "boundaries": [{"event": event, "time": T0 + at, "users": n} for event, at, n in events],
        "scraped": [{"file": "hardware.csv", "url": "http://gpu1:9435", "host": "gpu1", "devices": gpus}],
        "rows": {"written": size.requests, "lost": 0},
    }
