"""Prompts that are made up: of a wanted length, with a beginning in common or with none. Seeded, but for what has to be
new in every run."""

from __future__ import annotations

import functools
import random
import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec import structs

from tokenswarm.protocols.base import Message
from tokenswarm.workload.lengths import Lengths
from tokenswarm.workload.prompts import Prompt
from tokenswarm.workload.tokenizer import Tokenizer
from tokenswarm.workload.writing import Writer

KEPT_BLOCKS: Final = 4096
"""Texts of a trace's blocks that are kept: ten megabytes of them."""
KEPT_TOKENS: Final = 2_000_000
"""Of a pool's prefixes: as much. Others are written again."""
BLOCK_TOKENS: Final = 512
"""Of a prompt that one id stands for, in Mooncake's traces."""
JOINT: Final = 2


def new_id() -> str:
    """What no other prompt begins with, in this run or any other: 64 random bits as 16 digits."""
    return secrets.token_hex(8)


class Synthetic:
    """An endless stream of prompts, each one message of a user.

    Together, workers 0 to `workers` − 1 ask what one process would ask; a worker with a higher number, which came
    later, has a stream of its own. `stream` sets user classes apart. `unique`: each begins with a `new_id`, and none is
    shorter than that.
    """

    def __init__(
        self,
        writer: Writer,
        lengths: Lengths,
        *,
        seed: int,
        worker: int,
        workers: int = 1,
        stream: str = "",
        unique: bool = False,
    ) -> None:
        shared = worker < workers
        self._writer = writer
        self._lengths = lengths
        self._stream = f"synthetic, seed {seed}{stream}" + ("" if shared else f", worker {worker}")
        self._next, self._step = (worker, workers) if shared else (0, 1)
        self._unique = unique

    def next(self) -> Prompt:
        """The next prompt. Raises WritingError where the tokenizer cannot make one of its length."""
        number, self._next = self._next, self._next + self._step
        source = random.Random(f"{self._stream}, prompt {number}")
        tokens = self._lengths.draw(source)
        start = new_id() if self._unique else ""
        if self._unique:
            tokens = max(tokens, self._writer.tokenizer.count(start))
        text = self._writer.text(tokens, source, start)
        return Prompt(f"synthetic-{number}", ({"role": "user", "content": text},), input_tokens=tokens)

    def close(self) -> None:
        """As `Source` has it."""


class Prefix(NamedTuple):
    """A system message of so many tokens, and how many of them are in common with other prompts."""

    text: str
    tokens: int
    shared: int


class Prefixes:
    """System messages of `tokens` tokens: with a chance of `share` one of a pool of `pool`, which is the same on all
    workers; else one that nobody has ever sent."""

    def __init__(
        self,
        writer: Writer,
        tokens: int,
        *,
        pool: int = 1,
        share: float = 1.0,
        seed: int,
        worker: int,
        stream: str = "",
    ) -> None:
        self._writer = writer
        self._tokens = tokens
        self._pool = pool
        self._share = share
        self._seed = seed
        self._pooled = functools.lru_cache(maxsize=max(1, KEPT_TOKENS // tokens))(self._write_pooled)
        self._random = random.Random(f"prefixes, seed {seed}{stream}, worker {worker}")

    def next(self) -> Prefix:
        """The next prompt's. Raises WritingError where the tokenizer cannot make one of that length."""
        if self._random.random() >= self._share:
            text = self._writer.text(self._tokens, self._random, new_id())
            return Prefix(text, self._tokens, 0)
        return Prefix(self._pooled(self._random.randrange(self._pool)), self._tokens, self._tokens)

    def _write_pooled(self, number: int) -> str:
        return self._writer.text(self._tokens, random.Random(f"prefix {number}, seed {self._seed}"))


class Replayed:
    """Prompts for the entries of a trace that has lengths and no texts. Where it has the ids of their blocks, prompts
    that begin with the same ids begin with the same text."""

    def __init__(self, writer: Writer, *, seed: int) -> None:
        self._writer = writer
        self._seed = seed
        self._block = functools.lru_cache(maxsize=KEPT_BLOCKS)(self._write_block)

    def prompt(self, line: int, tokens: int, blocks: Sequence[int] = (), start: str = "") -> Prompt:
        """Of this line, `tokens` long: the ids of its blocks, of which the last need not be full. The same on all
        workers, but for `start`, which comes before the rest. Raises WritingError where the tokenizer cannot do it."""
        end = f"block {blocks[-1]}" if blocks else f"line {line}"
        whole = blocks[: min(len(blocks) - 1, tokens // BLOCK_TOKENS)] if blocks else ()
        before = " ".join((*([start] if start else []), *map(self._block, whole)))
        text = self._writer.text(tokens, random.Random(f"end of {end}, seed {self._seed}"), before)
        return Prompt(str(line), ({"role": "user", "content": text},), input_tokens=tokens)

    def _write_block(self, block: int) -> str:
        # Somewhat less than a block, since what stands between two of them may be a token or two.
        return self._writer.text(BLOCK_TOKENS - JOINT, random.Random(f"block {block}, seed {self._seed}"))


def headed(prompt: Prompt, prefix: Prefix) -> Prompt:
    """With that before its messages, unless a system message of its own is there."""
    if prompt.messages[0]["role"] == "system":
        return prompt
    head: Message = {"role": "system", "content": prefix.text}
    total = None if prompt.input_tokens is None else prompt.input_tokens + prefix.tokens
    return structs.replace(prompt, messages=(head, *prompt.messages), input_tokens=total, prefix_tokens=prefix.shared)


def made_unique(prompt: Prompt, tokenizer: Tokenizer) -> Prompt:
    """With a `new_id` at the very beginning of its first message, which nothing before it can then be cached of."""
    first, *others = prompt.messages
    before = str(first["content"])
    after = f"{new_id()} {before}"
    total = prompt.input_tokens
    if total is not None:
        total += tokenizer.count(after) - tokenizer.count(before)
    changed: Message = {"role": first["role"], "content": after}
    return structs.replace(prompt, messages=(changed, *others), input_tokens=total, prefix_tokens=0)
