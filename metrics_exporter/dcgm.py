"""`--compat dcgm`: the names, labels and units of NVIDIA's dcgm-exporter, for dashboards made for it.

What it calls counters keeps the type that it has there in name only: Prometheus's library gives every counter a name
that ends in `_total`, so that these are served without a type. `rate()` works on them all the same.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric, UnknownMetricFamily
from prometheus_client.registry import Collector

from metrics_exporter.watch import Watch

_MEBI: Final = 1024 * 1024
_NAMES: Final[dict[str, tuple[str, float, str]]] = {
    "sm_clock_hertz": ("DCGM_FI_DEV_SM_CLOCK", 1e-6, "SM clock frequency (in MHz)."),
    "memory_clock_hertz": ("DCGM_FI_DEV_MEM_CLOCK", 1e-6, "Memory clock frequency (in MHz)."),
    "temperature_celsius": ("DCGM_FI_DEV_GPU_TEMP", 1, "GPU temperature (in C)."),
    "memory_temperature_celsius": ("DCGM_FI_DEV_MEMORY_TEMP", 1, "Memory temperature (in C)."),
    "power_watts": ("DCGM_FI_DEV_POWER_USAGE", 1, "Power draw (in W)."),
    "energy_joules_total": ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 1000, "Energy since the driver's start (in mJ)."),
    "utilization_ratio": ("DCGM_FI_DEV_GPU_UTIL", 100, "GPU utilization (in %)."),
    "memory_utilization_ratio": ("DCGM_FI_DEV_MEM_COPY_UTIL", 100, "Memory utilization (in %)."),
    "encoder_utilization_ratio": ("DCGM_FI_DEV_ENC_UTIL", 100, "Encoder utilization (in %)."),
    "decoder_utilization_ratio": ("DCGM_FI_DEV_DEC_UTIL", 100, "Decoder utilization (in %)."),
    "memory_used_bytes": ("DCGM_FI_DEV_FB_USED", 1 / _MEBI, "Memory used (in MiB)."),
    "memory_free_bytes": ("DCGM_FI_DEV_FB_FREE", 1 / _MEBI, "Memory free (in MiB)."),
    "memory_reserved_bytes": ("DCGM_FI_DEV_FB_RESERVED", 1 / _MEBI, "Memory reserved (in MiB)."),
    "pcie_replays_total": ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", 1, "PCIe retries."),
    "remapped_rows.corrected": ("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", 1, "Rows remapped for correctable errors."),
    "remapped_rows.uncorrected": (
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        1,
        "Rows remapped for uncorrectable errors.",
    ),
    "row_remap_failed": ("DCGM_FI_DEV_ROW_REMAP_FAILURE", 1, "Whether remapping of rows has failed."),
    "graphics_activity_ratio": ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 1, "Ratio of time the graphics engine is active."),
    "sm_activity_ratio": ("DCGM_FI_PROF_SM_ACTIVE", 1, "Ratio of multiprocessors that are active."),
    "sm_occupancy_ratio": ("DCGM_FI_PROF_SM_OCCUPANCY", 1, "Ratio of warps that are resident."),
    "tensor_activity_ratio": ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 1, "Ratio of time the tensor pipe is active."),
    "dram_activity_ratio": ("DCGM_FI_PROF_DRAM_ACTIVE", 1, "Ratio of time the memory interface is active."),
}
_COUNTERS: Final = frozenset(
    {"energy_joules_total", "pcie_replays_total", "remapped_rows.corrected", "remapped_rows.uncorrected"}
)
_LABELS: Final = ("gpu", "UUID", "pci_bus_id", "device", "modelName", "Hostname", "hostname", "DCGM_FI_DRIVER_VERSION")
"""The host's name is in lower case since May 2026, and was not before: dashboards of both kinds are served."""


class DcgmPage(Collector):
    """GPUs alone, as dcgm-exporter would name them."""

    def __init__(self, gpus: Watch) -> None:
        self._gpus = gpus
        self._host = platform.node()

    def collect(self) -> Iterator[Metric]:
        latest = self._gpus.fresh()
        families: dict[str, Metric] = {}
        for device in latest.devices if latest is not None else ():
            if latest is None or device.kind.name != "gpu":
                continue
            info = device.info
            index, uuid = device.labels
            minor = info.get("minor_number", index)
            name, version = info.get("name", ""), info.get("driver_version", "")
            bus = info.get("pci_bus_id", "")
            labels = (index, uuid, bus, f"nvidia{minor}", name, self._host, self._host, version)
            for key, value in latest.values(device).items():
                if key in _NAMES:
                    self._family(families, key).add_metric(labels, round(value * _NAMES[key][1], 6))  # type: ignore[attr-defined]
        yield from families.values()

    def _family(self, families: dict[str, Metric], key: str) -> Metric:
        if key not in families:
            name, _, help = _NAMES[key]
            made = UnknownMetricFamily if key in _COUNTERS else GaugeMetricFamily
            families[key] = made(name, help, labels=_LABELS)
        return families[key]
