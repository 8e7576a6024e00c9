"""Options on users who leave before their reply has ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tokenswarm.load.leaving import After
from tokenswarm.options.entry import Option, Reader, duration, number, seconds
from tokenswarm.options.values import Options
from tokenswarm.protocols import PROTOCOLS

_TOKENS: Final = re.compile(r"(\d{1,9})(?:-(\d{1,9}))? ?t(?:ok(?:ens?)?)?", re.ASCII)
_SAID: Final = "write a time (2s), tokens (20t), or a range of either (2s-8s, 10-50t)"


def after(given: str) -> After:
    """What `2s`, `20t`, `20tokens`, `2s-8s` or `10-50t` says. Raises ValueError, which says what is wrong."""
    if match := _TOKENS.fullmatch(given):
        low, high = int(match[1]), int(match[2] or match[1])
        found = After(low, high, tokens=True)
    else:
        times = [duration(part) for part in given.split("-")]
        if len(times) > 2 or None in times:
            raise ValueError(f"neither a time nor a number of tokens; {_SAID}")
        known = [time for time in times if time is not None]
        found = After(known[0], known[-1])
    if found.low <= 0:
        raise ValueError("must be more than 0")
    if found.high < found.low:
        raise ValueError("the range ends before it begins")
    return found


def _after(read: Reader, name: str) -> After | None:
    given = read.text(name)
    try:
        return None if given is None else after(given)
    except ValueError as error:
        read.wrong(name, str(error))
        return None


OPTIONS: Final = (
    Option(
        "cancel_rate",
        "X",
        "share of the requests, 0 to 1, whose users leave in mid-reply: at --cancel-after, by --seed",
        number(0, 1),
    ),
    Option(
        "cancel_after",
        "TIME|Nt",
        "when they leave: 2s after the start, or with the 20th token, 20t (chunks, as they arrive); 2s-8s, 10-50t: "
        "drawn evenly",
        _after,
    ),
    Option(
        "patience",
        "TIME",
        "users leave when no output has come for so long; left out: they wait as long as the time limits let them",
        seconds(),
    ),
)


def problems(options: Options) -> Iterator[str]:
    """What contradicts itself."""
    if options.cancel_rate and options.cancel_after is None:
        yield "--cancel-rate needs --cancel-after: when do they leave? 2s, or 20t"
    if options.cancel_after is not None and options.cancel_rate is None:
        yield "--cancel-after needs --cancel-rate, the share of requests that are given up: 1 is all of them"
    protocol = PROTOCOLS.get(options.protocol)
    if not options.stream or (protocol is not None and not protocol.streams):
        why = "--no-stream asks for none" if not options.stream else f"--protocol {options.protocol} has none"
        if options.patience is not None:
            yield f"--patience needs a stream, and {why}; use --cancel-after with a time"
        if options.cancel_after is not None and options.cancel_after.tokens:
            yield f"--cancel-after with tokens needs a stream, and {why}; use a time"
    leaves, most = options.cancel_after, options.request_timeout
    if leaves is not None and not leaves.tokens and leaves.low >= most:
        yield f"--cancel-after {leaves.low:g} s can never be reached: --request-timeout is {most:g} s"
    limits = {"--request-timeout": options.request_timeout, "--first-token-timeout": options.first_token_timeout}
    for name, limit in limits.items():
        if options.patience is not None and limit is not None and options.patience >= limit:
            yield f"--patience {options.patience:g} s can never be reached: {name} is {limit:g} s"
