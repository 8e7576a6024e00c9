"""Options on what is asked of the model: lengths, sampling, the seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tokenswarm.options.entry import Option, number, text, whole
from tokenswarm.options.values import Options

OPTIONS: Final = (
    Option("system_prompt", "TEXT", "system message put before each prompt that has none", text),
    Option(
        "output_tokens",
        "N",
        "most output tokens to ask for (max_tokens); left out: the server's own default",
        whole(1, 10_000_000),
    ),
    Option("temperature", "X", "sampling temperature; left out: the server's own default", number(0, 100)),
    Option("top_p", "X", "nucleus sampling; left out: the server's own default", number(0, 1)),
    Option("seed", "N", "seed of everything random on our side", whole(0, 2**63), default="0"),
)


def problems(options: Options) -> Iterator[str]:
    """What contradicts itself."""
    if options.output_tokens is not None and "max_tokens" in options.extra_body:
        yield "--output-tokens and max_tokens in --extra-body ask for two different things: give one of them"
