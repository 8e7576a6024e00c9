"""Another machine's clock, as round trips to it tell: reads no clock, sends nothing.

Asked at `sent`, answered with what its clock showed, heard at `received`: at the middle of the two it showed that, give
or take half the round trip, whatever the network and busy event loops did in between.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from tokenswarm.timing import Anchor

KEPT: Final = 64
DRIFT: Final = 1e-4
"""How fast two machines' monotonic clocks may part: 100 µs a second, several times what crystals do."""


class Reading(msgspec.Struct, frozen=True):
    """One round trip: the other clock showed `wall_ns` at our CLOCK_MONOTONIC `monotonic_ns` ± `half_trip_ns`."""

    monotonic_ns: int
    wall_ns: int
    half_trip_ns: int

    def uncertainty_ns(self, now: int) -> int:
        """Of this reading at our `now`: half the round trip, and what clocks may drift since."""
        return self.half_trip_ns + int(abs(now - self.monotonic_ns) * DRIFT)


class OtherClock:
    """Best of the latest round trips."""

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque(maxlen=KEPT)

    def __len__(self) -> int:
        return len(self._readings)

    def heard(self, sent: int, wall_ns: int, received: int) -> int:
        """A round trip, on our CLOCK_MONOTONIC; one that ends before it began is passed over.

        Where it contradicts what was heard before, a machine was suspended, and what was heard before is forgotten.
        Returns by how many nanoseconds our clock fell behind then (0: it did not).
        """
        if received < sent:
            return 0
        new = Reading((sent + received) // 2, wall_ns, (received - sent + 1) // 2)
        jump = 0
        if self._readings:
            old = self.best(received)
            moved = (new.wall_ns - new.monotonic_ns) - (old.wall_ns - old.monotonic_ns)
            if abs(moved) > new.half_trip_ns + old.uncertainty_ns(received):
                jump = moved
                self._readings.clear()
        self._readings.append(new)
        return jump

    def best(self, now: int) -> Reading:
        """The reading that is the surest at our `now`. Raises ValueError if there is none."""
        return min(self._readings, key=lambda reading: reading.uncertainty_ns(now))

    def anchor(self, now: int) -> Anchor:
        """Turns our monotonic instants into the other clock's. Raises ValueError if there is no reading."""
        best = self.best(now)
        return Anchor(best.wall_ns, best.monotonic_ns)
