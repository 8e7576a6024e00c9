"""The last samples, numbered, so that whoever asks once a second loses nothing."""

from __future__ import annotations

import threading
from array import array
from collections import deque
from dataclasses import dataclass
from typing import Any, TypeAlias

from metrics_exporter.metric import Values

Layout: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
"""Device ids, each with its keys."""


class Packed:
    """Values as they are kept: the numbers in a row. Samples share the layout, so that one takes 8 bytes a number."""

    __slots__ = ("layout", "numbers")

    def __init__(self, values: Values, before: Layout) -> None:
        layout = tuple((device, tuple(keys)) for device, keys in values.items())
        self.layout = before if layout == before else layout
        self.numbers = array("d", (number for keys in values.values() for number in keys.values()))

    def unpack(self) -> Values:
        numbers = iter(self.numbers)
        return {device: dict(zip(keys, numbers, strict=False)) for device, keys in self.layout}


@dataclass(frozen=True, slots=True)
class Sample:
    """One window of one source. Times are those of its last reading."""

    seq: int
    source: str
    wall_ns: int
    mono_ns: int
    window_s: float
    """Since the source's sample before; 0 for its first."""
    readings: int
    packed: tuple[Packed, Packed, Packed]

    @property
    def values(self) -> Values:
        return self.packed[0].unpack()

    @property
    def mean(self) -> Values:
        """Over the window's readings, of what is read every time."""
        return self.packed[1].unpack()

    @property
    def max(self) -> Values:
        return self.packed[2].unpack()

    def as_json(self) -> dict[str, Any]:
        return {
            "seq": self.seq,
            "source": self.source,
            "wall_ns": self.wall_ns,
            "mono_ns": self.mono_ns,
            "window_s": self.window_s,
            "readings": self.readings,
            "values": self.values,
            "mean": self.mean,
            "max": self.max,
        }


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What a reader has not seen yet."""

    samples: list[Sample]
    first: int
    """Number of the oldest sample that is kept; `next` if there is none."""
    next: int
    """What to ask for next time."""
    dropped: int
    """How many were asked for and are not kept any more."""


class Ring:
    """Holds the last `capacity` samples. Safe for threads."""

    def __init__(self, capacity: int) -> None:
        self._samples: deque[Sample] = deque(maxlen=capacity)
        self._layouts: dict[str, tuple[Layout, Layout, Layout]] = {}
        self._next = 0
        self._changed = threading.Condition()

    def append(
        self,
        source: str,
        wall_ns: int,
        mono_ns: int,
        *,
        window_s: float,
        readings: int,
        values: Values,
        mean: Values,
        max: Values,
    ) -> None:
        with self._changed:
            layouts = self._layouts.get(source, ((), (), ()))
            packed = Packed(values, layouts[0]), Packed(mean, layouts[1]), Packed(max, layouts[2])
            self._layouts[source] = packed[0].layout, packed[1].layout, packed[2].layout
            self._samples.append(Sample(self._next, source, wall_ns, mono_ns, window_s, readings, packed))
            self._next += 1
            self._changed.notify_all()

    def since(self, seq: int | None) -> Excerpt:
        """The samples from number `seq` on; none for None, all that are kept for one that does not exist yet.

        A number from the future is one of an exporter that ran here before: nothing of this one has been seen.
        """
        with self._changed:
            first = self._next - len(self._samples)
            if seq is None:
                return Excerpt([], first, self._next, 0)
            start = first if seq > self._next else max(seq, first)
            wanted = [sample for sample in self._samples if sample.seq >= start]
            return Excerpt(wanted, first, self._next, max(0, start - seq))

    def wait(self, seq: int, timeout: float) -> None:
        """Until sample `seq` is there, or for `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._next > seq, timeout)
