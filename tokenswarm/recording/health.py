"""How the client itself fares: what a process can tell, once a second, about whether it keeps up with its load.

What cannot be read here is None, never 0, and stops nothing. Not here: what to think of it (`results/figures/`,
`verdict.py`).
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import psutil

from tokenswarm.transport import receiver
from tokenswarm.transport.clock import clock_offset

TCP_TROUBLE: Final = ("TCPRcvCollapsed", "PruneCalled", "TCPBacklogDrop", "TCPToZeroWindowAdv")
"""Counters of the kernel that grow where it had to squeeze, drop or hold back what came, for want of a reader."""

Known = TypeVar("Known")
Pair = tuple[float, float]


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What only grows; None: unknown. What counts is the difference of two readings."""

    monotonic_ns: int
    loop_cpu_ns: int
    """CPU time of the event loop's thread."""
    loop_wait_ns: int | None
    """How long that thread was ready to run and had no processor."""
    host_cpu: Pair | None
    """(seconds that a hypervisor took from this host's processors, seconds of all of them)"""
    throttled_ns: int | None
    ring: Pair | None
    """(times that the receive thread's ring was full, seconds of them)"""
    tcp: dict[str, int] | None
    clock_offset_ns: int


class Health:
    """Made at the start of a run and asked with `take` once a second, both in the event loop's thread; `close` at last.

    All of it costs a few tenths of a millisecond a second at most.
    """

    def __init__(self, loop_lag_ns: Callable[[], int]) -> None:
        """`loop_lag_ns` gives the longest that the event loop was busy since the last call."""
        self._loop_lag_ns = loop_lag_ns
        self._process = psutil.Process()
        self._collections = Collections()
        self._throttled_files = throttled_files()
        known(self._process.cpu_percent)
        self._before = self._read()

    def close(self) -> None:
        """Stop watching the garbage collector."""
        self._collections.close()

    def take(self) -> Iterator[dict[str, Any]]:
        """Fields of an interval line, in parts, since reading all of them would keep the event loop for milliseconds:
        what happened since the last call, or since the start."""
        before, now = self._before, self._read()
        self._before = now
        elapsed = max(1, now.monotonic_ns - before.monotonic_ns)
        ring = growth(before.ring, now.ring)
        steal = growth(before.host_cpu, now.host_cpu)
        yield {
            "loop_cpu_percent": _share(now.loop_cpu_ns - before.loop_cpu_ns, elapsed),
            "loop_wait_percent": _share(_difference(before.loop_wait_ns, now.loop_wait_ns), elapsed),
            "loop_lag_ms": self._loop_lag_ns() / 1e6,
            **self._collections.take(),
            "ring_full": None if ring is None else int(ring[0]),
            "ring_full_ms": None if ring is None else round(ring[1] * 1e3, 3),
            "tcp_trouble": tcp_growth(before.tcp, now.tcp),
            "steal_percent": None if steal is None or steal[1] <= 0 else _share(steal[0], steal[1]),
            "throttled_percent": _share(_difference(before.throttled_ns, now.throttled_ns), elapsed),
            "clock_jump_ms": round((now.clock_offset_ns - before.clock_offset_ns) / 1e6, 3),
        }
        yield {"cpu_percent": known(self._process.cpu_percent), "sockets": known(sockets), "ports": known(ports)}
        yield {"descriptors": known(descriptors), "descriptor_limit": known(descriptor_limit)}

    def _read(self) -> Counters:
        return Counters(
            monotonic_ns=time.monotonic_ns(),
            loop_cpu_ns=time.thread_time_ns(),
            loop_wait_ns=known(thread_wait_ns),
            host_cpu=known(host_cpu),
            throttled_ns=known(lambda: throttled_ns(self._throttled_files)),
            ring=known(receiver.ring_full),
            tcp=known(tcp_counters),
            clock_offset_ns=clock_offset(),
        )


class Collections:
    """The garbage collector's pauses: while it works, nothing else does."""

    def __init__(self) -> None:
        self._began = 0
        self._count = 0
        self._total_ns = 0
        self._longest_ns = 0
        gc.callbacks.append(self._note)

    def close(self) -> None:
        """Idempotent."""
        if self._note in gc.callbacks:
            gc.callbacks.remove(self._note)

    def take(self) -> dict[str, Any]:
        """How many since the last call, milliseconds of all of them, and of the longest."""
        found = {
            "gc_pauses": self._count,
            "gc_pause_ms": round(self._total_ns / 1e6, 3),
            "gc_pause_max_ms": round(self._longest_ns / 1e6, 3),
        }
        self._count = self._total_ns = self._longest_ns = 0
        return found

    def _note(self, phase: str, _: dict[str, int]) -> None:
        now = time.perf_counter_ns()
        if phase == "start":
            self._began = now
            return
        took = now - self._began
        self._count += 1
        self._total_ns += took
        if took > self._longest_ns:
            self._longest_ns = took


def known(read: Callable[[], Known]) -> Known | None:
    """What `read` gives, or None where it cannot: another system or kernel, no right, no descriptor left."""
    try:
        return read()
    except (OSError, ValueError, LookupError, RuntimeError, AttributeError, psutil.Error):
        return None


def growth(before: Pair | None, now: Pair | None) -> Pair | None:
    """How much a pair of counters grew; None if either reading is unknown, or if they began anew in between."""
    if before is None or now is None or now[0] < before[0]:
        return None
    return now[0] - before[0], now[1] - before[1]


def tcp_growth(before: dict[str, int] | None, now: dict[str, int] | None) -> dict[str, int] | None:
    """Those of the counters that grew, and by how much."""
    if before is None or now is None:
        return None
    return {name: count - before[name] for name, count in now.items() if count > before.get(name, count)}


def thread_wait_ns(path: str = "/proc/thread-self/schedstat") -> int:
    """How long the calling thread was ready to run and had no processor. Raises OSError, ValueError, LookupError."""
    with open(path, encoding="ascii") as file:
        return int(file.read().split()[1])


def host_cpu() -> Pair:
    """(stolen by the hypervisor, total) of all processors in seconds. Raises AttributeError where nobody tells."""
    times = psutil.cpu_times()
    # Guests' time is in user and nice already.
    return times.steal, sum(times) - times.guest - times.guest_nice


def tcp_counters(path: str = "/proc/net/netstat") -> dict[str, int]:
    """The TCP counters that mean trouble, of this network namespace. Raises OSError, ValueError, LookupError."""
    with open(path, encoding="ascii") as file:
        lines = file.read().splitlines()
    names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
    found = dict(zip(names, values, strict=True))
    return {name: int(found[name]) for name in TCP_TROUBLE if name in found}


def throttled_files(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[Path]:
    """The files that tell how long the cgroups we are in, of either version, were held back; none where none does."""
    found = []
    for line in (known(own.read_text) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        here = top / path.lstrip("/")
        for folder in (here, *here.parents):
            if known(lambda stat=folder / "cpu.stat": _throttled(stat)) is not None:  # type: ignore[misc]
                found.append(folder / "cpu.stat")
            if folder == top:
                break
    return found


def throttled_ns(files: list[Path]) -> int:
    """How long these cgroups were kept from running, summed over processors. Raises LookupError without any file."""
    if not files:
        raise LookupError("no cgroup tells")
    return sum(_throttled(file) for file in files)


def _throttled(stat: Path) -> int:
    fields = dict(line.split() for line in stat.read_text().splitlines())
    return int(fields["throttled_usec"]) * 1000 if "throttled_usec" in fields else int(fields["throttled_time"])


def descriptors(folder: str = "/proc/self/fd") -> int:
    """Open descriptors of this process. Raises OSError."""
    count = os.stat(folder).st_size  # Linux 6.2 and later
    if count:
        return count
    try:
        return len(os.listdir(folder))
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        return descriptor_limit() or 0  # not one is left to look with


def descriptor_limit() -> int | None:
    """How many descriptors this process may have; None: any number."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def sockets(path: str = "/proc/net/sockstat") -> int:
    """TCP sockets over IPv4 of this network namespace, open or waiting after their close. Raises OSError, LookupError,
    ValueError."""
    with open(path, encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith("TCP:"))
    words = line.split()
    return sum(int(words[words.index(kind) + 1]) for kind in ("inuse", "tw"))


def ports(path: str = "/proc/sys/net/ipv4/ip_local_port_range") -> int:
    """How many local ports there are for connections to one address. Raises OSError, ValueError."""
    with open(path, encoding="ascii") as file:
        low, high = map(int, file.read().split())
    return high - low + 1


def _difference(before: int | None, now: int | None) -> int | None:
    return None if before is None or now is None else now - before


def _share(part: float | None, whole: float) -> float | None:
    """In per cent."""
    return None if part is None else round(part / whole * 100, 3)
