"""How much a run may still send: requests, and tokens that are set aside before they are spent. Counts; waits for
nothing.

What a request may cost is set aside when it is taken, and put right when its reply has ended. Its input costs at most
its bytes, since no token is less than a byte; its output what it asks for at most (max_tokens), or, where it names no
limit, the mean of the replies so far. So a budget is never overdrawn where max_tokens is known, and else by no more
than the replies in flight together differ from the mean. Bytes are far more than tokens: what does not fit by them has
to wait until it is alone, and may then cost twice as much a byte as the dearest prompt so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from tokenswarm.ending import REQUESTS, TOKEN_BUDGET
from tokenswarm.record import FAILED, OK, SHED, RequestRecord

MARGIN: Final = 2.0
UNKNOWN_OUTPUT: Final = 4096
"""Tokens set aside for a reply as long as nothing is known of any: a small budget then begins with few at once."""


class Reserved(msgspec.Struct, frozen=True):
    """What is set aside for one request, in tokens."""

    input: int
    output: int
    size: int = 0
    """Of the prompt, in bytes."""

    @property
    def tokens(self) -> int:
        """Of both together."""
        return self.input + self.output


def deal(total: int, seat: int, seats: int) -> int:
    """Whose seat it is gets so many of the total; who came later than all seats were given out gets none."""
    return total // seats + (seat < total % seats) if seat < seats else 0


def cost(attempts: Sequence[RequestRecord]) -> tuple[int | None, int | None] | None:
    """(input, output) tokens of a request that has ended, all attempts together; None for what nobody told, and None
    altogether where it never came to the model. What was given up or broke off is paid for as far as it came."""
    paid = [r for r in attempts if r.output_tokens is not None or r.status not in (FAILED, SHED)]
    if not paid:
        return None
    output = [0 if r.output_tokens is None and (r.status != OK or r.inputs) else r.output_tokens for r in paid]
    return _total([r.input_tokens for r in paid]), _total(output)


def _total(tokens: Sequence[int | None]) -> int | None:
    known = [count for count in tokens if count is not None]
    return sum(known) if len(known) == len(tokens) else None


class Allowance:
    """`take` before a request, `settle` after its last attempt. None: no limit of that kind."""

    def __init__(self, requests: int | None = None, tokens: int | None = None) -> None:
        self.open = 0
        """Requests taken and not settled."""
        self.spent = 0
        """Tokens of those that are settled."""
        self.over = ""
        """Why nothing more will ever be given: `requests` or `token_budget`; empty while something may."""
        self.needed = 0
        """Tokens that the last refused request may have cost."""
        self.short = False
        """Whether a request had to wait for tokens that others may not need, in a run that knows what replies cost."""
        self._requests = requests
        self._tokens = tokens
        self._set_aside = 0
        self._told_tokens = 0
        self._told_bytes = 0
        self._dearest = 0.0
        self._replies = 0
        self._output = 0
        if requests is not None and requests <= 0:
            self.over = REQUESTS
        elif tokens is not None and tokens <= 0:
            self.over = TOKEN_BUDGET

    @property
    def counts_tokens(self) -> bool:
        """Whether it matters how large a request is."""
        return self._tokens is not None

    def take(self, size: int = 0, most_output: int | None = None) -> Reserved | None:
        """One more request, its prompt of `size` bytes and its reply of at most so many tokens. None: not now, and if
        `over` not ever."""
        if self.over:
            return None
        reserved = self._cost(size, most_output)
        if not self._fits(reserved) and self.open == 0:
            dearest = math.ceil(MARGIN * self._dearest * size) or size
            reserved = msgspec.structs.replace(reserved, input=min(size, dearest))
        if not self._fits(reserved):
            self.needed = reserved.tokens
            if self.open == 0:
                self.over = TOKEN_BUDGET
            self.short = self.short or most_output is not None or self._replies > 0
            return None
        self.open += 1
        self._set_aside += reserved.tokens
        self._count()
        return reserved

    def shed(self) -> None:
        """A request that was due is not sent; it counts as one, and costs nothing."""
        if not self.over:
            self._count()

    def _count(self) -> None:
        if self._requests is not None:
            self._requests -= 1
            if self._requests == 0:
                self.over = REQUESTS

    def settle(self, reserved: Reserved, input_tokens: int | None, output_tokens: int | None) -> None:
        """The request has ended and cost so much. None: nobody told, so a prompt counts as what others of its size
        turned out to cost, and a reply as what was set aside."""
        self.refund(reserved)
        if input_tokens is None:
            input_tokens = (
                round(reserved.size * self._told_tokens / self._told_bytes) if self._told_bytes else reserved.input
            )
        else:
            self._told_tokens += input_tokens
            self._told_bytes += reserved.size
            self._dearest = max(self._dearest, input_tokens / max(1, reserved.size))
        if output_tokens is None:
            output_tokens = reserved.output
        else:
            self._replies += 1
            self._output += output_tokens
        self.spent += input_tokens + output_tokens

    def refund(self, reserved: Reserved) -> None:
        """The request has ended and cost nothing: it never came to the model."""
        self.open -= 1
        self._set_aside -= reserved.tokens

    def _fits(self, reserved: Reserved) -> bool:
        return self._tokens is None or self.spent + self._set_aside + reserved.tokens <= self._tokens

    def _cost(self, size: int, most_output: int | None) -> Reserved:
        if self._tokens is None:
            return Reserved(0, 0)
        if most_output is not None:
            return Reserved(size, most_output, size)
        if self._replies:
            return Reserved(size, round(self._output / self._replies), size)
        left = self._tokens - self.spent - self._set_aside - size
        # The first of all may have whatever there is: else a budget below our guess would buy nothing.
        return Reserved(size, min(UNKNOWN_OUTPUT, max(1, left)) if self.open == 0 else UNKNOWN_OUTPUT, size)
