"""Run directories with several load levels, whose truth is known: a server that runs eight requests at once.

A user sends back to back; up to eight users a request takes 0.5 s, beyond that it waits for its turn. Every reply has
11 tokens, so that N ≤ 8 users get 22 N tokens a second, and more users 176 together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import run_directory_maker as maker
from run_directory_maker import Record

PLACES = 8
SECONDS = 22.0
WARMUP = 2.0
USERS = (1, 2, 4, 8, 16)
TTFTS = {1: 0.100, 2: 0.102, 4: 0.104, 8: 0.110, 16: 0.610}
"""Seconds. Power (tokens/s / TTFT) is 220, 431, 846, 1,600, 289: the knee is at eight users."""

Change = Callable[[Record, int], None]


def stepped(
    folder: Path,
    users: Sequence[int] = USERS,
    seconds: float = SECONDS,
    ttfts: dict[int, float] | None = None,
    ill: Callable[[int], dict[str, Any]] = lambda index: {},
    change: Change | None = None,
    **run: Any,
) -> Path:
    """A run that goes through these numbers of users, `seconds` each. `ill` gives what a worker says of itself during
    the step of that index; `run` replaces fields of run.json, and its options are added to the others."""
    records: list[Record] = []
    bounds = [{"event": "start", "time": maker.T0, "users": 0}]
    for index, number in enumerate(users):
        begin = index * seconds
        ttft = (TTFTS | (ttfts or {}))[number]
        for record in maker.closed_loop(number, seconds, max(1, number / PLACES) * 0.5, (ttft,), change):
            record.id = f"r{len(records)}"
            record.step = index
            for name in ("start_time", "intended_time", "first_token_time", "end_time"):
                setattr(record, name, getattr(record, name) + begin)
            records.append(record)
        at = {"time": maker.T0 + begin, "users": number}
        bounds += [{"event": event} | at for event in ("target", "spawned")]
    end = maker.T0 + len(users) * seconds
    bounds += [{"event": event, "time": end, "users": users[-1]} for event in ("stopping", "stopped")]

    def health(worker: int, second: int) -> dict[str, Any]:
        index = min(int(second / seconds), len(users) - 1)
        share = users[index] // 2 + (users[index] % 2 if worker == 0 else 0)
        return {"users": share, "target_users": share} | ill(index)

    options = {"request_timeout": 300.0, "warmup": WARMUP} | run.pop("options", {})
    run = {"run_id": folder.name, "label": folder.name, "options": options} | run
    return maker.write(folder, records, bounds, users[-1], health=health, **run)
