"""Everything that can be known about a GPU, a MIG instance and the driver."""

from __future__ import annotations

from typing import Final

from metrics_exporter.metric import Metric, kind

GPU: Final = kind(
    "gpu",
    "gpu_",
    ("gpu", "uuid"),
    Metric("up", "1 if the GPU answers, 0 if it is lost."),
    Metric("mig_enabled", "1 if the GPU is split by MIG: it then has no utilization of its own."),
    Metric("utilization_ratio", "Share of the driver's last window (1/6 s to 1 s) in which any kernel ran."),
    Metric("memory_utilization_ratio", "Share of the same window in which device memory was read or written."),
    Metric("power_watts", "Power of the whole board; since Ampere (not GA100) the driver's average of a second."),
    Metric("power_instant_watts", "Power of the whole board at this instant, where the driver tells it apart."),
    Metric("power_limit_watts", "Power above which the board slows down, as enforced."),
    Metric("energy_joules_total", "Energy used since the driver was loaded."),
    Metric("sm_clock_hertz", "Clock of the multiprocessors."),
    Metric("memory_clock_hertz", "Clock of the memory."),
    Metric("graphics_clock_hertz", "Clock of the graphics engine."),
    Metric("video_clock_hertz", "Clock of the video engine."),
    Metric("throttle_reason", "1 if this holds the clocks down now.", "reason"),
    Metric("performance_state", "Performance state, 0 (fastest) to 15."),
    Metric("memory_used_bytes", "Memory in use."),
    Metric("memory_free_bytes", "Memory that is free."),
    Metric("memory_total_bytes", "Memory of the board."),
    Metric("memory_reserved_bytes", "Memory that the driver keeps for itself."),
    Metric("temperature_celsius", "Temperature of the chip."),
    Metric("memory_temperature_celsius", "Temperature of the memory."),
    Metric("encoder_utilization_ratio", "Share of time that the video encoder worked."),
    Metric("decoder_utilization_ratio", "Share of time that the video decoder worked."),
    Metric("process_memory_bytes", "Memory of one process, by its number on the host.", "pid"),
    Metric("ecc_errors_total", "Memory errors since the driver was loaded.", "type"),
    Metric("remapped_rows", "Memory rows that were replaced, by the kind of error.", "cause"),
    Metric("row_remap_pending", "1 if a row waits to be replaced at the next reset."),
    Metric("row_remap_failed", "1 if a row could not be replaced."),
    Metric("pcie_link_generation", "Generation of the PCIe link now; idle cards lower it."),
    Metric("pcie_link_width", "Lanes of the PCIe link now."),
    Metric("pcie_replays_total", "Packets that had to be sent again over PCIe."),
    Metric("nvlink_links_active", "NVLinks that are up."),
    Metric("nvlink_transmit_bytes_total", "Data sent over all NVLinks."),
    Metric("nvlink_receive_bytes_total", "Data received over all NVLinks."),
    Metric("graphics_activity_ratio", "GPM: share of the window in which the compute or graphics engine was busy."),
    Metric("sm_activity_ratio", "GPM: share of multiprocessors that were busy, over the window."),
    Metric("sm_occupancy_ratio", "GPM: warps that were resident, of those that fit, over the window."),
    Metric("tensor_activity_ratio", "GPM: share of time that the tensor cores worked, over the window."),
    Metric("dram_activity_ratio", "GPM: share of the memory's bandwidth that was used, over the window."),
    Metric("pcie_transmit_bytes_per_second", "GPM: PCIe traffic from the GPU, over the window."),
    Metric("pcie_receive_bytes_per_second", "GPM: PCIe traffic to the GPU, over the window."),
    Metric("read_errors_total", "Readings of one field that NVML answered with an error."),
)

MIG: Final = kind(
    "mig",
    "mig_",
    ("gpu", "uuid"),
    *(GPU.metrics[name] for name in GPU.metrics if name.startswith("memory_") and name.endswith("_bytes")),
    GPU.metrics["process_memory_bytes"],
    Metric("up", "1 if the MIG instance answers."),
    GPU.metrics["read_errors_total"],
)

NVML: Final = kind(
    "nvml",
    "nvml_",
    (),
    Metric("up", "1 if NVIDIA's management library and the driver answer, 0 if not, or if there is none."),
    Metric("starts_total", "How often NVML was started; more than 1 after a driver restart or a lost GPU."),
)
