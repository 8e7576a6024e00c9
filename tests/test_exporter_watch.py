"""The schedule of readings, the windows made of them, and the ring that keeps these."""

from __future__ import annotations

import threading
import time

import pytest

from metrics_exporter.metric import Device, Metric, Reading, kind
from metrics_exporter.ring import Ring
from metrics_exporter.watch import Watch

THING = kind(
    "thing",
    "thing_",
    (),
    Metric("level", "A level."),
    Metric("turns_total", "Turns.", samples=False),
    Metric("rest", "What is read once a window."),
)


class Slow:
    """A source whose readings take more than half of their interval; every `broken`-th breaks off."""

    name = "thing"

    def __init__(self, seconds: float = 0.0, broken: int = 0) -> None:
        self.seconds = seconds
        self.broken = broken
        self.times: list[float] = []
        self.closed = threading.Event()

    def read(self, full: bool) -> Reading:
        self.times.append(time.monotonic())
        time.sleep(self.seconds)
        if self.broken and len(self.times) % self.broken == 0:
            raise RuntimeError("broken")
        level = float(len(self.times))
        return Reading((Device("it", THING),), {"it": {"level": level, "turns_total": 1.0}}, {"it": {"rest": 2.0}})

    def close(self) -> None:
        self.closed.set()


def watched(source: Slow, readings: int, per_window: int = 4) -> tuple[Watch, Ring]:
    """A watch that made so many readings, 50 ms apart, and was stopped."""
    ring = Ring(100)
    watch = Watch(source, ring, 0.05, per_window)
    watch.start()
    give_up = time.monotonic() + 60
    while len(source.times) < readings and time.monotonic() < give_up:
        time.sleep(0.01)
    watch.stop(10)
    assert source.closed.is_set()
    return watch, ring


@pytest.mark.parametrize("seconds", [0.03, 0.08])
def test_the_schedule_does_not_drift_by_what_readings_take(seconds: float) -> None:
    source = Slow(seconds)
    watch, _ = watched(source, 30)
    elapsed = source.times[-1] - source.times[0]
    # Each instant of the schedule was used, or counted as missed.
    assert (len(source.times) - 1 + watch.missed) * 0.05 == pytest.approx(elapsed, abs=0.15)


def test_readings_that_take_too_long_are_left_out_and_counted() -> None:
    watch, _ = watched(Slow(seconds=0.08), 8)
    assert watch.missed >= 7


def test_a_window_has_what_belongs_into_samples_and_nothing_else() -> None:
    _, ring = watched(Slow(), 12)
    first, second, *_ = ring.since(0).samples
    assert (first.window_s, first.readings) == (0, 1)
    assert first.values == {"it": {"rest": 2.0, "level": 1.0}}
    levels = range(2, 2 + second.readings)  # the window's own readings
    assert second.mean == {"it": {"level": pytest.approx(sum(levels) / len(levels))}}
    assert second.max == {"it": {"level": float(levels[-1])}}
    assert second.values["it"]["level"] == levels[-1]


def test_a_reading_that_breaks_off_is_counted_logged_once_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    source = Slow(broken=3)
    watch, ring = watched(source, 12)
    assert watch.failures == len(source.times) // 3
    assert [record.message for record in caplog.records] == ["reading the thing failed; this is said once, and counted"]
    assert len(ring.since(0).samples) >= 2


def test_an_old_reading_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, _ = watched(Slow(), 2)
    assert watch.fresh() is not None
    later = time.monotonic_ns() + 6_000_000_000
    monkeypatch.setattr(time, "monotonic_ns", lambda: later)
    assert watch.fresh() is None


def test_the_ring_keeps_the_last_and_counts_what_it_gave_up() -> None:
    ring = Ring(3)
    for number in range(5):
        ring.append("thing", number, number, window_s=1.0, readings=1, values={}, mean={}, max={})
    told = ring.since(1)
    assert [sample.seq for sample in told.samples] == [2, 3, 4]
    assert (told.first, told.next, told.dropped) == (2, 5, 1)
    assert ring.since(5).samples == []
    assert ring.since(None).samples == []
    assert [sample.seq for sample in ring.since(6).samples] == [2, 3, 4]
