"""Whose the memory of the GPUs is."""

from __future__ import annotations

from typing import Final

from metrics_exporter.metric import Values

_KEY: Final = "process_memory_bytes."


def memory_by_process(values: Values) -> dict[int, float]:
    """Bytes on all GPUs together by process number.

    A process on a MIG instance may be listed for the instance, the whole GPU, or both: it is counted once.
    """
    cards: dict[int, float] = {}
    instances: dict[int, float] = {}
    for device, keys in values.items():
        found = instances if device.startswith("MIG-") else cards
        for key, used in keys.items():
            if key.startswith(_KEY):
                pid = int(key.removeprefix(_KEY))
                found[pid] = found.get(pid, 0.0) + used
    return {**instances, **cards}
