"""What GPUs, machines and processes did during a run: hardware.csv, and its figures over the steady windows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from tokenswarm.results.files import long_csv, whole_lines
from tokenswarm.results.files.long_csv import Layout, Wanted

FILE: Final = "hardware.csv"
LAYOUT: Final = Layout(("host", "device", "metric"), ("mean", "max"))


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


def read(directory: Path, defects: list[str], wanted: Wanted = KEPT.__contains__) -> pd.DataFrame:
    """hardware.csv as LAYOUT has it, of the metrics that are wanted, in their own units and in the file's order; empty
    where there is none. A line that is no sample is left out, and counted in `defects`."""
    lines = whole_lines.opened(directory / FILE, defects, needed=False)
    return LAYOUT.empty() if lines is None else long_csv.read(lines, FILE, LAYOUT, wanted, defects)


def figures(samples: pd.DataFrame) -> list[dict[str, Any]]:
    """Each metric of each device: mean of the samples' means, lowest, highest reading, standard
    deviation, median and p95 of the means, in the units of SHOWN; `samples` tells how many carry them."""
    found = []
    samples = samples[samples["metric"].isin(list(SHOWN))]
    each = samples.groupby(["host", "device", "metric"], sort=True, observed=True)[["value", "mean", "max"]]
    for (host, device, metric), group in each:
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
                "p50": float(means.quantile(0.5)),
                "p95": float(means.quantile(0.95)),
                "samples": len(group),
            }
        )
    found.sort(key=lambda figure: (figure["host"], figure["device"], list(SHOWN).index(str(figure["metric"]))))
    return found


def names(sources: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """What people call each (host, device) of hardware.csv: `gpu1/gpu0`, by the index of a GPU; its UUID where a host
    has two of one index, as after a reset. `sources`: `scraped` of run.json. Others are `host/device` as they stand."""
    found: dict[tuple[str, str], str] = {}
    for source in sources:
        host = str(source.get("host") or "")
        gpus = gpus_of(source)
        for device, index in gpus.items():
            alone = list(gpus.values()).count(index) == 1 and index.isdigit()
            found[host, device] = f"{host}/gpu{index}" if alone else f"{host}/{device}"
    return found


def gpus_of(source: dict[str, Any]) -> dict[str, str]:
    """UUID and index of each whole GPU of an entry of `scraped`."""
    devices = source.get("devices")
    told = [device for device in devices if isinstance(device, dict)] if isinstance(devices, list) else []
    return {str(one["device"]): str(one.get("gpu", "")) for one in told if one.get("kind") == "gpu" and "device" in one}
