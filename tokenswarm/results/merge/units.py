"""Columns of numbers with units (`45 %`, `power.draw [W]`) under the exporter's names and in its base units."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

SCALES: Final = {
    "%": 0.01,
    "b": 1.0,
    "kib": 2.0**10,
    "mib": 2.0**20,
    "gib": 2.0**30,
    "kb": 1e3,
    "mb": 1e6,
    "gb": 1e9,
    "mw": 1e-3,
    "w": 1.0,
    "kw": 1e3,
    "mj": 1e-3,
    "j": 1.0,
    "hz": 1.0,
    "mhz": 1e6,
    "ghz": 1e9,
    "c": 1.0,
    "°c": 1.0,
}
"""How many of our base units one is."""

KNOWN: Final = {
    "utilization.gpu": ("utilization_ratio", "%"),
    "utilization.memory": ("memory_utilization_ratio", "%"),
    "memory.used": ("memory_used_bytes", "mib"),
    "memory.free": ("memory_free_bytes", "mib"),
    "memory.total": ("memory_total_bytes", "mib"),
    "memory.reserved": ("memory_reserved_bytes", "mib"),
    "power.draw": ("power_watts", "w"),
    "power.draw.average": ("power_average_watts", "w"),
    "power.draw.instant": ("power_instant_watts", "w"),
    "power.limit": ("power_limit_watts", "w"),
    "enforced.power.limit": ("power_enforced_limit_watts", "w"),
    "temperature.gpu": ("temperature_celsius", "c"),
    "temperature.memory": ("memory_temperature_celsius", "c"),
    "clocks.sm": ("sm_clock_hertz", "mhz"),
    "clocks.current.sm": ("sm_clock_hertz", "mhz"),
    "clocks.mem": ("memory_clock_hertz", "mhz"),
    "clocks.current.memory": ("memory_clock_hertz", "mhz"),
}
"""nvidia-smi's names: the exporter's, and the unit where neither header nor cell tells one."""

_HEADER: Final = re.compile(r"^(.*?)\s*(?:\[([^\]]*)\]|\(([^)]*)\))?$")
_CELL: Final = r"^\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(%|°?[A-Za-z/]*)\s*$"
_NOT_TOLD: Final = frozenset(
    {"", "-", "n/a", "[n/a]", "nan", "none", "null", "not supported", "[not supported]", "[unknown error]"}
)


@dataclass(frozen=True)
class Column:
    """`values` are float64, NaN where nothing was told; `strange` counts cells that hold something else."""

    metric: str
    values: pd.Series[Any]
    strange: int


def column(header: str, cells: pd.Series[Any]) -> Column | None:
    """A column by its header and its cells as text; None if it has no number in it.

    Names that are not KNOWN stay as they are, their unit behind them (`fan.speed_percent`), unscaled.
    """
    name, in_header = _named(header)
    numbers, told_units = _numbers(cells)
    if not numbers.notna().any():
        return None
    left = cells[numbers.isna()].str.strip().str.lower()
    strange = int((~left.isin(_NOT_TOLD)).sum())
    if name not in KNOWN:
        told = in_header or next((unit for unit in told_units if unit), "")
        unit = "percent" if told == "%" else told
        return Column(f"{name}_{unit}" if unit else name, numbers, strange)
    metric, usual = KNOWN[name]
    each = told_units.where(told_units != "", in_header or usual)
    scales = each.map(SCALES).astype("float64")
    strange += int((numbers.notna() & scales.isna()).sum())
    return Column(metric, numbers * scales, strange)


def _named(header: str) -> tuple[str, str]:
    found = _HEADER.match(header.strip())
    if found is None:
        return header.strip(), ""
    return found[1], (found[2] or found[3] or "").strip().lower()


def _numbers(cells: pd.Series[Any]) -> tuple[pd.Series[Any], pd.Series[Any]]:
    bare = pd.to_numeric(cells, errors="coerce").astype("float64")
    if bare.notna().all():
        return bare, pd.Series("", index=cells.index)
    parts = cells.str.extract(_CELL)
    return pd.to_numeric(parts[0], errors="coerce").astype("float64"), parts[1].fillna("").str.lower()
