"""The limits that a container sets, read from cgroup version 1 or 2.

Limits hold for whoever is below, so that the tightest on the way up counts. Where a container has a cgroup namespace,
the paths that the kernel tells are those inside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_UNLIMITED: Final = 1 << 60
"""Version 1 says no limit with a number a little below 2**63."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the cgroup says; None for what it does not limit, or does not tell."""

    cpu_cores: float | None = None
    memory_bytes: float | None = None
    memory_used_bytes: float | None = None
    """File cache included."""
    memory_cache_bytes: float | None = None
    """File cache that can be given up at once."""
    cpu_seconds: float | None = None
    throttled_seconds: float | None = None


class Cgroup:
    """The cgroup of this process. `root` and `membership` are where the kernel shows them."""

    def __init__(self, root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> None:
        paths = _paths(membership)
        self._cpu = _chain(root, paths, "cpu", "cpu,cpuacct")
        self._cpuacct = _chain(root, paths, "cpuacct", "cpu,cpuacct", "cpuacct,cpu")
        self._memory = _chain(root, paths, "memory")
        # Version 2 is mounted at the root or, on mixed systems, beside the old controllers.
        self._unified = _chain(root, paths, "") if (root / "cgroup.controllers").exists() else []

    def read(self) -> Limits:
        """Cheap: a few small files."""
        return self._read_unified() if self._unified else self._read_controllers()

    def _read_unified(self) -> Limits:
        stat = _table(self._unified[0] / "cpu.stat")
        quotas = (_quota((_text(folder / "cpu.max") or "max").split()) for folder in self._unified)
        return Limits(
            cpu_cores=_least(quotas),
            memory_bytes=_least(_number(folder / "memory.max") for folder in self._unified),
            memory_used_bytes=_number(self._unified[0] / "memory.current"),
            memory_cache_bytes=_table(self._unified[0] / "memory.stat").get("inactive_file"),
            cpu_seconds=_scaled(stat.get("usage_usec"), 1e-6),
            throttled_seconds=_scaled(stat.get("throttled_usec"), 1e-6),
        )

    def _read_controllers(self) -> Limits:
        quotas = (
            _quota([_text(folder / "cpu.cfs_quota_us") or "-1", _text(folder / "cpu.cfs_period_us") or ""])
            for folder in self._cpu
        )
        limits = (_number(folder / "memory.limit_in_bytes") for folder in self._memory)
        throttled = _table(self._cpu[0] / "cpu.stat").get("throttled_time") if self._cpu else None
        cache = _table(self._memory[0] / "memory.stat").get("total_inactive_file") if self._memory else None
        used = _number(self._cpuacct[0] / "cpuacct.usage") if self._cpuacct else None
        return Limits(
            cpu_cores=_least(quotas),
            memory_bytes=_least(limits),
            memory_used_bytes=_number(self._memory[0] / "memory.usage_in_bytes") if self._memory else None,
            memory_cache_bytes=cache,
            cpu_seconds=_scaled(used, 1e-9),
            throttled_seconds=_scaled(throttled, 1e-9),
        )


def _paths(membership: Path) -> dict[str, str]:
    """The path in each hierarchy by its controllers; version 2 has none."""
    lines = (line.split(":", 2) for line in (_text(membership) or "").splitlines())
    return {fields[1]: fields[2] for fields in lines if len(fields) == 3}


def _chain(root: Path, paths: dict[str, str], *names: str) -> list[Path]:
    """The folder of this process in a hierarchy, and those above it up to where it is mounted."""
    for name in names:
        mount = root / name
        if name in paths and mount.is_dir():
            own = mount / paths[name].lstrip("/")
            # The path may be the host's, while the container sees its own cgroup as the root.
            own = own if own.is_dir() else mount
            return [own, *(folder for folder in own.parents if folder.is_relative_to(mount))]
    return []


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None


def _number(path: Path) -> float | None:
    """None for no limit, too."""
    text = (_text(path) or "").strip()
    value = float(text) if text.isdigit() else None
    return None if value is None or value >= _UNLIMITED else value


def _table(path: Path) -> dict[str, float]:
    lines = (line.split() for line in (_text(path) or "").splitlines())
    return {fields[0]: float(fields[1]) for fields in lines if len(fields) == 2 and fields[1].isdigit()}


def _quota(words: list[str]) -> float | None:
    """Cores, from a quota and its period; None for no limit."""
    if len(words) != 2 or not all(word.strip().isdigit() for word in words) or not int(words[1]):
        return None
    return int(words[0]) / int(words[1])


def _least(values: Iterator[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value * unit
