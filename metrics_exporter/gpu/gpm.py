"""Activity of the parts of a GPU, which Hopper and later cards count in hardware (GPM).

Unlike utilization, which is 1 as soon as any kernel runs, this says how much of the chip works.
"""

from __future__ import annotations

from typing import Any, Final

import pynvml as nvml

from metrics_exporter.gpu.fields import Handle

_MEBI: Final = 1024 * 1024
_METRICS: Final = (  # NVML's number, ours, and how many of its units make one of ours
    (nvml.NVML_GPM_METRIC_GRAPHICS_UTIL, "graphics_activity_ratio", 100),
    (nvml.NVML_GPM_METRIC_SM_UTIL, "sm_activity_ratio", 100),
    (nvml.NVML_GPM_METRIC_SM_OCCUPANCY, "sm_occupancy_ratio", 100),
    (nvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL, "tensor_activity_ratio", 100),
    (nvml.NVML_GPM_METRIC_DRAM_BW_UTIL, "dram_activity_ratio", 100),
    (nvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC, "pcie_transmit_bytes_per_second", 1 / _MEBI),
    (nvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC, "pcie_receive_bytes_per_second", 1 / _MEBI),
)


class Activity:
    """A field of one card: means between this reading and the one before, so none at the first."""

    def __init__(self) -> None:
        self._samples: list[Any] = []
        self._filled = False
        self._request = nvml.c_nvmlGpmMetricsGet_t()  # 20 kB: made once

    def __call__(self, gpu: Handle) -> dict[str, float]:
        if not self._samples:
            if not nvml.nvmlGpmQueryDeviceSupport(gpu).isSupportedDevice:
                raise nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)
            self._samples = [nvml.nvmlGpmSampleAlloc(), nvml.nvmlGpmSampleAlloc()]
        before, now = self._samples
        nvml.nvmlGpmSampleGet(gpu, now)
        self._samples = [now, before]
        if not self._filled:
            self._filled = True
            return {}
        return self._between(before, now)

    def close(self) -> None:
        """Free what NVML allocated. Not needed once NVML is shut down."""
        samples, self._samples, self._filled = self._samples, [], False
        for sample in samples:
            nvml.nvmlGpmSampleFree(sample)

    def _between(self, before: Any, now: Any) -> dict[str, float]:
        request = self._request
        request.version = nvml.NVML_GPM_METRICS_GET_VERSION
        request.numMetrics = len(_METRICS)
        request.sample1, request.sample2 = before, now
        for place, (number, _, _) in enumerate(_METRICS):
            request.metrics[place].metricId = number
        nvml.nvmlGpmMetricsGet(request)
        answers = zip(request.metrics, _METRICS, strict=False)
        return {
            name: answer.value / per_unit
            for answer, (_, name, per_unit) in answers
            if answer.nvmlReturn == nvml.NVML_SUCCESS
        }
