"""Options on what ends a run by itself, besides Locust's --run-time."""

from __future__ import annotations

from typing import Final

from tokenswarm.options.entry import Option, whole

OPTIONS: Final = (
    Option(
        "requests",
        "R",
        "end the run after so many requests over all workers; retries are extra",
        whole(1, 1_000_000_000),
    ),
    Option(
        "token_budget",
        "N",
        "end the run before input and output tokens of all workers come to more than this",
        whole(1, 1_000_000_000_000),
    ),
)
