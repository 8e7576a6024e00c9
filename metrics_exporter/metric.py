"""What is measured, on what, and one reading of it. The tables of metrics are beside the code that reads them.

A value is a float under a device's id and a key: the metric's name or, where the metric has a label, the name, a dot
and the label's value, as in `cpu_seconds_total.user`. What could not be read has no key; it is never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Values: TypeAlias = dict[str, dict[str, float]]
"""Device id, key, value."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A gauge, or a counter if the name ends in `_total`."""

    name: str
    """With its base unit, as Prometheus wants it: `power_watts`, `energy_joules_total`."""
    help: str
    label: str = ""
    """What the part of a key after the dot is called; empty if there is none."""
    page: bool = True
    """Whether it is on the Prometheus page. Averages and rates are not: Prometheus makes its own from counters."""
    samples: bool = True
    """Whether it is in samples and CSV."""

    @property
    def counter(self) -> bool:
        return self.name.endswith("_total")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of device, and what can be known about one."""

    name: str
    prefix: str
    """Of its metrics on the Prometheus page, after `tokenswarm_`."""
    labels: tuple[str, ...]
    """That tell one device from another on the page."""
    metrics: Mapping[str, Metric]


def kind(name: str, prefix: str, labels: tuple[str, ...], *metrics: Metric) -> Kind:
    """A kind with its metrics by name."""
    return Kind(name, prefix, labels, {metric.name: metric for metric in metrics})


@dataclass(frozen=True, slots=True)
class Device:
    """One thing that is measured: a GPU, the host, a disk, a process."""

    id: str
    kind: Kind
    labels: tuple[str, ...] = ()
    """Values of the kind's labels."""
    info: Mapping[str, str] = field(default_factory=dict)
    """Its identity: labels of an `_info` metric on the page, and facts in samples."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else does not change, for samples only."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source saw at one instant."""

    devices: tuple[Device, ...]
    fast: Values
    """What is read every time."""
    slow: Values
    """What is read once a window: the last of it, without what has been lost since."""
