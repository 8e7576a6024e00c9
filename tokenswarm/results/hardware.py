"""What GPUs, machines and processes did during a run: hardware.csv, and its figures over the steady windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from tokenswarm.results import whole_lines

FILE: Final = "hardware.csv"
COLUMNS: Final = ("time", "host", "device", "metric", "value", "mean", "max")


@dataclass(frozen=True)
class Shown:
    """A metric of the exporter that people ask for first. `scale`: from its unit to the one that is shown."""

    label: str
    unit: str
    scale: float


_GIB: Final = 2.0**-30
SHOWN: Final = {
    "utilization_ratio": Shown("GPU utilization", "%", 100),
    "sm_activity_ratio": Shown("SM activity", "%", 100),
    "tensor_activity_ratio": Shown("Tensor cores", "%", 100),
    "dram_activity_ratio": Shown("Memory bandwidth", "%", 100),
    "power_watts": Shown("Power", "W", 1),
    "temperature_celsius": Shown("Temperature", "°C", 1),
    "sm_clock_hertz": Shown("SM clock", "MHz", 1e-6),
    "cpu_busy_ratio": Shown("CPU", "%", 100),
    "cpu_usage_cores": Shown("CPU", "cores", 1),
    "memory_used_bytes": Shown("Memory used", "GiB", _GIB),
    "resident_memory_bytes": Shown("Resident memory", "GiB", _GIB),
    "gpu_memory_bytes": Shown("GPU memory", "GiB", _GIB),
}
OF_ENERGY: Final = ("energy_joules_total", "power_instant_watts")
"""What `energy` needs beside the power that is shown."""
KEPT: Final = frozenset({*SHOWN, *OF_ENERGY})

Wanted: TypeAlias = Callable[[str], bool]
"""Whether a metric is of interest, by its name."""
_NUMBERS: Final = ("time", "value", "mean", "max")
_LINES_AT_ONCE: Final = 200_000


def read(directory: Path, defects: list[str], metrics: Wanted = KEPT.__contains__) -> pd.DataFrame:
    """hardware.csv with COLUMNS, of the metrics that are wanted, in their own units and in the file's order; empty
    where there is none. A line that is no sample is left out, and counted in `defects`."""
    lines = whole_lines.opened(directory / FILE, defects, needed=False)
    return empty() if lines is None else samples(lines, FILE, defects, metrics)


def samples(lines: BinaryIO, name: str, defects: list[str], metrics: Wanted) -> pd.DataFrame:
    """As `read`, from any file with COLUMNS, for which people know the `name`; more columns than these do no harm."""
    text: Any = dict.fromkeys(("host", "device", "metric"), "category")
    parts: list[pd.DataFrame] = []
    damaged = 0
    try:
        with pd.read_csv(
            lines,
            usecols=lambda column: column in COLUMNS,
            dtype=text,
            keep_default_na=False,
            na_values={column: [""] for column in ("mean", "max")},
            on_bad_lines="skip",
            chunksize=_LINES_AT_ONCE,
            encoding_errors="replace",
        ) as reader:
            for part in reader:
                if missing := [column for column in COLUMNS[:5] if column not in part.columns]:
                    defects.append(f"{name} lacks the columns {', '.join(missing)}.")
                    return empty()
                wanted = [metric for metric in part["metric"].cat.categories if metrics(str(metric))]
                part = part[part["metric"].isin(wanted)].reindex(columns=list(COLUMNS))
                for column in _NUMBERS:
                    numbers = pd.to_numeric(part[column], errors="coerce").astype("float64")
                    part[column] = numbers.where(np.isfinite(numbers))
                whole = part["time"].notna() & part["value"].notna()
                damaged += int((~whole).sum())
                parts.append(part[whole].astype(dict.fromkeys(text, "str")).astype(text))
    except pd.errors.EmptyDataError:
        return empty()
    except (pd.errors.ParserError, ValueError) as error:
        defects.append(f"{name} cannot be read any further: {error}.")
    if damaged:
        defects.append(f"{name}: {damaged:,} lines are damaged and were left out.")
    return _joined(parts)


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    if not parts:
        return empty()
    frame: dict[str, Any] = {}
    for column in COLUMNS:
        pieces = [part.pop(column) for part in parts]
        if column in ("host", "device", "metric"):
            frame[column] = union_categoricals([piece.array for piece in pieces])
        else:
            frame[column] = np.concatenate([piece.to_numpy() for piece in pieces])
    return pd.DataFrame(frame, copy=False)


def empty() -> pd.DataFrame:
    """No samples."""
    return pd.DataFrame({name: pd.Series(dtype="float64" if name in _NUMBERS else "category") for name in COLUMNS})


def figures(samples: pd.DataFrame) -> list[dict[str, Any]]:
    """Each metric of each device: mean of the samples' means, lowest, highest reading, standard
    deviation, in the units of SHOWN; `samples` tells how many carry them."""
    found = []
    samples = samples[samples["metric"].isin(list(SHOWN))]
    for (host, device, metric), group in samples.groupby(["host", "device", "metric"], sort=True, observed=True):
        shown = SHOWN[str(metric)]
        means = group["mean"].fillna(group["value"]) * shown.scale
        most = group["max"].fillna(group["value"]) * shown.scale
        found.append(
            {
                "host": str(host),
                "device": str(device),
                "metric": str(metric),
                "label": shown.label,
                "unit": shown.unit,
                "mean": float(means.mean()),
                "min": float(means.min()),
                "max": float(most.max()),
                "std": float(means.std(ddof=1)) if len(means) > 1 else None,
                "samples": len(group),
            }
        )
    found.sort(key=lambda figure: (figure["host"], figure["device"], list(SHOWN).index(str(figure["metric"]))))
    return found
