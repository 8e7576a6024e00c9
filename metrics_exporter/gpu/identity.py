"""Who a GPU is: index, UUID, name and what else does not change while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pynvml as nvml

from metrics_exporter.gpu.fields import Handle
from metrics_exporter.gpu.metrics import GPU, MIG
from metrics_exporter.metric import Device


def versions() -> dict[str, str]:
    """Of driver and library, as labels."""
    cuda = _told(nvml.nvmlSystemGetCudaDriverVersion)
    told = {
        "driver_version": _told(nvml.nvmlSystemGetDriverVersion),
        "nvml_version": _told(nvml.nvmlSystemGetNVMLVersion),
        "cuda_version": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
    }
    return {name: str(value) for name, value in told.items() if value is not None}


def gpu(handle: Handle, index: int, driver: dict[str, str]) -> Device:
    """Raises NVMLError if the GPU does not even tell its UUID."""
    uuid = nvml.nvmlDeviceGetUUID(handle)
    pci = _told(nvml.nvmlDeviceGetPciInfo, handle)
    info = {
        "name": _told(nvml.nvmlDeviceGetName, handle),
        "pci_bus_id": None if pci is None else pci.busId,
        "minor_number": _told(nvml.nvmlDeviceGetMinorNumber, handle),
        "driver_version": driver.get("driver_version"),
    }
    limit = _told(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    memory = _told(nvml.nvmlDeviceGetMemoryInfo, handle)
    capability = _told(nvml.nvmlDeviceGetCudaComputeCapability, handle)
    facts = {
        "index": index,
        "power_limit_watts": None if limit is None else limit / 1000,
        "memory_total_bytes": None if memory is None else int(memory.total),
        "compute_capability": None if capability is None else "{}.{}".format(*capability),
        "pcie_link_generation_max": _told(nvml.nvmlDeviceGetMaxPcieLinkGeneration, handle),
        "pcie_link_width_max": _told(nvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
    }
    return Device(
        uuid,
        GPU,
        (str(index), uuid),
        {name: str(value) for name, value in info.items() if value is not None},
        {name: value for name, value in facts.items() if value is not None} | {"mig": _is_split(handle)},
    )


def mig(handle: Handle, parent: int) -> Device:
    """A MIG instance of the GPU with index `parent`."""
    uuid = nvml.nvmlDeviceGetUUID(handle)
    name = _told(nvml.nvmlDeviceGetName, handle)
    return Device(uuid, MIG, (str(parent), uuid), {} if name is None else {"name": str(name)}, {"parent": parent})


def unknown(index: int) -> Device:
    """A GPU that never answered."""
    return Device(f"gpu{index}", GPU, (str(index), ""), facts={"index": index, "mig": False})


def mig_instances(handle: Handle) -> Iterator[Handle]:
    """Of a GPU that is split by MIG; there may be holes in their numbering."""
    if not _is_split(handle):
        return
    for place in range(_told(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        instance = _told(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, place)
        if instance is not None:
            yield instance


def _is_split(handle: Handle) -> bool:
    modes = _told(nvml.nvmlDeviceGetMigMode, handle)
    return modes is not None and modes[0] == nvml.NVML_DEVICE_MIG_ENABLE


def _told(ask: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or None where NVML has none."""
    try:
        return ask(*arguments)
    except nvml.NVMLError:
        return None
