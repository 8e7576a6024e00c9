"""Options on what ends a run by itself, besides Locust's --run-time."""

from __future__ import annotations

from typing import Final

from tokenswarm.options.entry import Option, whole
from tokenswarm.options.values import Options

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


def dealt(options: Options) -> str:
    """The options, by name, of which each worker has a share; empty without any."""
    given = {
        "--requests": options.requests,
        "--token-budget": options.token_budget,
        "--dataset-once": options.dataset_once,
        "--arrivals trace": options.arrivals.startswith("trace:"),
    }
    return " and ".join(name for name, value in given.items() if value)
