"""Options on how the load changes over the run, and what of it is measured."""

from __future__ import annotations

from typing import Final

from tokenswarm.options.entry import Option, seconds

OPTIONS: Final = (
    Option(
        "warmup",
        "TIME",
        "settling time left out of the results; left out: 10 s or twice the median request",
        seconds(0.0),
    ),
)
