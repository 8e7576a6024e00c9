"""One GPU or MIG instance: which questions it answers, and what becomes of those that fail."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

import pynvml as nvml

from metrics_exporter.gpu.fields import Field, Handle
from metrics_exporter.gpu.gpm import Activity
from metrics_exporter.metric import Device

log = logging.getLogger("metrics_exporter")

UNSUPPORTED: Final = frozenset(
    {nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_NO_PERMISSION}
)
LOST: Final = frozenset({nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED})
DRIVER_GONE: Final = frozenset(
    {
        nvml.NVML_ERROR_UNINITIALIZED,
        nvml.NVML_ERROR_DRIVER_NOT_LOADED,
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND,
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)


class Card:
    """Asks one handle. What a card does not support is asked once, and again only after `ask_again`."""

    def __init__(self, handle: Handle, device: Device, fast: Iterable[Field], slow: Iterable[Field]) -> None:
        self.handle = handle
        self.device = device
        self.fast = tuple(fast)
        self.slow = tuple(slow)
        self.errors = 0
        self.lost: str = ""
        """NVML's words if the card does not answer any more, else empty."""
        self._unsupported: set[Field] = set()
        self._told: set[tuple[Field, int]] = set()

    @property
    def name(self) -> str:
        return f"{self.device.kind.name} {self.device.labels[0]} ({self.device.id})"

    def read(self, full: bool) -> tuple[dict[str, float], dict[str, float]]:
        """What the card answers, fast and slow; nothing, and `lost` is set, if it does not answer at all.

        Raises NVMLError if the driver is gone.
        """
        fast: dict[str, float] = {}
        slow: dict[str, float] = {}
        answered, failed = False, "it has no handle" if self.handle is None else ""
        for field, into in self._questions(full, fast, slow):
            try:
                into.update(field(self.handle))
                answered = True
            except nvml.NVMLError as error:
                if error.value in UNSUPPORTED:
                    self._unsupported.add(field)
                elif error.value in LOST:
                    self._lose(str(error))
                    return {}, {}
                elif error.value in DRIVER_GONE:
                    raise
                else:
                    failed = str(error)
                    self._count(field, error)
        if answered:
            self._found()
        elif failed:
            self._lose(failed)
        return fast, slow

    def _questions(
        self, full: bool, fast: dict[str, float], slow: dict[str, float]
    ) -> list[tuple[Field, dict[str, float]]]:
        asked = [(field, fast) for field in self.fast]
        if full:
            asked += [(field, slow) for field in self.slow]
        return [pair for pair in asked if pair[0] not in self._unsupported]

    def _found(self) -> None:
        if self.lost:
            log.warning("%s answers again", self.name)
            self.lost = ""

    def ask_again(self) -> None:
        """Forget what was not supported: MIG and permissions can change while the driver runs."""
        self._unsupported.clear()

    def unsupported(self) -> list[str]:
        """Names of the questions that it does not answer."""
        return [_name(field) for field in (*self.fast, *self.slow) if field in self._unsupported]

    def close(self) -> None:
        for field in self.slow:
            if isinstance(field, Activity):
                try:
                    field.close()
                except nvml.NVMLError as error:
                    log.debug("%s: %s", self.name, error)

    def _lose(self, reason: str) -> None:
        if not self.lost:
            log.error("%s does not answer any more: %s; its values are left out until it does", self.name, reason)
        self.lost = reason

    def _count(self, field: Field, error: nvml.NVMLError) -> None:
        self.errors += 1
        if (field, error.value) not in self._told:
            self._told.add((field, error.value))
            log.warning("%s: %s: %s; this is said once, and counted", self.name, _name(field), error)


def _name(field: Field) -> str:
    return "activity" if isinstance(field, Activity) else field.__name__
