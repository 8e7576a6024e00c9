"""A comparison for a terminal: the sides, what speaks against it, a line for each metric, what failed."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from tokenswarm.results.compare import wording
from tokenswarm.results.compare.comparable import WARNING
from tokenswarm.results.compare.differences import Comparison
from tokenswarm.results.compare.gate import Judged
from tokenswarm.results.console import WIDTH, aligned
from tokenswarm.results.wording import plain

_MOST_CAUTIONS: Final = 12


def text(comparison: Comparison, judged: Sequence[Judged] = ()) -> str:
    """All of it as lines, without a line end at the last."""
    blocks = [_sides(comparison), _cautions(comparison), _metrics(comparison), _effects(comparison), _gates(judged)]
    return "\n\n".join("\n".join(line.rstrip() for line in block) for block in blocks if block)


def _sides(comparison: Comparison) -> list[str]:
    return [f"{side.role.capitalize():<9}  {plain(side.name)}" for side in (comparison.baseline, comparison.candidate)]


def _cautions(comparison: Comparison) -> list[str]:
    lines = []
    for caution in comparison.cautions[:_MOST_CAUTIONS]:
        head = f"{'WARNING' if caution.level == WARNING else 'note':<9}"
        lines += textwrap.wrap(plain(caution.text), WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
    if len(comparison.cautions) > _MOST_CAUTIONS:
        lines.append(f"and {len(comparison.cautions) - _MOST_CAUTIONS} more in the page")
    return lines


def _metrics(comparison: Comparison) -> list[str]:
    repeated = any(len(side.directories) > 1 for side in (comparison.baseline, comparison.candidate))
    heads = ["", "baseline", "runs", "candidate", "runs"] if repeated else ["", "baseline", "candidate"]
    rows = [heads]
    for one in comparison.differences:
        cells = [f"{one.title}{f', {one.unit}' if one.unit == 'ms' else ''}"]
        for figure in (one.baseline, one.candidate):
            cells.append(wording.figure(one, figure))
            if repeated:
                cells.append(wording.between(one, figure))
        rows.append(cells)
    findings = ["", *(wording.finding(one) for one in comparison.differences)]
    lines = [f"{line}   {said}" for line, said in zip(aligned(rows), findings, strict=True)]
    lines += ["", *textwrap.wrap(limits, WIDTH)] if (limits := wording.limits(comparison)) else []
    return [*lines, "", *textwrap.wrap(wording.intervals(comparison), WIDTH)]


def _effects(comparison: Comparison) -> list[str]:
    return [wording.effect(effect) for effect in comparison.effects]


def _gates(judged: Sequence[Judged]) -> list[str]:
    return [f"{'FAILED' if one.fails else one.outcome:<9}  {plain(one.gate)}: {plain(one.said)}" for one in judged]
