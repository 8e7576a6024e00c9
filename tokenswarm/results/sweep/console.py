"""A sweep for a terminal: what answers, what to doubt, a line for each level."""

from __future__ import annotations

from typing import Final

from tokenswarm.results.console import simulator_warning, wrapped
from tokenswarm.results.language import ENGLISH, Language
from tokenswarm.results.sweep import table, wording
from tokenswarm.results.sweep.cautions import cautions
from tokenswarm.results.sweep.curve import Sweep
from tokenswarm.results.wording import plain

_MOST_CAUTIONS: Final = 12


def text(sweep: Sweep, say: Language = ENGLISH) -> str:
    """All of it as lines, without a line end at the last."""
    blocks = [
        simulator_warning(say) if sweep.simulator else [],
        _answers(sweep, say),
        table.text(sweep, say).splitlines(),
        _notes(sweep, say),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _answers(sweep: Sweep, say: Language) -> list[str]:
    lines = []
    for curve in sweep.curves:
        lines += [plain(curve.name)] if len(sweep.curves) > 1 else []
        for answer in wording.answers(sweep, curve, say):
            lines += wrapped(plain(str(answer), 1000), "  " if len(sweep.curves) > 1 else "")
    return lines


def _notes(sweep: Sweep, say: Language) -> list[str]:
    lines = [line for sentence in wording.how(sweep, say) for line in wrapped(sentence, "")]
    found = list(cautions(sweep, say))
    for caution in found[:_MOST_CAUTIONS]:
        lines += wrapped(plain(caution, 1000), say("note") + " " * 5)
    if len(found) > _MOST_CAUTIONS:
        lines.append(say("and {n} more in the page", n=len(found) - _MOST_CAUTIONS))
    return lines + _doubts(sweep, say)


def _doubts(sweep: Sweep, say: Language) -> list[str]:
    """Why levels are not valid: the first reason of each, all are in the page."""
    lines = []
    doubted = [level for level in sweep.levels if level.reasons]
    for level in doubted[:_MOST_CAUTIONS]:
        said = f"{wording.load(level, say)}: {wording.first_doubt(level, say)}"
        lines += wrapped(plain(said, 1000), f"{say(level.verdict)}  ")
    if len(doubted) > _MOST_CAUTIONS:
        lines.append(say("and {n} more in the page", n=len(doubted) - _MOST_CAUTIONS))
    return lines
