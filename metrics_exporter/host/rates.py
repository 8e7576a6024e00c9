"""From counters to what happened a second, between one reading and the next."""

from __future__ import annotations


class Rates:
    """Remembers counters by device and name."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, str], tuple[float, float]] = {}
        self._now: dict[tuple[str, str], tuple[float, float]] = {}

    def per_second(self, device: str, name: str, counter: float, at: float) -> float | None:
        """The counter's growth a second since it was last seen; None at first, and where it went back."""
        key = (device, name)
        self._now[key] = (counter, at)
        before, since = self._before.get(key, (counter, at))
        return (counter - before) / (at - since) if at > since and counter >= before else None

    def turn(self) -> None:
        """One reading is complete: what it did not see is forgotten."""
        self._before, self._now = self._now, {}
