"""All GPUs together: what they did in the windows, and what each of them served."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from tokenswarm.results import distribution
from tokenswarm.results.distribution import Floats
from tokenswarm.results.flow import column
from tokenswarm.results.hardware import SHOWN
from tokenswarm.results.phases import Phases

OF_GPUS: Final = frozenset({"utilization_ratio", "power_watts", "energy_joules_total", "sm_clock_hertz"})
"""A device that tells one of these is a GPU."""
MEANS: Final = (
    "utilization_ratio",
    "sm_activity_ratio",
    "tensor_activity_ratio",
    "dram_activity_ratio",
    "temperature_celsius",
)
SUMS: Final = ("power_watts", "memory_used_bytes")
SLOWEST_S: Final = 60.0
"""Between two samples of one GPU; of slower ones nothing is said together."""


def of_gpus(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples of GPUs."""
    devices = samples.loc[samples["metric"].isin(list(OF_GPUS)), "device"].unique()
    return samples[samples["device"].isin(devices)]


def together(samples: pd.DataFrame, phases: Phases) -> list[dict[str, Any]]:
    """The main metrics of two GPUs or more as one, over the moments of the windows at which all of them were sampled:
    the mean of shares and temperatures, the sum of power and memory. In the units of `hardware.SHOWN`."""
    inside = of_gpus(samples[phases.contain(column(samples, "time"))])
    found = []
    for metric in (*MEANS, *SUMS):
        lines = inside[inside["metric"] == metric]
        if lines["device"].nunique() < 2 or (values := _moments(lines, metric in SUMS)) is None:
            continue
        shown = SHOWN[metric]
        told = distribution.of(values * shown.scale)
        if told is not None:
            names = ("mean", "min", "max", "std", "p50", "p95")
            known = {"metric": metric, "label": shown.label, "unit": shown.unit, "of": int(lines["device"].nunique())}
            known["as"] = "sum" if metric in SUMS else "mean"
            found.append(known | {name: told[name] for name in names} | {"samples": told["count"]})
    return found


def _moments(lines: pd.DataFrame, add_up: bool) -> Floats | None:
    """Sum or mean over the GPUs at each moment at which all were sampled; a moment is as long as their samples are
    apart."""
    apart = lines.groupby("device", observed=True)["time"].agg(lambda times: times.sort_values().diff().median())
    step = max(1.0, float(np.ceil(apart.max()))) if apart.notna().any() else 1.0
    if step > SLOWEST_S:
        return None
    moments = (column(lines, "time") // step).astype(np.int64)
    values = lines["mean"].fillna(lines["value"])
    table = values.groupby([moments, pd.factorize(lines["device"])[0]]).mean().unstack().dropna()
    if table.empty:
        return None
    of_all: Floats = (table.sum(axis=1) if add_up else table.mean(axis=1)).to_numpy(dtype=np.float64)
    return of_all


def served(count: int, rates: dict[str, Any]) -> dict[str, Any] | None:
    """What each of so many GPUs served a second, of `throughput`; None without any."""
    if not count:
        return None
    names = ("requests_per_s", "output_tokens_per_s", "total_tokens_per_s")
    return {"gpus": count} | {name: None if rates[name] is None else rates[name] / count for name in names}
