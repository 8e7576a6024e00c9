"""Everything that can be known about the machine, its parts, the cgroup and watched processes."""

from __future__ import annotations

from typing import Final

from metrics_exporter.metric import Metric, kind

HOST: Final = kind(
    "host",
    "host_",
    (),
    Metric("cpu_busy_ratio", "Share of all cores' time that was not idle, since the reading before.", page=False),
    Metric("cpu_mode_ratio", "Share of all cores' time in each mode, over the window.", "mode", page=False),
    Metric("cpu_seconds_total", "Time of all cores, by mode.", "mode", samples=False),
    Metric("cpu_cores", "Cores that are online."),
    Metric("cpu_limit_cores", "Cores' worth of time that may be used: cores, affinity and cgroup quota."),
    Metric("load1", "Load average of 1 minute."),
    Metric("load5", "Load average of 5 minutes.", samples=False),
    Metric("load15", "Load average of 15 minutes.", samples=False),
    Metric("memory_total_bytes", "Memory of the machine."),
    Metric("memory_limit_bytes", "Memory that may be used: the machine's, or the cgroup's limit."),
    Metric("memory_available_bytes", "Memory that can still be had without swapping, inside that limit."),
    Metric("memory_used_bytes", "Memory that processes use."),
    Metric("swap_total_bytes", "Swap space."),
    Metric("swap_used_bytes", "Swap space in use."),
    Metric("open_file_descriptors", "Open file descriptors of the whole machine."),
    Metric("max_file_descriptors", "How many it may have.", samples=False),
)
CORE: Final = kind(
    "core",
    "host_core_",
    ("core",),
    Metric("busy_ratio", "Share of the core's time that was not idle, over the window.", page=False),
    Metric("busy_seconds_total", "Time that the core was not idle.", samples=False),
)
DISK: Final = kind(
    "disk",
    "host_disk_",
    ("disk",),
    Metric("read_bytes_total", "Bytes read.", samples=False),
    Metric("written_bytes_total", "Bytes written.", samples=False),
    Metric("busy_seconds_total", "Time that the disk had something to do.", samples=False),
    Metric("read_bytes_per_second", "Bytes read, over the window.", page=False),
    Metric("written_bytes_per_second", "Bytes written, over the window.", page=False),
    Metric("busy_ratio", "Share of the window that the disk had something to do.", page=False),
)
NETWORK: Final = kind(
    "network",
    "host_network_",
    ("interface",),
    Metric("receive_bytes_total", "Bytes received.", samples=False),
    Metric("transmit_bytes_total", "Bytes sent.", samples=False),
    Metric("drops_total", "Packets that were dropped, in and out.", samples=False),
    Metric("receive_bytes_per_second", "Bytes received, over the window.", page=False),
    Metric("transmit_bytes_per_second", "Bytes sent, over the window.", page=False),
    Metric("drops_per_second", "Packets that were dropped, over the window.", page=False),
)
CGROUP: Final = kind(
    "cgroup",
    "cgroup_",
    (),
    Metric("cpu_limit_cores", "Quota of CPU time, in cores."),
    Metric("cpu_seconds_total", "CPU time of all processes in the cgroup.", samples=False),
    Metric("cpu_throttled_seconds_total", "Time that its processes had to wait for the next period.", samples=False),
    Metric("cpu_usage_cores", "CPU time used a second, over the window.", page=False),
    Metric("cpu_throttled_ratio", "Throttled time a second, over the window.", page=False),
    Metric("memory_limit_bytes", "Limit of memory."),
    Metric("memory_used_bytes", "Memory charged to the cgroup, file cache included."),
)
PROCESS: Final = kind(
    "process",
    "process_",
    ("process", "pid"),
    Metric("cpu_seconds_total", "CPU time used, user and system.", samples=False),
    Metric("cpu_usage_cores", "CPU time used a second, over the window.", page=False),
    Metric("resident_memory_bytes", "Resident memory."),
    Metric("threads", "Threads."),
    Metric("open_file_descriptors", "Open file descriptors."),
    Metric("gpu_memory_bytes", "Memory on all GPUs."),
)
WATCHED: Final = kind(
    "watched",
    "watched_",
    ("process",),
    Metric("processes", "How many processes there are of this name or number; 0 if none."),
)
