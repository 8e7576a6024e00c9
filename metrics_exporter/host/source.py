"""The machine as a source of readings."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psutil

from metrics_exporter.host.cgroup import Cgroup, Limits
from metrics_exporter.host.metrics import CGROUP, CORE, DISK, HOST, NETWORK
from metrics_exporter.host.processes import Processes
from metrics_exporter.host.rates import Rates
from metrics_exporter.metric import Device, Reading, Values

_DISKS: Final = Path("/sys/block")
_NO_DISKS: Final = ("loop", "ram", "zram", "dm-", "md", "sr", "fd")
"""Not disks, or made of disks that are counted already."""
_NO_NETWORKS: Final = ("lo", "veth")
_OPEN_FILES: Final = Path("/proc/sys/fs/file-nr")


class HostSource:
    """CPU, memory, disks, network, cgroup and the processes that are watched."""

    name = "host"

    def __init__(self, processes: tuple[str, ...] = (), gpu_memory: Callable[[], dict[int, float]] = dict) -> None:
        self._processes = Processes(processes, gpu_memory)
        self._cgroup = Cgroup()
        self._rates = Rates()
        self._devices: tuple[Device, ...] = ()
        self._slow: Values = {}
        self._cpu_before: tuple[float, float] | None = None

    def read(self, full: bool) -> Reading:
        busy = self._busy_ratio()
        fast: Values = {"host": {} if busy is None else {"cpu_busy_ratio": busy}}
        if full:
            slow: Values = {}
            self._devices = tuple(self._read_all(time.monotonic(), slow))
            self._slow = slow
            self._rates.turn()
        return Reading(self._devices, fast, self._slow)

    def close(self) -> None:
        """Nothing is held open."""

    def _busy_ratio(self) -> float | None:
        """Since the reading before; None at the first."""
        times = psutil.cpu_times()
        now = (_busy(times), _total(times))
        before, self._cpu_before = self._cpu_before, now
        if before is None or now[1] <= before[1]:
            return None
        return min(1.0, max(0.0, (now[0] - before[0]) / (now[1] - before[1])))

    def _read_all(self, now: float, values: Values) -> Iterator[Device]:
        limits = self._cgroup.read()
        values["host"] = {**self._cpu(now), **_memory(limits), **_open_files(), **_cpu_limit(limits)}
        yield Device("host", HOST)
        yield from self._cores(now, values)
        yield from self._disks(now, values)
        yield from self._networks(now, values)
        yield from self._limits(limits, now, values)
        yield from self._processes.read(now, self._rates, values)

    def _cpu(self, now: float) -> dict[str, float]:
        times = psutil.cpu_times()._asdict()
        modes = {mode: seconds for mode, seconds in times.items() if mode[:5] != "guest"}
        rates = {mode: self._rates.per_second("host", mode, seconds, now) for mode, seconds in modes.items()}
        cores = sum(rate for rate in rates.values() if rate is not None)
        load = os.getloadavg()
        return {
            **{f"cpu_seconds_total.{mode}": seconds for mode, seconds in modes.items()},
            **{f"cpu_mode_ratio.{mode}": rate / cores for mode, rate in rates.items() if rate is not None and cores},
            "load1": load[0],
            "load5": load[1],
            "load15": load[2],
        }

    def _cores(self, now: float, values: Values) -> Iterator[Device]:
        for core, times in enumerate(psutil.cpu_times(percpu=True)):
            id = f"core:{core}"
            values[id] = {"busy_seconds_total": _busy(times)}
            busy = self._rates.per_second(id, "busy", _busy(times), now)
            total = self._rates.per_second(id, "total", _total(times), now)
            if busy is not None and total:
                values[id]["busy_ratio"] = min(1.0, busy / total)
            yield Device(id, CORE, (str(core),))

    def _disks(self, now: float, values: Values) -> Iterator[Device]:
        try:
            counters = psutil.disk_io_counters(perdisk=True) or {}
        except (OSError, RuntimeError, NotImplementedError):  # a container may hide them
            return
        for disk, io in counters.items():
            if disk.startswith(_NO_DISKS) or not (_DISKS / disk).exists():
                continue
            id = f"disk:{disk}"
            values[id] = {"read_bytes_total": float(io.read_bytes), "written_bytes_total": float(io.write_bytes)}
            if hasattr(io, "busy_time"):
                values[id]["busy_seconds_total"] = io.busy_time / 1000
                self._rate(values, id, "busy_seconds_total", "busy_ratio", now, most=1.0)
            self._rate(values, id, "read_bytes_total", "read_bytes_per_second", now)
            self._rate(values, id, "written_bytes_total", "written_bytes_per_second", now)
            yield Device(id, DISK, (disk,))

    def _networks(self, now: float, values: Values) -> Iterator[Device]:
        for interface, io in psutil.net_io_counters(pernic=True).items():
            if interface.startswith(_NO_NETWORKS):
                continue
            id = f"network:{interface}"
            values[id] = {
                "receive_bytes_total": float(io.bytes_recv),
                "transmit_bytes_total": float(io.bytes_sent),
                "drops_total": float(io.dropin + io.dropout),
            }
            for counter in list(values[id]):
                self._rate(values, id, counter, counter.replace("_total", "_per_second"), now)
            yield Device(id, NETWORK, (interface,))

    def _limits(self, limits: Limits, now: float, values: Values) -> Iterator[Device]:
        if limits.cpu_cores is None and limits.memory_bytes is None:
            return  # no container, or one without limits
        told = {
            "cpu_limit_cores": limits.cpu_cores,
            "cpu_seconds_total": limits.cpu_seconds,
            "cpu_throttled_seconds_total": limits.throttled_seconds,
            "memory_limit_bytes": limits.memory_bytes,
            "memory_used_bytes": limits.memory_used_bytes,
        }
        values["cgroup"] = {name: value for name, value in told.items() if value is not None}
        self._rate(values, "cgroup", "cpu_seconds_total", "cpu_usage_cores", now)
        self._rate(values, "cgroup", "cpu_throttled_seconds_total", "cpu_throttled_ratio", now)
        yield Device("cgroup", CGROUP)

    def _rate(self, values: Values, id: str, counter: str, name: str, now: float, most: float | None = None) -> None:
        """Add a rate beside the counter that it is of, if there is one."""
        value = values[id].get(counter)
        rate = None if value is None else self._rates.per_second(id, counter, value, now)
        if rate is not None:
            values[id][name] = rate if most is None else min(most, rate)


def _busy(times: Any) -> float:
    return _total(times) - float(times.idle) - float(getattr(times, "iowait", 0.0))


def _total(times: Any) -> float:
    """Guests' time is in user and nice already."""
    fields: dict[str, float] = times._asdict()
    return sum(seconds for mode, seconds in fields.items() if mode[:5] != "guest")


def _memory(limits: Limits) -> dict[str, float]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    limit, available = float(memory.total), float(memory.available)
    if limits.memory_bytes is not None and limits.memory_bytes < limit:
        limit = limits.memory_bytes
        if limits.memory_used_bytes is not None:
            needed = limits.memory_used_bytes - (limits.memory_cache_bytes or 0.0)
            available = min(available, max(0.0, limit - needed))
    return {
        "memory_total_bytes": float(memory.total),
        "memory_limit_bytes": limit,
        "memory_available_bytes": available,
        "memory_used_bytes": float(memory.used),
        "swap_total_bytes": float(swap.total),
        "swap_used_bytes": float(swap.used),
    }


def _cpu_limit(limits: Limits) -> dict[str, float]:
    cores = float(psutil.cpu_count() or 1)
    allowed = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else cores
    return {"cpu_cores": cores, "cpu_limit_cores": min(cores, allowed, limits.cpu_cores or cores)}


def _open_files() -> dict[str, float]:
    """Nothing where the kernel does not tell."""
    try:
        opened, _, most = _OPEN_FILES.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return {}
    return {"open_file_descriptors": float(opened), "max_file_descriptors": float(most)}
