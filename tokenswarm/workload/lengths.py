"""How many tokens: lengths of prompts and replies as distributions, written as text. Draws nothing by itself.

`512`, `fixed:4000`, `uniform:128-1024` (both ends can come), `normal:512,64` and `lognormal:512,400` (mean and standard
deviation, both in tokens), each of these with bounds after it, `lognormal:512,400,16-4096`; and mixtures of them,
`70% uniform:100-500, 30% fixed:4000`.
"""

from __future__ import annotations

import math
import random
import re
from typing import Final

import msgspec

MOST: Final = 10_000_000
EXAMPLES: Final = "512, uniform:128-1024, normal:512,64, lognormal:512,400 or 70% uniform:100-500, 30% fixed:4000"
LEAST_SPREAD: Final = 0.02
"""A lognormal of so little spread is no use to anybody: whoever writes it means the logarithm's."""

_SHARE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")
_NEXT_SHARE: Final = re.compile(r",(?=\s*\d+(?:\.\d+)?\s*%)")
_RANGE: Final = re.compile(r"(\d+)\s*-\s*(\d+)")


class Part(msgspec.Struct, frozen=True):
    """One distribution of a mixture, in tokens. What is drawn outside the bounds counts as the bound."""

    share: float
    """Of all draws, 0 to 1."""
    kind: str
    first: float
    """fixed: the length; uniform: the lowest; normal and lognormal: the mean."""
    second: float = 0.0
    """uniform: the highest; normal and lognormal: the standard deviation."""
    low: int = 1
    high: int = MOST

    def draw(self, source: random.Random) -> int:
        """A length."""
        if self.kind == "fixed":
            return int(self.first)
        if self.kind == "uniform":
            return source.randint(int(self.first), int(self.second))
        if self.kind == "normal":
            found = source.normalvariate(self.first, self.second)
        else:
            variance = math.log1p((self.second / self.first) ** 2)
            found = source.lognormvariate(math.log(self.first) - variance / 2, math.sqrt(variance))
        return min(max(round(found), self.low), self.high)

    @property
    def least(self) -> int:
        """The shortest that is asked for: of a normal or lognormal its bound, and without one its mean, as the tail of
        the shortest is nobody's wish."""
        return int(self.first) if self.kind in ("fixed", "uniform") or self.low == 1 else self.low


class Lengths:
    """A distribution of lengths; its text is the one that it was written as."""

    __slots__ = ("parts", "text")

    def __init__(self, text: str, parts: tuple[Part, ...]) -> None:
        self.text = text
        self.parts = parts

    def draw(self, source: random.Random) -> int:
        """A length, 1 to `MOST`."""
        if len(self.parts) == 1:
            return self.parts[0].draw(source)
        (chosen,) = source.choices(self.parts, weights=[part.share for part in self.parts])
        return chosen.draw(source)

    @property
    def least(self) -> int:
        """The shortest that is asked for."""
        return min(part.least for part in self.parts)

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lengths) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)


def parse(text: str) -> Lengths:
    """Raises ValueError that says what is wrong, and shows how it is written."""
    try:
        return Lengths(text.strip(), tuple(_mixture(text)))
    except ValueError as error:
        raise ValueError(f"{error}; write {EXAMPLES}") from None


def _mixture(text: str) -> list[Part]:
    pieces = _NEXT_SHARE.split(text)
    shares = [_SHARE.match(piece) for piece in pieces]
    if len(pieces) == 1 and shares[0] is None:
        return [_part(text, 1.0)]
    parts = []
    for piece, share in zip(pieces, shares, strict=True):
        if share is None:
            raise ValueError(f"{piece.strip()!r} has no share before it, as in 70% {piece.strip()}")
        parts.append(_part(piece[share.end() :], float(share[1]) / 100))
    total = sum(part.share for part in parts)
    if abs(total - 1) > 1e-6:
        raise ValueError(f"the shares add up to {total * 100:g} %, not to 100 %")
    return parts


def _part(text: str, share: float) -> Part:
    kind, colon, values = (word.strip() for word in text.strip().partition(":"))
    if not colon:
        kind, values = "fixed", kind
    if kind == "fixed":
        return Part(share, kind, _length(values))
    if kind == "uniform":
        low, high = _range(values, "uniform")
        return Part(share, kind, low, high)
    if kind not in ("normal", "lognormal"):
        raise ValueError(f"{kind!r} is no distribution of lengths: there are fixed, uniform, normal and lognormal")
    words = [word.strip() for word in values.split(",")]
    if len(words) not in (2, 3):
        raise ValueError(f"{kind} takes a mean and a standard deviation in tokens, as in {kind}:512,200")
    mean, deviation = _number(words[0]), _number(words[1])
    if not 1 <= mean <= MOST:
        raise ValueError(f"a mean of {mean:g}: it must be between 1 and {MOST:,} tokens")
    if kind == "lognormal" and 0 < deviation < LEAST_SPREAD * mean:
        raise ValueError(_meant_the_logarithm(mean, deviation))
    low, high = _range(words[2], "the bounds") if len(words) == 3 else (1, MOST)
    if not low <= mean <= high:
        raise ValueError(f"the mean, {mean:g}, is outside the bounds, {low}-{high}")
    return Part(share, kind, mean, deviation, low, high)


def _meant_the_logarithm(median: float, sigma: float) -> str:
    """Other tools take the median, and the standard deviation of the logarithm."""
    said = f"lognormal:{median:g},{sigma:g}: the standard deviation is in tokens, and {sigma:g} of them is hardly any"
    if sigma > 3:
        return said
    mean = median * math.exp(sigma**2 / 2)
    deviation = mean * math.sqrt(math.expm1(sigma**2))
    meant = f"lognormal:{mean:.0f},{deviation:.0f}"
    return f"{said}; a median of {median:g} with {sigma:g} as that of the logarithm is {meant}"


def _range(text: str, what: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{what}: {text.strip()!r} is not two lengths, as in 128-1024")
    low, high = _length(match[1]), _length(match[2])
    if low > high:
        raise ValueError(f"{what}: {low}-{high} begins above its end; {high}-{low}?")
    return low, high


def _length(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise ValueError(f"{text!r} is not a whole number of tokens" if text else "no number of tokens is given")
    if not 1 <= int(text[:20]) <= MOST:
        raise ValueError(f"{text}: it must be between 1 and {MOST:,} tokens")
    return int(text)


def _number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found <= MOST:
        raise ValueError(f"{text!r} is not a number of tokens, 0 to {MOST:,}")
    return found
