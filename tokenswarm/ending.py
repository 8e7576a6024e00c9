"""What ends a run, and how that is said. Knows neither Locust nor the run directory."""

from __future__ import annotations

from typing import Final

RUN_TIME: Final = "run_time"
SHAPE: Final = "shape"
CAPACITY: Final = "capacity"
SIGNAL: Final = "signal"
PAGE: Final = "page"
GAVE_UP: Final = "gave_up"
NO_WORKERS: Final = "no_workers"
REFUSED: Final = "refused"
CODE: Final = "code"
REQUESTS: Final = "requests"
TOKEN_BUDGET: Final = "token_budget"
DATASET: Final = "dataset"
TRACE: Final = "trace"

WORDS: Final = {
    RUN_TIME: "its run time was over",
    SHAPE: "its load shape was over",
    CAPACITY: "the search for capacity was over",
    SIGNAL: "it was stopped by a signal, as by Ctrl-C",
    PAGE: "it was stopped in the web page",
    CODE: "the locustfile, or something else in Locust's process, stopped it",
    GAVE_UP: "it could not go on",
    NO_WORKERS: "no worker was left",
    REFUSED: "it was refused",
    REQUESTS: "all that --requests asks for was sent",
    TOKEN_BUDGET: "what was left of --token-budget was not enough for another request",
    DATASET: "each prompt of the dataset was sent once",
    TRACE: "all of the trace was sent",
}
"""By what run.json has as `ended_by`."""
BY_ITSELF: Final = frozenset((REQUESTS, TOKEN_BUDGET, DATASET, TRACE, SHAPE, CAPACITY))
"""Ends that were asked for, other than the run time."""


def in_words(ended_by: str) -> str:
    """Why the run ended, as the end of a sentence."""
    return WORDS.get(ended_by, ended_by)
