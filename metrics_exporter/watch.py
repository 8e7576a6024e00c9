"""Reads one source over and over on an absolute schedule, and makes a sample of each window of readings.

Each source has a thread of its own: an NVML that hangs costs GPU samples, which are then missing, and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from math import isfinite
from typing import Final, Protocol

from metrics_exporter.metric import Device, Reading, Values
from metrics_exporter.ring import Ring

log = logging.getLogger("metrics_exporter")

STALE_SECONDS: Final = 5.0
"""A reading older than this, and than five intervals, is no longer served: a gap is true, an old value is not."""


class Source(Protocol):
    """Something to read. `full` asks for the slow values as well. Raises nothing for hardware that fails."""

    name: str

    def read(self, full: bool) -> Reading: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Latest:
    """The last reading, and when it was made."""

    reading: Reading
    wall_ns: int
    mono_ns: int

    @property
    def devices(self) -> tuple[Device, ...]:
        return self.reading.devices

    def values(self, device: Device) -> dict[str, float]:
        """All that is known about a device now."""
        return {**self.reading.slow.get(device.id, {}), **self.reading.fast.get(device.id, {})}


class _Window:
    """Sum, maximum and count of what was read since the last sample."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, list[float]]] = {}
        self.readings = 0

    def add(self, values: Values) -> None:
        self.readings += 1
        for device, keys in values.items():
            seen = self._seen.setdefault(device, {})
            for key, value in keys.items():
                entry = seen.get(key)
                if entry is None:
                    seen[key] = [value, value, 1]
                else:
                    entry[0] += value
                    entry[2] += 1
                    if value > entry[1]:
                        entry[1] = value

    def mean(self) -> Values:
        return {
            device: {key: round(total / count, 6) for key, (total, _, count) in keys.items()}
            for device, keys in self._seen.items()
        }

    def max(self) -> Values:
        return {device: {key: entry[1] for key, entry in keys.items()} for device, keys in self._seen.items()}


class Watch:
    """A source under observation: `interval` seconds between readings, `per_window` readings in a sample."""

    def __init__(self, source: Source, ring: Ring, interval: float, per_window: int) -> None:
        self.source = source
        self.latest: Latest | None = None
        self.readings = 0
        self.missed = 0
        """Instants of the schedule that passed while a reading before them was still going on."""
        self.failures = 0
        """Readings that broke off with an error of this program or its system."""
        self._ring = ring
        self._interval_ns = round(interval * 1e9)
        self._per_window = per_window
        self._window = _Window()
        self._sampled_ns: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{source.name} readings", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End it; one that hangs is left behind after `timeout` seconds."""
        self._stop.set()
        self._thread.join(timeout)

    def fresh(self) -> Latest | None:
        """The latest reading, unless it is too old to be served."""
        latest = self.latest
        limit = max(STALE_SECONDS, 5 * self._interval_ns / 1e9)
        return latest if latest is not None and time.monotonic_ns() - latest.mono_ns <= limit * 1e9 else None

    def _run(self) -> None:
        begin = time.monotonic_ns()
        tick, window_end = 0, 0
        while not self._stop.wait(max(0.0, (begin + tick * self._interval_ns - time.monotonic_ns()) / 1e9)):
            full = tick >= window_end
            if full:
                window_end = (tick // self._per_window + 1) * self._per_window
            try:
                self._read(full)
            except Exception:
                self.failures += 1
                if self.failures == 1:  # the rest is counted: a log that repeats five times a second hides others
                    log.exception("reading the %s failed; this is said once, and counted", self.source.name)
            passed = -((begin - time.monotonic_ns()) // self._interval_ns)
            self.missed += max(0, passed - tick - 1)
            tick = max(tick + 1, passed)
        self.source.close()

    def _read(self, full: bool) -> None:
        reading = self.source.read(full)
        wall_ns, mono_ns = time.time_ns(), time.monotonic_ns()
        self.readings += 1
        self._window.add(reading.fast)
        self.latest = latest = Latest(reading, wall_ns, mono_ns)
        if full:
            self._sample(latest)

    def _sample(self, latest: Latest) -> None:
        window, self._window = self._window, _Window()
        before, self._sampled_ns = self._sampled_ns, latest.mono_ns
        kept = {device.id: device for device in latest.devices}
        self._ring.append(
            self.source.name,
            latest.wall_ns,
            latest.mono_ns,
            window_s=0.0 if before is None else round((latest.mono_ns - before) / 1e9, 6),
            readings=window.readings,
            values=_sampled(kept, {id: latest.values(device) for id, device in kept.items()}),
            mean=_sampled(kept, window.mean()),
            max=_sampled(kept, window.max()),
        )


def _sampled(devices: dict[str, Device], values: Values) -> Values:
    """What belongs into samples, of devices that are still there."""
    kept: Values = {}
    for id, keys in values.items():
        if id in devices:
            metrics = devices[id].kind.metrics
            left = {k: value for k, value in keys.items() if metrics[k.partition(".")[0]].samples and isfinite(value)}
            if left:
                kept[id] = left
    return kept
