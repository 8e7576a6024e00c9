"""Texts of so many tokens: words of the bundled questions in random order, counted by a tokenizer until they fit."""

from __future__ import annotations

import random
import re
import string
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final

from tokenswarm.errors import WritingError
from tokenswarm.protocols.values import BYTES_PER_TOKEN
from tokenswarm.workload.prompts import bundled_questions
from tokenswarm.workload.tokenizer import Tokenizer

DRAFTS: Final = 32
"""Texts begun before it is given up."""
CORRECTIONS: Final = 12
"""Of one draft, until another one is begun."""
_WORD: Final = re.compile(r"(?<![\w'-])[A-Za-z]{2,14}(?![\w'-])")
_LETTERS: Final = (*string.ascii_letters, *string.digits, ".", ",", "?", "!")


class Writer:
    """Writes texts of an exact number of tokens, or of an estimated one where the tokenizer estimates.

    Each text is counted as a whole before it is given out. Takes about as long as that: 1 to 5 µs a token.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises WritingError where the tokenizer makes nothing of English text."""
        self.tokenizer = tokenizer
        words = vocabulary()
        base = words[0]
        first = dict(zip(words, tokenizer.counts(words), strict=True))
        (before,) = tokenizer.counts([base])
        after = tokenizer.counts([f"{base} {word}" for word in words])
        costs = {f" {word}": count - before for word, count in zip(words, after, strict=True)}
        self._costs: Mapping[str, int] = {piece: cost for piece, cost in costs.items() if cost > 0}
        self._first = [word for word in words if first[word] > 0]
        self._first_costs = first
        if not self._costs or not self._first:
            raise WritingError("--tokenizer: it makes no tokens of English words, so no prompt can be written by it")
        self._pieces = list(self._costs)
        self._mean = sum(self._costs.values()) / len(self._costs)
        self._single = [piece for piece, cost in self._costs.items() if cost == 1]
        if not self._single:  # as where each letter or byte is a token
            more = tokenizer.counts([base + letter for letter in _LETTERS])
            self._single = [letter for letter, count in zip(_LETTERS, more, strict=True) if count == before + 1]
        alone = tokenizer.counts(_LETTERS)
        self._shortest = [letter for letter, count in zip(_LETTERS, alone, strict=True) if count == 1] or [
            min(self._first, key=first.__getitem__)
        ]

    def text(self, tokens: int, source: random.Random, start: str = "") -> str:
        """A text of that many tokens that begins with `start`. Raises WritingError where there can be none."""
        if not self.tokenizer.exact:
            return self._estimated(tokens, source, start)
        for _ in range(DRAFTS):
            draft = self._draft(tokens, source, start)
            for _ in range(CORRECTIONS):
                found = "".join(draft)
                missing = tokens - self.tokenizer.count(found)
                if missing == 0:
                    return found
                if not self._correct(draft, missing, source, bool(start)):
                    break
        raise WritingError(
            f"--tokenizer: no text of exactly {tokens:,} tokens was found"
            + (f" that begins with {start!r}" if start else "")
            + "; ask for more of them"
        )

    def _draft(self, tokens: int, source: random.Random, start: str) -> list[str]:
        """Pieces that should be about right, the start or the first word before them."""
        if start:
            head, cost = start, self.tokenizer.count(start)
        else:
            word = source.choice(self._first)
            head = word if self._first_costs[word] <= tokens else source.choice(self._shortest)
            cost = self._first_costs.get(head, 1)
        room = tokens - cost
        if room <= 0:
            return [head]
        pieces = source.choices(self._pieces, k=int(room / self._mean * 1.2) + 16)
        totals = list(accumulate(map(self._costs.__getitem__, pieces)))
        fitting = bisect_right(totals, room)
        left = room - (totals[fitting - 1] if fitting else 0)
        return [head, *pieces[:fitting], *(source.choices(self._single, k=left) if self._single else ())]

    def _correct(self, draft: list[str], missing: int, source: random.Random, started: bool) -> bool:
        """Add what is missing, or take away what is too much. False if that cannot be done."""
        while missing < 0 and len(draft) > 1:
            missing += self._costs.get(draft.pop(), 1)
        if missing < 0 and not started:
            draft[0] = source.choice(self._first if len(self._shortest) == 1 else self._shortest)
            return True
        if missing > 0 and self._single:
            draft += source.choices(self._single, k=missing)
            return True
        return missing == 0

    def _estimated(self, tokens: int, source: random.Random, start: str) -> str:
        characters = tokens * BYTES_PER_TOKEN
        if len(start) > characters:
            raise WritingError(f"{tokens:,} tokens are too few for a text that begins with {start!r}; ask for more")
        text = start or source.choice(self._first)
        while len(text) < characters:
            text += "".join(source.choices(self._pieces, k=(characters - len(text)) // 5 + 1))
        # Cut to length inside a word, which a model minds as little as the rest of it.
        text = text[:characters]
        return text[:-1] + "." if text.endswith(" ") else text


def vocabulary() -> Sequence[str]:
    """Different English words of the bundled questions, in their order."""
    words: dict[str, None] = {}
    for question in bundled_questions():
        if question.language == "en":
            words.update(dict.fromkeys(_WORD.findall(question.prompt)))
    return list(words)
