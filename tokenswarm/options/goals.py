"""Options on what a run should reach, the search for how much load that allows, and what the exit status says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from tokenswarm.errors import OptionError
from tokenswarm.options.entry import Option, Read, Reader, flag, on, one_of
from tokenswarm.options.values import Ended, Options
from tokenswarm.slo import GOODPUT_EXAMPLE, SLO_EXAMPLE, parse_goodput, parse_slo

_FAIL_ON: Final = ("degraded", "invalid", "errors", "slo")


def _text_for(parse: Callable[[str], Any]) -> Read:
    """A text that can be parsed. It is kept as it is: results read it out of run.json."""

    def read_text(read: Reader, name: str) -> str | None:
        given = read.text(name)
        if given is not None:
            try:
                parse(given)
            except OptionError as error:
                read.problems.append(str(error))
                read.unread.add(flag(name))
                return None
        return given

    return read_text


OPTIONS: Final = (
    Option("slo", "'GOAL …'", f"goals of the run, as in '{SLO_EXAMPLE}'", _text_for(parse_slo)),
    Option(
        "goodput",
        "'LIMIT …'",
        f"limits on each request, as in '{GOODPUT_EXAMPLE}': how many a second keep to all of them",
        _text_for(parse_goodput),
    ),
    Option(
        "find_capacity",
        "",
        "search for the most users, up to --users, at which --slo is met; --run-time limits the search",
        on,
        False,
    ),
    Option(
        "fail_on",
        "|".join(_FAIL_ON),
        "exit with status 3 if the run's verdict or its errors are this bad, or its goals were missed",
        one_of(*_FAIL_ON),
    ),
)


def problems(options: Options) -> Iterator[str]:
    """What contradicts itself."""
    if options.find_capacity and options.slo is None:
        yield f"--find-capacity needs --slo: which goals should the load keep? For example --slo '{SLO_EXAMPLE}'"
    if options.find_capacity and isinstance(options.warmup, Ended):
        yield "--find-capacity: each level settles for a time, not for requests; write --warmup 10s, or leave it out"
