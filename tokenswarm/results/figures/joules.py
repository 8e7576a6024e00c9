"""Energy of one GPU between two instants, from its counter or from its power. METRICS.md, "energy".

Only what the samples carry: a gap, a counter that began anew or a clock that was set make it unknown, and say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tokenswarm.results.flow import Floats, column

COUNTER: Final = "energy_joules_total"
INSTANT: Final = "power_instant_watts"
POWER: Final = "power_watts"
LONGEST_GAP_S: Final = 2.0


class Unknown(Exception):
    """Why the energy is not known: the end of a sentence about a GPU."""


@dataclass(frozen=True)
class Readings:
    """One metric of one GPU, in order of time (UTC epoch seconds). `averaged`: a value is the mean since the reading
    before it, else what was read at that instant. `set_back_s`: by how much its clock went back, if it did."""

    times: Floats
    values: Floats
    averaged: bool
    set_back_s: float = 0.0


def readings(samples: pd.DataFrame) -> Readings:
    """From the samples of one metric of one GPU, in the order in which they were taken. Of several with the same time
    the last counts."""
    taken = column(samples, "time")
    set_back = float(-np.diff(taken).min(initial=0.0))
    means = column(samples, "mean")
    averaged = bool(len(means)) and not np.isnan(means).any()
    values = means if averaged else column(samples, "value")
    order = np.argsort(taken, kind="stable")
    times, values = taken[order], values[order]
    last = np.append(times[1:] != times[:-1], True) if len(times) else np.zeros(0, dtype=np.bool_)
    return Readings(times[last], values[last], averaged, set_back if set_back > LONGEST_GAP_S else 0.0)


def by_counter(told: Readings, start: float, end: float) -> float:
    """Joules in [start, end]: what the counter grew by, linear between readings at the edges. Raises Unknown."""
    times, values = _around(told, start, end)
    back = np.flatnonzero(np.diff(values) < 0)
    if len(back):
        before, after = values[back[0]], values[back[0] + 1]
        raise Unknown(f"its energy counter fell from {before:,.0f} to {after:,.0f} J: the driver was loaded anew")
    first, last = np.interp([start, end], times, values)
    return float(last - first)


def by_power(told: Readings, start: float, end: float) -> float:
    """Joules in [start, end]: the integral of its power. Raises Unknown."""
    times, watts = _around(told, start, end)
    if told.averaged:
        edges = np.clip(times, start, end)
        return float((watts[1:] * np.diff(edges)).sum())
    at_edges = np.interp([start, end], times, watts)
    inside = (times > start) & (times < end)
    times = np.concatenate([[start], times[inside], [end]])
    watts = np.concatenate([at_edges[:1], watts[inside], at_edges[1:]])
    return float(((watts[1:] + watts[:-1]) / 2 * np.diff(times)).sum())


def _around(told: Readings, start: float, end: float) -> tuple[Floats, Floats]:
    """The readings from the last before `start` to the first after `end`."""
    times = told.times
    if told.set_back_s:
        raise Unknown(f"the times of its samples go back by {told.set_back_s:,.1f} s: a clock was set")
    if not len(times) or times[0] > start or times[-1] < end:
        raise Unknown("its samples do not reach over all of the window")
    first = int(np.searchsorted(times, start, side="right")) - 1
    last = int(np.searchsorted(times, end, side="left"))
    times, values = times[first : last + 1], told.values[first : last + 1]
    gaps = np.diff(times)
    if len(gaps) and gaps.max() > LONGEST_GAP_S:
        longest = int(gaps.argmax())
        after = max(0.0, times[longest] - start)
        raise Unknown(f"it has no sample for {gaps[longest]:.1f} s, from {after:,.1f} s into the window on")
    return times, values
