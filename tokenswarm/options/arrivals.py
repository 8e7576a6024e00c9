"""Options on when tasks begin: replies awaited or not, at which rate, how long users think."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from tokenswarm.load import arrivals, think_time
from tokenswarm.options.entry import Option, Read, Reader, file_there, flag, number, whole
from tokenswarm.options.values import Options


def _that(parse: Callable[[str], Any]) -> Read:
    """Text that can be parsed by this."""

    def read_that(read: Reader, name: str) -> str | None:
        given = read.text(name)
        if given is None:
            return None
        try:
            parse(given)
        except ValueError as error:
            read.wrong(name, str(error))
            return None
        return given

    return read_that


def _arrivals(read: Reader, name: str) -> str | None:
    given: str | None = _that(arrivals.parse)(read, name)
    if given is not None and (trace := arrivals.parse(given).trace):
        file_there(read, name, trace)
    return given


OPTIONS: Final = (
    Option(
        "arrivals",
        "KIND",
        "closed: a user waits for its reply; open loop: poisson, constant, gamma:CV (CV > 1 is bursty) or trace:FILE",
        _arrivals,
        default="closed",
    ),
    Option("rate_per_user", "X", "open loop: tasks a second that each user begins", number(1e-6, 1e6), default="1"),
    Option(
        "time_scale", "X", "replay a trace so many times as fast: 2 is half the time", number(1e-6, 1e6), default="1"
    ),
    Option(
        "max_in_flight",
        "N",
        "open loop: most tasks open at once, over all workers; what is due beyond gets a row as shed, and is not sent",
        whole(1, 10_000_000),
    ),
    Option(
        "think_time",
        "TIME",
        "time between tasks of the closed loop and turns of conversations, in place of the classes' own wait_time: 2s, "
        "uniform:1-5s, exponential:2s",
        _that(think_time.parse),
    ),
)


def problems(options: Options) -> Iterator[str]:
    """What contradicts itself."""
    kind = arrivals.parse(options.arrivals)
    if not kind.open:
        for name, usual in (("max_in_flight", None), ("rate_per_user", 1.0)):
            if getattr(options, name) != usual:
                yield f"{flag(name)} is of the open loop, and --arrivals is closed; try --arrivals poisson"
    elif kind.trace and options.rate_per_user != 1.0:
        yield "--rate-per-user: a trace has its own times; replay it faster by --time-scale"
    if not kind.trace and options.time_scale != 1.0:
        yield "--time-scale is of a trace, and --arrivals names none; try --arrivals trace:FILE"
