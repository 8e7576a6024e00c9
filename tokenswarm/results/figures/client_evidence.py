"""The values for the verdict's rules about the measuring side: did it keep up, and make the load that was asked?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tokenswarm.results import flow
from tokenswarm.results.figures.client import worst_worker
from tokenswarm.results.phases import Phases
from tokenswarm.results.read import Run
from tokenswarm.verdict import Measured

OF_THE_WORST_WORKER: Final = {
    "clock_jump": "clock_jump_ms",
    "cpu_steal": "steal_share",
    "cgroup_throttling": "throttled_share",
    "cpu_contention": "wait_share",
    "loop_blocked": "loop_lag_max_ms",
    "ring_full": "ring_full_share",
    "descriptors": "descriptors_share",
    "ports": "ports_share",
}
"""Rules that look at one figure of `client["by_worker"]`."""


DROPPED: Final = "TCPBacklogDrop"
"""May happen to somebody who reads in time, too; the other counters grow for what has not been read yet."""
PILES_UP_MS: Final = 100.0
LARGELY_USER_CLOCK: Final = 0.01
SLOW_SPAWNING_S: Final = 2.0
"""Users may come so much later than asked: Locust starts them in batches, a second apart."""


def collect(run: Run, phases: Phases, client: dict[str, Any], load_is_known: bool) -> Iterator[Measured]:
    """Everything that can be measured. `load_is_known`: requests in flight, or the open loop's schedule, tell whether
    the load was kept up."""
    for rule, figure in OF_THE_WORST_WORKER.items():
        if found := worst_worker(client, figure):
            yield Measured(rule=rule, value=found[1], subject=found[0])
    if trouble := client["tcp_trouble"]:
        counted = ", ".join(f"{name} {count:,}" for name, count in trouble.items())
        ours = DROPPED in trouble or any(map(_left_unread, client["by_worker"]))
        rule = "tcp_trouble" if ours else "tcp_trouble_nearby"
        yield Measured(rule=rule, value=sum(trouble.values()), subject=counted)
    if busy := worst_worker(client, "busy_share"):
        who, share = busy
        yield Measured(rule="client_busy" if load_is_known else "client_too_busy", value=share, subject=who)
        if _user_clock_share(client) >= LARGELY_USER_CLOCK:
            yield Measured(rule="busy_user_clock", value=share, subject=who)
    yield from _users(run, phases)


def _left_unread(worker: dict[str, Any]) -> bool:
    """Whether data could pile up in the kernel: nobody read while the ring was full, or, without the receive thread,
    while the event loop was busy."""
    full, busy = worker["ring_full_share"], worker["loop_lag_max_ms"]
    return full > 0 if full is not None else (busy or 0.0) >= PILES_UP_MS


def _user_clock_share(client: dict[str, Any]) -> float:
    clocks = client["clocks"]
    return float(clocks.get("user", 0) / max(1, sum(clocks.values())))


def _users(run: Run, phases: Phases) -> Iterator[Measured]:
    there = flow.workers_over_time(run, "users")
    shares = []
    for window in () if phases.whole_run else phases.windows:
        # What a worker told in a second that reaches out of the window may be of after it.
        inside = there[(there.index >= window.start) & (there.index + 1 <= window.end)].dropna()
        if window.users and len(inside):
            shares.append(float(inside.median()) / window.users)
    if shares:
        yield Measured(rule="users_share", value=min(shares))
    targets = [b for b in run.info.boundaries if b.event == "target" and b.users]
    spawned = [b for b in run.info.boundaries if b.event == "spawned"]
    rate = run.info.load.spawn_rate
    if len(targets) == 1 and spawned and rate:
        asked, took = (targets[0].users or 0) / rate, spawned[0].time - targets[0].time
        if took > asked + SLOW_SPAWNING_S:
            subject = f"{took:.3g} s for {targets[0].users:,} users"
            yield Measured(rule="spawn_rate", value=asked / took, subject=subject)
