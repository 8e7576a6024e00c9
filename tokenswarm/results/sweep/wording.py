"""A sweep in words: loads, answers, marks, reasons. No markup: callers escape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from tokenswarm import verdict
from tokenswarm.results import wording
from tokenswarm.results.compare import metrics
from tokenswarm.results.goals_text import ATTAINED
from tokenswarm.results.language import ENGLISH, Language
from tokenswarm.results.report.heading import in_words
from tokenswarm.results.sweep import knee
from tokenswarm.results.sweep.curve import TOKENS, Curve, Sweep
from tokenswarm.results.sweep.levels import ALL, DEGRADED_TOO, Level
from tokenswarm.results.wording import number

NO_KNEE: Final = {
    knee.FEW: "It takes three levels or more at different loads.",
    knee.BEYOND: "Up to the highest load throughput grew faster than latency: measure more load.",
    knee.BEFORE: "From the lowest load on latency grew faster than throughput: measure less load.",
    knee.UNCOUNTED: "Fewer than three levels count: the others are not valid, or lack one of the two figures.",
    knee.DOUBTED: "It would lie at a level whose verdict is not valid.",
}


@dataclass(frozen=True)
class Answer:
    """`value` is the level that answers, `more` what it has; or `value` is empty and `more` says why there is none."""

    title: str
    value: str
    more: tuple[str, ...]

    def __str__(self) -> str:
        said = ", ".join(filter(None, (self.value, *self.more)))
        return f"{self.title}: {said}"


def load(level: Level, say: Language = ENGLISH) -> str:
    """`32 users`, or `12.5/s` of an open loop."""
    if level.open_loop:
        return f"{wording.users(level.load)}/s"
    return say("{n} user" if level.users == 1 else "{n} users", n=wording.count(level.users))


def short(level: Level) -> str:
    """The same for a label in a chart."""
    return f"{wording.users(level.load)}/s" if level.open_loop else wording.count(level.users)


def latency(level: Level, metric: metrics.Metric) -> str:
    """`~` before it if too few requests carry it, both bounds where they differ. Milliseconds."""
    return wording.statistic(level.latency[metric.of], metric.statistic)


def throughput(sweep: Sweep, level: Level, say: Language = ENGLISH) -> str:
    rate = number(level.rates[sweep.throughput])
    return say("{rate} output tokens/s" if sweep.throughput == TOKENS else "{rate} requests/s", rate=rate)


def throughput_title(sweep: Sweep, say: Language = ENGLISH) -> str:
    return say("output tokens/s" if sweep.throughput == TOKENS else "requests/s")


def latency_title(metric: metrics.Metric, say: Language = ENGLISH) -> str:
    return f"{say(metrics.title_of(metric.of))} {say(metric.statistic)}"


def answers(sweep: Sweep, curve: Curve, say: Language = ENGLISH) -> Iterator[Answer]:
    """The best level within the goals, if there are any; the knee; the highest throughput."""
    if any(level.objectives for level in curve.levels):
        title = say("Best within {goals}", goals=" ".join(sweep.goals))
        yield _answer(sweep, curve, curve.best, title, _no_best(sweep, curve, say), say)
    yield _answer(sweep, curve, curve.knee.index, say("Knee"), _no_knee(sweep, curve, say), say)
    if len(curve.levels) > 1:
        title = say("Highest throughput")
        why = say("No level has a verdict that allows to say.")
        yield _answer(sweep, curve, curve.most, title, f"{why} {_left_out(sweep, curve.levels, say)}".strip(), say)


def _no_best(sweep: Sweep, curve: Curve, say: Language) -> str:
    kept = [level for level in curve.levels if level.attained and not level.trusted(sweep.trust)]
    if not kept:
        return say("No level keeps to that.")
    return f"{say('No level that counts keeps to that; others do.')} {_left_out(sweep, kept, say)}"


def _no_knee(sweep: Sweep, curve: Curve, say: Language) -> str:
    why = say(NO_KNEE.get(curve.knee.why, ""))
    if curve.knee.why not in (knee.UNCOUNTED, knee.DOUBTED):
        return why
    return f"{why} {_left_out(sweep, curve.levels, say)}".strip()


def _left_out(sweep: Sweep, levels: Sequence[Level], say: Language) -> str:
    """Which of these levels do not count, why, and what makes them count. "" if all do."""
    found = [level for level in levels if not level.trusted(sweep.trust)]
    if not found:
        return ""
    return say(
        "Not counted: {loads}; --trust {trust} counts them in.",
        loads=", ".join(f"{load(level, say)} ({_kind(level, say)})" for level in found),
        trust=DEGRADED_TOO if all(level.trusted(DEGRADED_TOO) for level in found) else ALL,
    )


def _kind(level: Level, say: Language) -> str:
    return say("client limit") if level.client_was_the_limit else say(level.verdict)


def _answer(sweep: Sweep, curve: Curve, index: int | None, title: str, why: str, say: Language) -> Answer:
    if index is None:
        return Answer(title, "", (why,))
    level = curve.levels[index]
    value = latency(level, sweep.latency)
    unit = "" if value == wording.UNKNOWN else " ms"
    told = f"{latency_title(sweep.latency, say)} {value}{unit}"
    more: tuple[str, ...] = (throughput(sweep, level, say), told)
    if level.verdict != verdict.VALID:
        more = (*more, say("rests on {due} requests, {verdict}", due=level.due, verdict=_kind(level, say)))
    return Answer(title, load(level, say), more)


def marks(sweep: Sweep, curve: Curve, index: int, say: Language = ENGLISH) -> list[str]:
    """What a level is: of the front, the knee, the best within the goals, or not to be chosen."""
    level = curve.levels[index]
    found = [say("front")] if index in curve.front else []
    if index == curve.knee.index:
        found.append(say("knee"))
    if index == curve.best:
        found.append(say("best"))
    if level.client_was_the_limit:
        found.append(say("client limit"))
    elif not level.trusted(sweep.trust):
        found.append(say("not counted"))
    return found


def attained(level: Level, say: Language = ENGLISH) -> str:
    if not level.objectives:
        return wording.UNKNOWN
    return say(ATTAINED[level.attained])


def doubts(level: Level, say: Language = ENGLISH) -> str:
    """Why a level is not valid."""
    found = (in_words(msgspec.structs.asdict(reason), say)[0] for reason in level.reasons)
    return "; ".join(dict.fromkeys(found))


def first_doubt(level: Level, say: Language = ENGLISH) -> str:
    """The first reason why a level is not valid, and how many more there are."""
    said, *others = dict.fromkeys(in_words(msgspec.structs.asdict(reason), say)[0] for reason in level.reasons)
    return f"{said} {say('(and {n} more)', n=len(others))}" if others else said


def how(sweep: Sweep, say: Language = ENGLISH) -> list[str]:
    """What may be chosen, and how repeated runs are taken, as sentences."""
    found = []
    if sweep.trust != ALL and any(not level.trusted(sweep.trust) for level in sweep.levels):
        found.append(
            say(
                "Levels that are not valid, or where the client was the limit, are shown, but never chosen "
                "(--trust degraded or --trust all counts them in)."
            )
        )
    if any(level.each for level in sweep.levels):
        found.append(
            say("Levels of several runs are taken together: all their requests; in brackets what the runs had each.")
        )
    if any(level.unsure(sweep.latency) for level in sweep.levels):
        found.append(say("~: too few requests for this percentile."))
    return found
