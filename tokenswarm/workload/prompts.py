"""What a prompt is; the questions that come with the package, and the source that asks them in a seeded order.

Not here: when a prompt is sent, how a protocol writes it down, and which model answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Annotated, Literal, Protocol

import msgspec

from tokenswarm.errors import Exhausted, TokenswarmError
from tokenswarm.protocols.base import Message
from tokenswarm.workload.order import SHUFFLED, Share

__all__ = [
    "Exhausted",
    "Prompt",
    "PromptSource",
    "Question",
    "Source",
    "Turn",
    "bundled_prompts",
    "bundled_questions",
    "parse_questions",
]

QUESTIONS_FILE = "questions.jsonl"

_Text = Annotated[str, msgspec.Meta(pattern=r"\S")]


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the questions file."""

    id: str
    language: Literal["en", "zh"]
    topic: _Text
    prompt: _Text


class Turn(msgspec.Struct, frozen=True):
    """What one turn of a conversation adds, a user's message last, and the reply that the dataset has to it."""

    messages: tuple[Message, ...]
    reply: str | None = None


class Prompt(msgspec.Struct, frozen=True):
    """What one request asks: its messages, oldest first, and the id that tells which prompt it was.

    Where it opens a conversation, `then` are the turns that follow, perhaps none; None: it is no conversation.
    """

    id: str
    messages: tuple[Message, ...]
    reply: str | None = None
    """What the dataset has as the answer."""
    then: tuple[Turn, ...] | None = None
    input_tokens: int | None = None
    """How many its messages are meant to have; None where nobody says."""
    output_tokens: int | None = None
    """How long a reply to ask for; None: as the options say."""
    prefix_tokens: int | None = None
    """How many at its beginning it has in common with other prompts, on purpose; None where nobody says."""


class Source(Protocol):
    """A stream of prompts, endless or not."""

    def next(self) -> Prompt:
        """The next prompt. Raises DatasetError where the run must end, and Exhausted where there is no other."""

    def close(self) -> None:
        """Nothing more is asked for."""


def parse_questions(lines: Iterable[bytes], name: str) -> list[Question]:
    """The questions of a JSONL file, in its order; blank lines are passed over.

    Raises TokenswarmError with the file's `name` and the line's number, counted from 1, at the first line that is not
    a question or whose id was there before.
    """
    questions: list[Question] = []
    first_seen: dict[str, int] = {}
    decoder = msgspec.json.Decoder(Question)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            question = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TokenswarmError(f"{name}, line {number}: not a question: {error}") from error
        if question.id in first_seen:
            earlier = first_seen[question.id]
            raise TokenswarmError(f"{name}, line {number}: the id {question.id!r} is already on line {earlier}")
        first_seen[question.id] = number
        questions.append(question)
    return questions


def bundled_questions() -> list[Question]:
    """The questions that come with the package, installed as a folder or in a zip. Raises as `parse_questions`."""
    content = resources.files(__package__).joinpath(QUESTIONS_FILE).read_bytes()
    # Only "\n" ends a line of JSONL: str.splitlines would also cut at U+2028, which JSON allows inside a string.
    return parse_questions(content.split(b"\n"), QUESTIONS_FILE)


def bundled_prompts() -> list[Prompt]:
    """The bundled questions, each as one user message."""
    return [Prompt(question.id, ({"role": "user", "content": question.prompt},)) for question in bundled_questions()]


class PromptSource:
    """A stream of prompts, round after round, in one of `order.ORDERS`: shuffled is all of them in one order, then all
    of them in another, and so on. `once`: one round.

    Workers 0 to `workers` − 1 deal each round out among them, so that together they ask what one process would ask; a
    worker with a higher number, which came later, has rounds of its own, or none where each is asked once. The same
    `seed`, `worker` and `workers` give the same prompts on every machine; another `stream`, others. `system_prompt`, if
    any, is put before each prompt's messages. Raises TokenswarmError if there are no prompts.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        *,
        seed: int,
        worker: int,
        workers: int = 1,
        order: str = SHUFFLED,
        once: bool = False,
        system_prompt: str | None = None,
        stream: str = "",
    ) -> None:
        if not prompts:
            raise TokenswarmError("there are no prompts to send")
        system: tuple[Message, ...] = ({"role": "system", "content": system_prompt},) if system_prompt else ()
        self._prompts = [msgspec.structs.replace(prompt, messages=(*system, *prompt.messages)) for prompt in prompts]
        self._share = Share(order, len(prompts), seed=seed, worker=worker, workers=workers, stream=stream)
        self._once = once
        self._numbers = iter(()) if once and worker >= workers else self._share.round()

    def next(self) -> Prompt:
        """The next prompt. Raises Exhausted where each was asked once."""
        while True:
            for number in self._numbers:
                return self._prompts[number]
            if self._once:
                raise Exhausted("every prompt has been asked once (--dataset-once)")
            self._numbers = self._share.round()

    def close(self) -> None:
        """As `Source` has it."""
