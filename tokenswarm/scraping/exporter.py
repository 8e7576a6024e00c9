"""A hardware exporter's samples as lines of hardware.csv, on the run's clock. Does no I/O."""

from __future__ import annotations

import csv
import io
from typing import Any, Final

import msgspec

from tokenswarm.offset import OtherClock
from tokenswarm.record import guard
from tokenswarm.scraping.messages import State
from tokenswarm.timing import Anchor

COLUMNS: Final = ("time", "host", "device", "metric", "value", "mean", "max")


class Clock(msgspec.Struct):
    """What GET /clock answers: both clocks of the exporter's host, at one moment."""

    wall_ns: int
    mono_ns: int


class Sample(msgspec.Struct):
    """What an exporter saw in one window; values by device and metric."""

    mono_ns: int
    values: dict[str, dict[str, float]]
    mean: dict[str, dict[str, float]] = {}
    max: dict[str, dict[str, float]] = {}


class Samples(msgspec.Struct):
    """What GET /samples answers."""

    host: str
    instance: int
    interval_s: float
    next: int
    dropped: int
    samples: list[Sample]
    devices: list[dict[str, Any]] = []
    window_s: float = 1.0


def header() -> str:
    """The first line of the file, with its line end."""
    return ",".join(COLUMNS) + "\n"


class Exporter:
    """What is known of one exporter: which samples have come, and what its clock shows."""

    def __init__(self, anchor: Anchor, state: State) -> None:
        self._anchor = anchor
        self._state = state
        self._clock = OtherClock()
        self._instance: int | None = None
        self.since = 0
        """The first sample that has not come yet."""
        self.window_s = 0.0
        """How long it takes for a sample."""

    def heard_clock(self, sent: int, body: bytes, received: int) -> None:
        """Its answer about the time, to a question sent at `sent`. Raises msgspec.DecodeError."""
        clock = msgspec.json.decode(body, type=Clock)
        self._clock.heard(sent, clock.mono_ns, received)
        best = self._clock.best(received)
        self._state.uncertainty_s = best.uncertainty_ns(received) / 1e9
        ours = self._anchor.wall((sent + received) // 2)
        self._state.offset_s = clock.wall_ns / 1e9 - ours

    def lines(self, body: bytes, now: int) -> str:
        """The lines of new samples in its answer, at our `now`. Raises msgspec.DecodeError."""
        answer = msgspec.json.decode(body, type=Samples)
        state = self._state
        state.host, state.interval_s = answer.host, answer.interval_s
        self.window_s = answer.window_s
        state.devices = [{key: str(value) for key, value in device.items()} for device in answer.devices]
        if self._instance not in (None, answer.instance):  # another process, which counts anew
            self._instance, self.since = answer.instance, 0
            return ""
        state.lost_samples = (state.lost_samples or 0) + (answer.dropped if self._instance else 0)
        self._instance, self.since = answer.instance, answer.next
        theirs = self._clock.best(now)
        ours = Anchor(self._anchor.wall_ns + theirs.monotonic_ns - self._anchor.monotonic_ns, theirs.wall_ns)
        began, out = self._anchor.wall_ns / 1e9, io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        for sample in answer.samples:
            time = ours.wall(sample.mono_ns)
            if time < began:  # it samples all the time
                continue
            for device, values in sample.values.items():
                mean, most = sample.mean.get(device, {}), sample.max.get(device, {})
                name = guard(answer.host), guard(device)
                for metric, value in values.items():
                    more = _cell(mean.get(metric)), _cell(most.get(metric))
                    writer.writerow((f"{time:.6f}", *name, guard(metric), _cell(value), *more))
        return out.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.12g}"
