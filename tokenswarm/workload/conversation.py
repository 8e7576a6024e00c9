"""What a conversation over turns has said so far, and how much of it goes along with the next turn. Sends nothing."""

from __future__ import annotations

from collections.abc import Sequence

from tokenswarm.protocols.base import Message
from tokenswarm.protocols.values import estimated_tokens


class History:
    """Messages so far, oldest first: a system message that always stays, then turns of question and answer.

    `turns` and `tokens` limit what goes along: the latest turns, whole ones, that are no more than that. Tokens are
    estimated.
    """

    def __init__(self, system: str | None = None, *, turns: int | None = None, tokens: int | None = None) -> None:
        """Raises ValueError on a limit below 0."""
        if (turns is not None and turns < 0) or (tokens is not None and tokens < 0):
            raise ValueError("a history of less than nothing")
        self._system: list[Message] = [{"role": "system", "content": system}] if system else []
        self._turns: list[list[Message]] = []
        self._most_turns = turns
        self._most_tokens = tokens

    def messages(self, prompt: str | Sequence[Message]) -> list[Message]:
        """What to send for the next turn: a user's text, or the messages that it adds."""
        kept: list[Message] = []
        tokens = 0
        first = 0 if self._most_turns is None else max(0, len(self._turns) - self._most_turns)
        for turn in reversed(self._turns[first:]):
            tokens += sum(estimated_tokens(str(message["content"])) for message in turn)
            if self._most_tokens is not None and tokens > self._most_tokens:
                break
            kept[:0] = turn
        return [*self._system, *kept, *_asked(prompt)]

    def answered(self, prompt: str | Sequence[Message], text: str) -> None:
        """The turn went well: it is part of what was said."""
        self._turns.append([*_asked(prompt), {"role": "assistant", "content": text}])


def _asked(prompt: str | Sequence[Message]) -> Sequence[Message]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
