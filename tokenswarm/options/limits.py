"""Options on how long a request may take, and whether it is tried again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tokenswarm.options.entry import Option, flag, seconds, whole
from tokenswarm.options.values import Options
from tokenswarm.protocols import PROTOCOLS

_OF_STREAMS: Final = ("first_token_timeout", "stall_timeout")

OPTIONS: Final = (
    Option("request_timeout", "TIME", "longest a whole request may take", seconds(), default="300s"),
    Option("connect_timeout", "TIME", "longest that name lookup, connect and TLS may take", seconds(), default="10s"),
    Option(
        "first_token_timeout",
        "TIME",
        "longest to wait for the first output; left out: no limit of its own",
        seconds(),
    ),
    Option(
        "stall_timeout",
        "TIME",
        "longest pause between two pieces of output; left out: no limit of its own",
        seconds(),
    ),
    Option(
        "retries",
        "N",
        "how often a request that failed is tried again, after 0.5 s, 1 s, 2 s…",
        whole(0, 100),
        default="0",
    ),
)


def problems(options: Options) -> Iterator[str]:
    """What contradicts itself."""
    protocol = PROTOCOLS.get(options.protocol)
    if not options.stream or (protocol is not None and not protocol.streams):
        why = "--no-stream asks for none" if not options.stream else f"--protocol {options.protocol} has none"
        for name in _OF_STREAMS:
            if getattr(options, name) is not None:
                yield f"{flag(name)} needs a stream, and {why}; use --request-timeout"
    for name in _OF_STREAMS:
        limit = getattr(options, name)
        if limit is not None and limit > options.request_timeout:
            yield f"{flag(name)} {limit:g} s can never be reached: --request-timeout is {options.request_timeout:g} s"
