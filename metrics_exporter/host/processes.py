"""Processes that are watched by name or number."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psutil

from metrics_exporter.host.metrics import PROCESS, WATCHED
from metrics_exporter.host.rates import Rates
from metrics_exporter.metric import Device, Values

log = logging.getLogger("metrics_exporter")

SEARCH_SECONDS: Final = 5.0
"""How often names are looked for. It reads two files of every process there is."""
_WORDS: Final = 3
"""Words of a command line that may name a process: `python -m NAME`."""
_FIRST_NAMESPACE: Final = 4026531836
"""Inode of the machine's own process number space, fixed in the kernel."""


class Processes:
    """`wanted`: names or numbers. `gpu_memory`: bytes on all GPUs by process number, as the driver numbers them."""

    def __init__(self, wanted: tuple[str, ...], gpu_memory: Callable[[], dict[int, float]]) -> None:
        self._wanted = wanted
        self._gpu_memory = gpu_memory if _numbers_are_the_hosts() else dict
        self._found: dict[str, dict[int, psutil.Process]] = {name: {} for name in wanted}
        self._search_at = 0.0
        self._missing: set[str] = set()

    def read(self, now: float, rates: Rates, values: Values) -> Iterator[Device]:
        """Put each process's values where they belong, and name the devices."""
        if not self._wanted:
            return
        if now >= self._search_at:
            self._search_at = now + SEARCH_SECONDS
            self._search()
        gpu_memory = self._gpu_memory()
        for name, processes in self._found.items():
            for pid, process in list(processes.items()):
                id = f"process:{name}:{pid}"
                try:
                    values[id] = _values(process, id, now, rates)
                except psutil.Error:
                    del processes[pid]
                    continue
                if pid in gpu_memory:
                    values[id]["gpu_memory_bytes"] = gpu_memory[pid]
                yield Device(id, PROCESS, (name, str(pid)))
            values[f"watched:{name}"] = {"processes": float(len(processes))}
            yield Device(f"watched:{name}", WATCHED, (name,))
            self._tell(name, bool(processes))

    def _search(self) -> None:
        names = [name for name in self._wanted if not name.isdigit()]
        for number in (name for name in self._wanted if name.isdigit()):
            self._take(number, int(number))
        if not names:
            return
        for process in psutil.process_iter():
            if process.pid == os.getpid() or all(process.pid in self._found[name] for name in names):
                continue
            try:
                words = {process.name(), *map(_base, process.cmdline()[:_WORDS])}
            except psutil.Error:
                continue
            for name in names:
                if any(word == name or word.startswith(f"{name}.") for word in words):
                    self._take(name, process.pid)

    def _take(self, name: str, pid: int) -> None:
        if pid not in self._found[name]:
            try:
                self._found[name][pid] = psutil.Process(pid)
            except psutil.Error:
                return

    def _tell(self, name: str, there: bool) -> None:
        if not there and name not in self._missing:
            self._missing.add(name)
            log.warning("--process %s: there is no such process now; it is looked for every %g s", name, SEARCH_SECONDS)
        elif there and name in self._missing:
            self._missing.remove(name)
            log.warning("--process %s: found", name)


def _values(process: psutil.Process, id: str, now: float, rates: Rates) -> dict[str, float]:
    """Raises psutil.Error if it ended, or became another one of the same number."""
    if not process.is_running():
        raise psutil.NoSuchProcess(process.pid)
    with process.oneshot():
        times = process.cpu_times()
        used = times.user + times.system
        values = {
            "cpu_seconds_total": used,
            "resident_memory_bytes": float(process.memory_info().rss),
            "threads": float(process.num_threads()),
        }
        if process.status() == psutil.STATUS_ZOMBIE:
            raise psutil.ZombieProcess(process.pid)
    with contextlib.suppress(psutil.AccessDenied):  # another user's
        values["open_file_descriptors"] = float(process.num_fds())
    usage = rates.per_second(id, "cpu", used, now)
    return values if usage is None else {**values, "cpu_usage_cores": usage}


def _base(word: str) -> str:
    return word.rsplit("/", 1)[-1]


def _numbers_are_the_hosts() -> bool:
    """The driver tells the host's process numbers, which mean others inside a container's own number space."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == _FIRST_NAMESPACE
    except OSError:
        return False
