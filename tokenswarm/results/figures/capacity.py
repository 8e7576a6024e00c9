"""A capacity search as run.json has it: typed, and as a table of the levels that were tried."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tokenswarm.load.words import DECISIONS, KINDS, answer_line, load
from tokenswarm.results.language import ENGLISH, Language
from tokenswarm.results.wording import UNKNOWN, count, number, plain, share

HEADS: Final = ("Level", "for", "found", "requests", "requests/s", "missed by", "worst goal")


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """How one goal fared at one level."""

    objective: str = ""
    requests: int = 0
    misses: int = 0
    miss_share: float | None = None
    allowed: float = 1.0
    decision: str = ""


class ClientFault(msgspec.Struct, frozen=True, kw_only=True):
    """A rule of the verdict that our own client broke at a level."""

    rule: str = ""
    level: str = ""
    value: float | None = None
    text: str = ""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """A level that was tried. Measured were the requests that ended in [measured_from, until), UTC epoch seconds."""

    number: int = 0
    users: int = 0
    rate: float | None = None
    kind: str = ""
    decision: str | None = None
    binding: str | None = None
    began: float | None = None
    measured_from: float | None = None
    until: float | None = None
    requests: int = 0
    requests_per_s: float | None = None
    objectives: list[Objective] = []
    client: list[ClientFault] = []

    @property
    def worst(self) -> Objective | None:
        """The goal that was missed the most, against what it allows; None if nothing was measured."""
        known = [each for each in self.objectives if each.miss_share is not None]
        return max(known, key=lambda each: (each.miss_share or 0.0) / (each.allowed or 1.0), default=None)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The highest level that passed and the lowest that failed, and why the search ended (`load.words.WHY`)."""

    why: str = ""
    users: int | None = None
    failed_users: int | None = None
    rate: float | None = None
    failed_rate: float | None = None
    most_users: int | None = None
    confirmed: bool = False
    binding: str | None = None
    risk: float | None = None
    seconds: float | None = None


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """`answer` is None where the run was killed before there was one."""

    probes: list[Probe] = []
    answer: Answer | None = None

    @property
    def measured(self) -> list[Probe]:
        """Those that settled and were looked at."""
        return [each for each in self.probes if each.measured_from and each.until and each.until > each.measured_from]

    @property
    def passed(self) -> list[Probe]:
        """Those of the answer's own level; none where nothing passed."""
        users = self.answer.users if self.answer else None
        return [each for each in self.measured if each.users == users and each.decision == "pass"]

    @property
    def headline(self) -> list[Probe]:
        """Those that the run's figures are of."""
        return self.passed or self.measured


def figures(capacity: Capacity | None) -> dict[str, Any] | None:
    """As summary.json has it; None where there was no search."""
    if capacity is None:
        return None
    found: dict[str, Any] = msgspec.to_builtins(capacity)
    found["text"] = in_words(capacity)
    return found


def in_words(capacity: Capacity, say: Language = ENGLISH) -> str:
    """What the search found, as a sentence or two."""
    if capacity.answer is None:
        return say("The search was not ended properly.")
    return plain(answer_line(msgspec.to_builtins(capacity.answer), say))


def table(capacity: Capacity, say: Language = ENGLISH) -> list[list[str]]:
    """A line for each level that was tried, the head first."""
    rows = [[say(head) for head in HEADS]]
    for probe in capacity.probes:
        worst = probe.worst
        goal = say("the queue grows") if probe.binding == "queue" else plain(worst.objective, 40) if worst else UNKNOWN
        rows.append(
            [
                load(probe.users, probe.rate, say),
                say(KINDS.get(probe.kind, UNKNOWN)),
                say(DECISIONS.get(probe.decision or "", UNKNOWN)),
                count(probe.requests),
                number(probe.requests_per_s),
                share(worst.miss_share if worst else None),
                goal,
            ]
        )
    return rows
