"""How much a run may still send: requests, and tokens that are set aside before they are spent. Counts; waits for
nothing.

What a request may cost is set aside when it is taken, and put right when its reply has ended. Its output is at most
what it asks for (max_tokens); where it names no limit, the mean of the replies so far. Its input is its size in bytes
times the most tokens a byte that any prompt turned out to have: one, until the server has told some, since no token is
less than a byte. So a budget is never overdrawn where max_tokens is known and prompts are alike; else by no more than
the replies in flight differ from the mean.
"""

from __future__ import annotations

from typing import Final

import msgspec

REQUESTS: Final = "requests"
TOKEN_BUDGET: Final = "token_budget"

UNKNOWN_OUTPUT: Final = 4096
"""Tokens set aside for a reply as long as nothing is known of any: a small budget then begins with few at once."""


class Reserved(msgspec.Struct, frozen=True):
    """What is set aside for one request, in tokens."""

    input: int
    output: int
    size: int
    """Of its prompt, in bytes."""

    @property
    def tokens(self) -> int:
        """Of both together."""
        return self.input + self.output


def deal(total: int, seat: int, seats: int) -> int:
    """Whose seat it is gets so many of the total; who came later than all seats were given out gets none."""
    return total // seats + (seat < total % seats) if seat < seats else 0


class Allowance:
    """`take` before a request, `settle` after its last attempt. None: no limit of that kind."""

    def __init__(self, requests: int | None = None, tokens: int | None = None) -> None:
        self.open = 0
        """Requests taken and not settled."""
        self.spent = 0
        """Tokens of those that are settled."""
        self.over = ""
        """Why nothing more will ever be given: `requests` or `token_budget`; empty while something may."""
        self.short = False
        """Whether a request had to wait for tokens that others may not need, in a run that knows what replies cost."""
        self._requests = requests
        self._tokens = tokens
        self._set_aside = 0
        self._tokens_a_byte = 0.0
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
        if self._tokens is not None and self.spent + self._set_aside + reserved.tokens > self._tokens:
            if self.open == 0:
                self.over = TOKEN_BUDGET
            self.short = self.short or most_output is not None or self._replies > 0
            return None
        self.open += 1
        self._set_aside += reserved.tokens
        if self._requests is not None:
            self._requests -= 1
            if self._requests == 0:
                self.over = REQUESTS
        return reserved

    def settle(self, reserved: Reserved, input_tokens: int | None, output_tokens: int | None) -> None:
        """The request has ended and cost so much. None: nobody told, so what was set aside is spent."""
        self.open -= 1
        self._set_aside -= reserved.tokens
        if input_tokens is not None:
            self._tokens_a_byte = max(self._tokens_a_byte, input_tokens / max(1, reserved.size))
        if output_tokens is not None:
            self._replies += 1
            self._output += output_tokens
        self.spent += reserved.input if input_tokens is None else input_tokens
        self.spent += reserved.output if output_tokens is None else output_tokens

    def refund(self, reserved: Reserved) -> None:
        """The request has ended and cost nothing: it never came to the model."""
        self.open -= 1
        self._set_aside -= reserved.tokens

    def _cost(self, size: int, most_output: int | None) -> Reserved:
        if self._tokens is None:
            return Reserved(0, 0, size)
        into = round(size * self._tokens_a_byte) if self._tokens_a_byte else size
        if most_output is not None:
            return Reserved(into, most_output, size)
        if self._replies:
            return Reserved(into, round(self._output / self._replies), size)
        left = self._tokens - self.spent - self._set_aside - into
        # The first of all may have whatever there is: else a budget below our guess would buy nothing.
        return Reserved(into, min(UNKNOWN_OUTPUT, max(1, left)) if self.open == 0 else UNKNOWN_OUTPUT, size)
