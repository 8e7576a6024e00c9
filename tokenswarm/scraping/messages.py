"""What goes into the scraping process, once, and what comes out of it. A message is a line of JSON."""

from __future__ import annotations

from typing import Final

import msgspec

from tokenswarm.timing import Anchor

HARDWARE: Final = "hardware.csv"
SERVER_METRICS: Final = "server_metrics.csv"
LOCAL: Final = "local"
"""For a hardware exporter's URL: one that we start ourselves, on this machine."""
TARGET: Final = "target"
"""For a metrics page's URL: that of every server under test."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody to ask."""

    file: str
    """Where its lines belong: HARDWARE or SERVER_METRICS."""
    url: str
    """Without credentials: what people and files see; or LOCAL or TARGET."""
    at: str = ""
    """Where it is, if that is not its `url`."""
    user: str = ""
    password: str = ""
    headers: dict[str, str] = msgspec.field(default_factory=dict)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What to do until standard input ends."""

    anchor: Anchor
    """The run's clock."""
    sources: list[Source]
    insecure: bool = False
    ca_bundle: str | None = None


class State(msgspec.Struct, kw_only=True):
    """How a source has done so far; `run.json` has it under `scraped`."""

    file: str
    url: str
    answers: int = 0
    """Questions answered, one a second at most."""
    failures: int = 0
    lines: int = 0
    lost_samples: int | None = None
    """Samples that an exporter took and no longer had when it was asked."""
    host: str | None = None
    interval_s: float | None = None
    offset_s: float | None = None
    """The exporter's wall clock minus the run's, at the last answer; already taken out of the lines."""
    uncertainty_s: float | None = None
    devices: list[dict[str, str]] | None = None


class Scraped(msgspec.Struct, frozen=True, kw_only=True):
    """News from one source."""

    file: str
    lines: str = ""
    """Whole lines of the file."""
    problem: str = ""
    """A sentence for people."""
    state: State
