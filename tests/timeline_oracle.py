"""The timeline of a run once more, in plain Python over its files, for the tests of `results.merge`: no pandas, and
nothing of tokenswarm. Slow and obvious.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

Row = dict[str, float]
"""By the names of the timeline's columns; without a key where nothing was measured."""

BEFORE_SENT = ("pool_ms", "dns_ms", "tcp_ms", "tls_ms", "send_ms")


def cells(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def percentile(values: list[float], p: float) -> float:
    """Type 7."""
    ranked = sorted(values)
    at = (len(ranked) - 1) * p
    low = math.floor(at)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (ranked[high] - ranked[low]) * (at - low)


def timeline(run_dir: Path, seconds: list[int], every: int = 1) -> list[Row]:
    """A row for each of the `seconds` in which one of `every` seconds begins."""
    about = json.loads((run_dir / "run.json").read_text())
    rows: list[Row] = []
    requests = cells(run_dir / "requests.csv")
    intervals = [json.loads(line) for line in (run_dir / "intervals.jsonl").read_text().splitlines()]
    for second in seconds:
        row: Row = {"time": second, "elapsed_s": round(second - about["start"]["time"], 3)}
        row |= of_requests(requests, second, second + every, about["end"]["time"])
        row |= of_intervals(intervals, second, second + every)
        row |= of_locust(run_dir, second, second + every)
        row |= of_hardware(run_dir, about, second, second + every)
        row |= of_server(run_dir, second, second + every)
        rows.append(row)
    return rows


def of_requests(requests: list[dict[str, str]], start: float, end: float, run_end: float) -> Row:
    def inside(cell: str) -> bool:
        return bool(cell) and start <= float(cell) < end

    started = [r for r in requests if inside(r["start_time"])]
    ended = [r for r in requests if inside(r["end_time"])]
    flying = 0.0
    for r in requests:
        if r["pool_ms"] and r["start_time"]:
            sent = float(r["start_time"]) + sum(float(r[name] or 0) for name in BEFORE_SENT) / 1e3
            flying += max(0.0, min(end, float(r["end_time"] or run_end)) - max(start, sent))
    row: Row = {
        "requests_due": sum(inside(r["intended_time"] or r["start_time"]) for r in requests),
        "requests_started": len(started),
        "requests_ended": len(ended),
        "requests_ok": sum(r["status"] == "ok" for r in ended),
        "requests_failed": sum(r["status"] in ("failed", "timeout") for r in ended),
        "in_flight": flying / (end - start),
    }
    for name, only_ok in (("ttft", False), ("tpot", True), ("e2e", True)):
        values = [float(r[f"{name}_ms"]) for r in started if r[f"{name}_ms"] and (r["status"] == "ok" or not only_ok)]
        row[f"{name}_samples"] = len(values)
        if values:
            row |= {f"{name}_p{p}_ms": percentile(values, p / 100) for p in (50, 95)}
    return row


def of_intervals(intervals: list[dict[str, Any]], start: float, end: float) -> Row:
    length = end - start
    shares = []
    for line in intervals:
        begin = line["time"] - line["seconds"]
        shares.append((line, max(0.0, min(end, line["time"]) - max(start, begin)) / line["seconds"]))
    row: Row = {}
    if any(share > 1e-6 for _, share in shares):
        for name in ("chunks", "characters"):
            row[f"{name}_per_s"] = sum(line[name] * share for line, share in shares) / length
        for key, name in (("tokens", "output_tokens_per_s"), ("input_tokens", "input_tokens_per_s")):
            if any(line[key] for line in intervals):
                row[name] = sum(n for line in intervals for at, n in line[key] if start <= at < end) / length
    mine = [line for line in intervals if start <= line["time"] - line["seconds"] / 2 < end]
    late: dict[int, int] = {}
    for line in intervals:
        middle = line["time"] - line["seconds"] / 2
        if start - max(3, length) <= middle < end:  # a worker that is late keeps its number for three seconds
            late[line["worker"]] = line["users"]
    if late:
        row["users"] = sum(late.values())
    for name in ("cpu_percent", "loop_cpu_percent", "loop_lag_ms"):
        told = [line[name] for line in mine if line[name] is not None]
        if told:
            row[f"client_{name}_max"] = max(told)
    return row


LOCUST = {"User Count": "users", "Requests/s": "requests_per_s", "Failures/s": "failures_per_s", "50%": "p50_ms"}
LOCUST |= {"95%": "p95_ms", "Total Request Count": "requests_total", "Total Average Response Time": "mean_ms_so_far"}


def of_locust(run_dir: Path, start: float, end: float) -> Row:
    row: Row = {}
    for line in cells(run_dir / "locust_stats_history.csv"):
        if line["Name"] == "Aggregated" and start <= int(line["Timestamp"]) < end:
            told = {f"locust_{ours}": line[theirs] for theirs, ours in LOCUST.items()}
            row = {name: float(text) for name, text in told.items() if text != "N/A"}
    return row


def of_hardware(run_dir: Path, about: dict[str, Any], start: float, end: float) -> Row:
    names = {}
    for source in about.get("scraped", []):
        for device in source.get("devices") or []:
            if device["kind"] == "gpu":
                names[device["device"]] = f"gpu{device['gpu']}"
    readings: dict[str, list[float]] = defaultdict(list)
    for line in cells(run_dir / "hardware.csv"):
        if start <= float(line["time"]) < end:
            name = f"{line['host']}/{names.get(line['device'], line['device'])}/{line['metric']}"
            readings[name].append(float(line["mean"] or line["value"]))
    return {name: sum(values) / len(values) for name, values in readings.items()}


def of_server(run_dir: Path, start: float, end: float) -> Row:
    """Gauges as they stood on the row's last page, counters against the last page before the row."""
    state: dict[str, float] = {}
    before: tuple[float, dict[str, float]] | None = None
    last: tuple[float, dict[str, float]] | None = None
    at, broken = None, False
    lines = cells(run_dir / "server_metrics.csv")
    for index, line in enumerate(lines):
        state[f"{line['source'].removeprefix('http://').removesuffix('/metrics')}/{line['metric']}"] = float(
            line["value"]
        )
        page_ends = index + 1 == len(lines) or lines[index + 1]["time"] != line["time"]
        at = float(line["time"])
        up = state[next(name for name in state if name.endswith("/up"))] == 1
        if not page_ends:
            continue
        if not up:
            broken = True
        elif at < start:
            before, broken = (at, dict(state)), False
        elif at < end:
            last = (at, dict(state))
    row: Row = {}
    if last is None:
        return row
    for name, value in last[1].items():
        if name.endswith("_total"):
            if before is not None and name in before[1] and not broken and value >= before[1][name]:
                row[name.removesuffix("_total") + "_per_s"] = (value - before[1][name]) / (last[0] - before[0])
        elif not name.endswith("/up"):
            row[name] = value
    return row
