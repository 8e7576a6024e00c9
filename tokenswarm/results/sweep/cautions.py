"""What is to be doubted about a sweep, in sentences: what its runs do not have in common, damage, what is not known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tokenswarm.results.language import ENGLISH, Language
from tokenswarm.results.sweep import series
from tokenswarm.results.sweep.curve import IN_FLIGHT, REQUESTS, TOKENS, Sweep
from tokenswarm.results.sweep.levels import Level
from tokenswarm.results.wording import plain

_MOST_DEFECTS: Final = 3


def cautions(sweep: Sweep, say: Language = ENGLISH) -> Iterator[str]:
    """The gravest first; those on one run begin with its directory."""
    if len(sweep.levels) == 1:
        yield say(
            "One load level is no curve. Measure more of them: --steps 1,2,4,8,16, or runs with other numbers of users."
        )
    yield from series.cautions(sweep.runs, say)
    if sweep.axis == IN_FLIGHT:
        yield say(
            "Closed and open loops are mixed: in the one a load is users, in the other requests a second. Charts "
            "against load take the requests in flight, which both have."
        )
    if sweep.throughput == REQUESTS:
        yield say(
            "No request of these runs tells its output tokens, so throughput is requests a second. Let the server "
            "report usage, or give --tokenizer to the run."
        )
    yield from _different_goals(sweep, say)
    yield from _of_runs(sweep, say)


def _of_runs(sweep: Sweep, say: Language) -> Iterator[str]:
    for run in sweep.runs:
        if sweep.throughput == TOKENS and any(part.amounts[TOKENS] is None for part in run.parts):
            yield say("{path}: no request tells its output tokens, so it has no place where they count.", path=run.path)
        for told in (*run.defects[:_MOST_DEFECTS], *run.notes):
            yield f"{run.path}: {plain(say.again(told))}"
        if len(run.defects) > _MOST_DEFECTS:
            yield say("{path}: {count} more defects.", path=run.path, count=len(run.defects) - _MOST_DEFECTS)


def _different_goals(sweep: Sweep, say: Language) -> Iterator[str]:
    for option, of in (("--slo", _goals), ("--goodput", _limits)):
        found = sorted({of(level) for level in sweep.levels})
        if len(found) > 1:
            goals = "; ".join(text or say("none") for text in found)
            yield say(
                "The runs have different goals ({goals}): give {option} for all of them.", goals=goals, option=option
            )


def _goals(level: Level) -> str:
    return " ".join(one["objective"] for one in level.objectives)


def _limits(level: Level) -> str:
    return " ".join(level.goodput["limits"]) if level.goodput else ""
