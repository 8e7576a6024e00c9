"""Options on prompts that are made up, and on what is asked of the model: lengths, beginnings, sampling, the seed."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from typing import Final

from tokenswarm.errors import OptionError
from tokenswarm.options.entry import Option, Reader, number, on, text, whole
from tokenswarm.options.values import Options, PrefixPool
from tokenswarm.protocols import PROTOCOLS
from tokenswarm.workload import lengths as distributions
from tokenswarm.workload.tokenizer import INSTALL, tokenizer_file

MOST_PREFIXES: Final = 100_000
_POOL: Final = re.compile(r"(\d{1,7})(?::(\d{1,3}(?:\.\d+)?)\s*(%)?)?")


def lengths(read: Reader, name: str) -> distributions.Lengths | None:
    """A distribution of lengths."""
    given = read.text(name)
    if given is None:
        return None
    try:
        return distributions.parse(given)
    except ValueError as error:
        read.wrong(name, str(error))
        return None


def tokenizer(read: Reader, name: str) -> str | None:
    """A tokenizer that is there, and the package that reads it, where requests are made."""
    given = read.text(name)
    if given is None or not read.here:
        return given
    try:
        tokenizer_file(given)
    except OptionError as error:
        read.wrong(name, str(error))
    if importlib.util.find_spec("tokenizers") is None:
        read.wrong(name, f"needs the package tokenizers, which is not installed: {INSTALL}")
    return given


def prefix_pool(read: Reader, name: str) -> PrefixPool | None:
    """`20`, `20:80%` or `20:0.8`."""
    given = read.text(name)
    if given is None:
        return None
    match = _POOL.fullmatch(given)
    count = int(match[1]) if match else 0
    share = float(match[2]) / (100 if match[3] else 1) if match and match[2] else 1.0
    if 1 <= count <= MOST_PREFIXES and 0 <= share <= 1:
        return PrefixPool(count, share)
    read.wrong(
        name,
        f"write how many prefixes there are (1 to {MOST_PREFIXES:,}) and the share of prompts that has one of them, as "
        "in 20 or 20:80%",
    )
    return None


OPTIONS: Final = (
    Option("system_prompt", "TEXT", "system message put before each prompt that has none", text),
    Option(
        "tokenizer",
        "FILE",
        "the model's tokenizer.json, or the directory that holds it; left out: lengths in tokens are estimates",
        tokenizer,
    ),
    Option(
        "input_tokens",
        "LENGTHS",
        "made-up prompts of so many tokens, in place of questions: 512, uniform:128-1024, normal:512,64, "
        "lognormal:512,400 (mean and deviation in tokens), and mixtures of these",
        lengths,
    ),
    Option(
        "shared_prefix_tokens",
        "N",
        "made-up system message of so many tokens before each prompt, the same for all: what a prefix cache can save",
        whole(1, distributions.MOST),
    ),
    Option(
        "prefix_pool",
        "COUNT[:SHARE]",
        "that message is one of COUNT, for this share of the prompts (20:0.8); the others get one that is new",
        prefix_pool,
    ),
    Option(
        "unique_prompts",
        "",
        "begin each prompt with an id that no other has, so that no prefix cache helps",
        on,
        default=False,
    ),
    Option(
        "output_tokens",
        "LENGTHS",
        "most output tokens to ask for (max_tokens), written as for --input-tokens; left out: the server's own default",
        lengths,
    ),
    Option(
        "ignore_eos",
        "",
        "have the server go on to the asked length (ignore_eos and min_tokens, as vLLM, SGLang and others know them)",
        on,
        default=False,
    ),
    Option("temperature", "X", "sampling temperature; left out: the server's own default", number(0, 100)),
    Option("top_p", "X", "nucleus sampling; left out: the server's own default", number(0, 1)),
    Option("seed", "N", "seed of everything random on our side", whole(0, 2**63), default="0"),
)


def problems(options: Options) -> Iterator[str]:
    """What contradicts itself."""
    if options.output_tokens is not None and "max_tokens" in options.extra_body:
        yield "--output-tokens and max_tokens in --extra-body ask for two different things: give one of them"
    if options.dataset is not None and options.input_tokens is not None:
        yield "--dataset and --input-tokens contradict each other: prompts are taken from a file or made up"
    if options.shared_prefix_tokens is None:
        if options.prefix_pool != PrefixPool():
            yield "--prefix-pool needs --shared-prefix-tokens: how long its prefixes are"
    elif options.system_prompt is not None:
        yield "--shared-prefix-tokens and --system-prompt are both the system message: give one of them"
    elif options.unique_prompts:
        yield (
            "--shared-prefix-tokens and --unique-prompts contradict each other: a prompt has a beginning in common "
            "with others, or its own"
        )
    if options.ignore_eos and options.protocol in PROTOCOLS and not PROTOCOLS[options.protocol].ignores_eos:
        able = ", ".join(name for name, protocol in PROTOCOLS.items() if protocol.ignores_eos)
        yield f"--ignore-eos: --protocol {options.protocol} has no such setting; these have: {able}"
