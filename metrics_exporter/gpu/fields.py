"""What NVML tells about a GPU, one small function for each question, in base units.

Each takes an NVML handle, gives values by key (see `gpu.metrics`), and raises pynvml.NVMLError as NVML answers;
what is to be made of an error is `gpu.card`'s affair. FAST is asked at every reading, SLOW once a window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import pynvml as nvml

Handle: TypeAlias = Any
"""An opaque pointer of pynvml's."""
Field: TypeAlias = Callable[[Handle], dict[str, float]]

_MEGA: Final = 1e6
_KIBI: Final = 1024
_ALL_LINKS: Final = 0xFFFFFFFF

_REASONS: Final = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
_NO_SECOND_VERSION: Final = (
    nvml.NVMLError_FunctionNotFound,
    nvml.NVMLError_NotSupported,
    nvml.NVMLError_ArgumentVersionMismatch,
)
_REASON_KEYS: Final = tuple((bit, f"throttle_reason.{name}") for bit, name in _REASONS.items())


def utilization(gpu: Handle) -> dict[str, float]:
    rates = nvml.nvmlDeviceGetUtilizationRates(gpu)
    return {"utilization_ratio": rates.gpu / 100, "memory_utilization_ratio": rates.memory / 100}


def power(gpu: Handle) -> dict[str, float]:
    return {"power_watts": nvml.nvmlDeviceGetPowerUsage(gpu) / 1000}


def instant_power(gpu: Handle) -> dict[str, float]:
    return {"power_instant_watts": _field_values(gpu, nvml.NVML_FI_DEV_POWER_INSTANT)[0] / 1000}


def sm_clock(gpu: Handle) -> dict[str, float]:
    return {"sm_clock_hertz": nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM) * _MEGA}


def memory_clock(gpu: Handle) -> dict[str, float]:
    return {"memory_clock_hertz": nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM) * _MEGA}


def throttle_reasons(gpu: Handle) -> dict[str, float]:
    try:
        active = nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu)
    except nvml.NVMLError_FunctionNotFound:  # the name before driver 535
        active = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
    return {key: 1.0 if active & bit else 0.0 for bit, key in _REASON_KEYS}


def graphics_clock(gpu: Handle) -> dict[str, float]:
    return {"graphics_clock_hertz": nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_GRAPHICS) * _MEGA}


def video_clock(gpu: Handle) -> dict[str, float]:
    return {"video_clock_hertz": nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_VIDEO) * _MEGA}


def memory(gpu: Handle) -> dict[str, float]:
    try:
        info = nvml.nvmlDeviceGetMemoryInfo(gpu, version=nvml.nvmlMemory_v2)
        reserved = {"memory_reserved_bytes": float(info.reserved)}
    except _NO_SECOND_VERSION:  # drivers before 510
        info, reserved = nvml.nvmlDeviceGetMemoryInfo(gpu), {}
    return {
        "memory_used_bytes": float(info.used),
        "memory_free_bytes": float(info.free),
        "memory_total_bytes": float(info.total),
        **reserved,
    }


def energy(gpu: Handle) -> dict[str, float]:
    return {"energy_joules_total": nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000}


def power_limit(gpu: Handle) -> dict[str, float]:
    return {"power_limit_watts": nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000}


def temperature(gpu: Handle) -> dict[str, float]:
    return {"temperature_celsius": float(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))}


def memory_temperature(gpu: Handle) -> dict[str, float]:
    return {"memory_temperature_celsius": _field_values(gpu, nvml.NVML_FI_DEV_MEMORY_TEMP)[0]}


def performance_state(gpu: Handle) -> dict[str, float]:
    state = nvml.nvmlDeviceGetPerformanceState(gpu)
    return {} if state == nvml.NVML_PSTATE_UNKNOWN else {"performance_state": float(state)}


def encoder(gpu: Handle) -> dict[str, float]:
    return {"encoder_utilization_ratio": nvml.nvmlDeviceGetEncoderUtilization(gpu)[0] / 100}


def decoder(gpu: Handle) -> dict[str, float]:
    return {"decoder_utilization_ratio": nvml.nvmlDeviceGetDecoderUtilization(gpu)[0] / 100}


def processes(gpu: Handle) -> dict[str, float]:
    """Memory of each process. NVML lists one that computes and draws twice, with all its memory each time."""
    # By version: the name without one raises what is no NVMLError where a library is older.
    found = [*nvml.nvmlDeviceGetComputeRunningProcesses_v3(gpu), *_graphics_processes(gpu)]
    known = {process.pid: process.usedGpuMemory for process in found if process.usedGpuMemory is not None}
    return {f"process_memory_bytes.{pid}": float(used) for pid, used in known.items()}


def _graphics_processes(gpu: Handle) -> list[Any]:
    try:
        return list(nvml.nvmlDeviceGetGraphicsRunningProcesses_v3(gpu))
    except (nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NotSupported):  # as on MIG instances
        return []


def ecc(gpu: Handle) -> dict[str, float]:
    return {
        f"ecc_errors_total.{name}": float(nvml.nvmlDeviceGetTotalEccErrors(gpu, error, nvml.NVML_VOLATILE_ECC))
        for name, error in (
            ("corrected", nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            ("uncorrected", nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        )
    }


def remapped_rows(gpu: Handle) -> dict[str, float]:
    corrected, uncorrected, pending, failed = nvml.nvmlDeviceGetRemappedRows(gpu)
    return {
        "remapped_rows.corrected": float(corrected),
        "remapped_rows.uncorrected": float(uncorrected),
        "row_remap_pending": float(pending),
        "row_remap_failed": float(failed),
    }


def pcie_link(gpu: Handle) -> dict[str, float]:
    return {
        "pcie_link_generation": float(nvml.nvmlDeviceGetCurrPcieLinkGeneration(gpu)),
        "pcie_link_width": float(nvml.nvmlDeviceGetCurrPcieLinkWidth(gpu)),
    }


def pcie_replays(gpu: Handle) -> dict[str, float]:
    return {"pcie_replays_total": float(nvml.nvmlDeviceGetPcieReplayCounter(gpu))}


def nvlink_traffic(gpu: Handle) -> dict[str, float]:
    sent, received = _field_values(
        gpu,
        (nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, _ALL_LINKS),
        (nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, _ALL_LINKS),
    )
    return {"nvlink_transmit_bytes_total": sent * _KIBI, "nvlink_receive_bytes_total": received * _KIBI}


def nvlinks(gpu: Handle) -> dict[str, float]:
    active = 0
    for link in range(nvml.NVML_NVLINK_MAX_LINKS):
        try:
            active += nvml.nvmlDeviceGetNvLinkState(gpu, link)
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_InvalidArgument):  # past the card's last link
            if link == 0:
                raise
            break
    return {"nvlink_links_active": float(active)}


def _field_values(gpu: Handle, *wanted: Any) -> list[float]:
    """Values by NVML's field numbers, or pairs of number and scope. Raises what NVML says of the first that fails."""
    values = []
    for answer in nvml.nvmlDeviceGetFieldValues(gpu, list(wanted)):
        if answer.nvmlReturn != nvml.NVML_SUCCESS:
            raise nvml.NVMLError(answer.nvmlReturn)
        values.append(float(getattr(answer.value, _MEMBERS[answer.valueType])))
    return values


_MEMBERS: Final = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
"""Of the union that a field's value is, by NVML's valueType."""

FAST: Final[tuple[Field, ...]] = (utilization, power, instant_power, sm_clock, memory_clock, throttle_reasons)
SLOW: Final[tuple[Field, ...]] = (
    memory,
    energy,
    power_limit,
    temperature,
    memory_temperature,
    graphics_clock,
    video_clock,
    performance_state,
    encoder,
    decoder,
    processes,
    ecc,
    remapped_rows,
    pcie_link,
    pcie_replays,
    nvlink_traffic,
    nvlinks,
)
NOT_OF_A_MIG_PARENT: Final = frozenset({utilization, encoder, decoder})
"""NVML calls them unsupported there; some drivers are said to answer 0, which would read as idle."""
OF_MIG: Final[tuple[Field, ...]] = (memory, processes)
