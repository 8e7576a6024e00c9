"""Options on how the load changes over the run, and what of it is measured."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tokenswarm.load import plan
from tokenswarm.options.entry import Option, Reader, seconds
from tokenswarm.options.values import Ended, Options

_REQUESTS: Final = re.compile(r"(?P<count>\d+) ?r(?:equests?)?", re.ASCII)
_MOST_REQUESTS: Final = 10**9
_read_seconds = seconds(0.0)


def _numbers(read: Reader, name: str) -> tuple[int, ...] | None:
    given = read.text(name)
    try:
        return None if given is None else plan.numbers(given)
    except ValueError as error:
        read.wrong(name, str(error))
        return None


def _settling(read: Reader, name: str) -> float | Ended | None:
    match = _REQUESTS.fullmatch(read.text(name) or "")
    if not match:
        return _read_seconds(read, name)  # type: ignore[no-any-return]
    if len(match["count"]) > 9 or not int(match["count"]):
        read.wrong(name, f"must be between 1 and {_MOST_REQUESTS:,} requests")
        return None
    return Ended(int(match["count"]))


OPTIONS: Final = (
    Option(
        "steps",
        "N,N,...",
        "numbers of users to run one after another, as 1,2,4,8 or 10..100:10; the run ends after the last",
        _numbers,
        in_page=False,
    ),
    Option(
        "step_time",
        "TIME",
        "how long each of --steps lasts, from when its users are there",
        seconds(),
        default="60s",
        in_page=False,
    ),
    Option(
        "warmup",
        "TIME",
        "settling time left out of the results, or requests, as 200r, that must have ended first; left out: 10 s or "
        "twice the median request",
        _settling,
    ),
)


def problems(options: Options) -> Iterator[str]:
    """What contradicts itself."""
    if options.step_time != Options().step_time and not options.steps:
        yield "--step-time is how long each of --steps lasts, and none are given; for example --steps 1,2,4,8"
    if options.steps and isinstance(options.warmup, float) and options.warmup >= options.step_time:
        yield (
            f"--warmup {options.warmup:g}s is left out of each step, so that of --step-time {options.step_time:g}s "
            "nothing would be measured"
        )
