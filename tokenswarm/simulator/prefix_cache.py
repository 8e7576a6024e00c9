"""A prefix cache: which beginnings of prompts need not be computed again. Blocks of so many tokens, each good only
after the same blocks before it; the least recently used ones go first.

It saves prefill time and nothing else: the KV cache's slots are counted as if nothing were in common.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from tokenswarm.simulator.text import estimate_tokens

BLOCK_CHARACTERS = 64
"""16 tokens of English, by the simulator's own estimate."""


def blocks(texts: Iterable[str]) -> list[tuple[int, int]]:
    """The whole blocks of a prompt: what each is known by, which is made of all before it too, and its tokens."""
    text = "\0".join(texts)
    known, found = 0, []
    for start in range(0, len(text) - BLOCK_CHARACTERS + 1, BLOCK_CHARACTERS):
        piece = text[start : start + BLOCK_CHARACTERS]
        known = hash((known, piece))
        found.append((known, estimate_tokens([piece])))
    return found


class PrefixCache:
    """Room for so many tokens."""

    def __init__(self, tokens: int) -> None:
        self._room = tokens
        self._blocks: OrderedDict[int, int] = OrderedDict()

    def take(self, prompt: list[tuple[int, int]]) -> int:
        """The tokens at a prompt's beginning that are there. All of the prompt is there from now on."""
        cached, missed = 0, False
        for known, tokens in prompt:
            missed = missed or known not in self._blocks
            if missed:
                self._room -= 0 if known in self._blocks else tokens
                self._blocks[known] = tokens
            else:
                cached += tokens
        for known, _ in reversed(prompt):  # the first is needed by the most prompts
            self._blocks.move_to_end(known)
        while self._room < 0:
            self._room += self._blocks.popitem(last=False)[1]
        return cached
