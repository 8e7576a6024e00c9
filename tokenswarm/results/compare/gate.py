"""`--fail-if "ttft_p95 +10%"`: how much worse a metric may get, and whether it did. Pure: no files, no printing.

An estimate alone would fail good changes by bad luck, so the interval decides. With the limit L, written so that worse
is more: the whole interval beyond L is `failed`, the whole of it within is `passed`, and an interval around L is
`undecided`. What counts as a failure is the caller's: `certain` only the first; `likely` also what is estimated beyond
L and shown to have changed at all; `possible` everything that is not shown to be within.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tokenswarm.errors import OptionError
from tokenswarm.results.compare import metrics, wording
from tokenswarm.results.compare.differences import Change, Comparison
from tokenswarm.results.compare.metrics import Metric

PASSED: Final = "passed"
FAILED: Final = "failed"
UNDECIDED: Final = "undecided"
UNJUDGED: Final = "not measured"

CERTAIN: Final = "certain"
LIKELY: Final = "likely"
POSSIBLE: Final = "possible"
WHEN: Final = (CERTAIN, LIKELY, POSSIBLE)

EXAMPLE: Final = "ttft_p95 +10%"
_LIMIT: Final = re.compile(
    r"\s*(?P<metric>\S+?)\s*(?P<sign>[+−-])\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>%|pp|ms|s)\s*"
)
_UNITS: Final = {metrics.RATE: ("%",), metrics.SHARE: ("pp",)}
_LATENCY_UNITS: Final = ("%", "ms", "s")
_FACTORS: Final = {"%": 0.01, "pp": 0.01, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Gate:
    """`limit`: how much worse it may get, a share of the baseline, of 1 for shares, or milliseconds (`unit`)."""

    text: str
    metric: Metric
    limit: float
    unit: str


@dataclass(frozen=True)
class Judged:
    """`fails`: whether this is a failure by the strictness that was asked for; `said`: why, in words."""

    gate: str
    candidate: str
    outcome: str
    fails: bool
    said: str


def parse(text: str) -> Gate:
    """Raises OptionError that says what is wrong and what there is."""
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise OptionError(f"--fail-if {text!r}: write a metric, + or −, a number and %, pp, ms or s, as in {EXAMPLE!r}")
    try:
        metric = metrics.known(match["metric"])
    except OptionError as error:
        raise OptionError(f"--fail-if {text!r}: {error}") from None
    units = _UNITS.get(metric.kind, _LATENCY_UNITS)
    if match["unit"] not in units:
        raise OptionError(f"--fail-if {text!r}: {metric.name} is limited in {' or '.join(units)}")
    worse = "+" if metric.lower_is_better else "-"
    if match["sign"].replace("−", "-") != worse:
        which = "lower" if metric.lower_is_better else "higher"
        raise OptionError(
            f"--fail-if {text!r}: {metric.name} is better when {which}: write {worse}{match['number']}{match['unit']}"
        )
    unit = "ms" if match["unit"] == "s" else match["unit"]
    return Gate(text.strip(), metric, float(match["number"]) * _FACTORS[match["unit"]], unit)


def parse_all(texts: Iterable[str]) -> list[Gate]:
    """Raises OptionError with a line for each that is wrong."""
    gates, problems = [], []
    for text in texts:
        try:
            gates.append(parse(text))
        except OptionError as error:
            problems.append(str(error))
    if problems:
        raise OptionError("\n".join(problems))
    return gates


def judge(gate: Gate, comparison: Comparison, when: str = CERTAIN) -> Judged:
    """What became of one gate. A metric that one side did not measure fails: nobody has shown that it is good."""
    difference = next(one for one in comparison.differences if one.metric == gate.metric.name)
    change = difference.relative if gate.unit == "%" else difference.absolute

    def judged(outcome: str, fails: bool, said: str) -> Judged:
        return Judged(gate.text, comparison.candidate.name, outcome, fails, said)

    if change is None:
        return judged(UNJUDGED, True, wording.finding(difference))
    ends = _worse(gate, change)
    told = wording.told(change, gate.unit)
    if ends is None or any(side.rows < side.needed for side in (difference.baseline, difference.candidate)):
        return judged(UNDECIDED, when == POSSIBLE, f"{told}, {wording.too_few(difference)}")
    estimate, low, high = ends
    if low > gate.limit:
        return judged(FAILED, True, f"{told}, all of the interval is beyond the limit")
    if high <= gate.limit:
        return judged(PASSED, False, f"{told}, all of the interval is within the limit")
    fails = when == POSSIBLE or (when == LIKELY and estimate > gate.limit and low > 0)
    return judged(UNDECIDED, fails, f"{told}, the limit is inside the interval")


def _worse(gate: Gate, change: Change) -> tuple[float, float, float] | None:
    """Estimate and ends such that worse is more."""
    if change.low is None or change.high is None:
        return None
    if gate.metric.lower_is_better:
        return change.estimate, change.low, change.high
    return -change.estimate, -change.high, -change.low
