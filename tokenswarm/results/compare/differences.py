"""Every metric of two sides, the change, its interval, and what may be said of it in one line."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tokenswarm.results.compare import bootstrap, comparable, metrics
from tokenswarm.results.compare.bootstrap import Floats, Sample
from tokenswarm.results.compare.comparable import Caution
from tokenswarm.results.compare.estimate import Estimated, Figure, drawn, pooled
from tokenswarm.results.compare.metrics import Metric
from tokenswarm.results.compare.sides import Side

BETTER: Final = "better"
WORSE: Final = "worse"
SAME: Final = "no difference shown"
UNSURE: Final = "too few"
UNMEASURED: Final = "not measured"
CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Change:
    """Candidate against baseline: an estimate and the ends of its interval; None where there is none."""

    estimate: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """`relative`: as a share of the baseline (0.1: 10 % more), None for shares and where the baseline is 0;
    `absolute`: in `unit`."""

    metric: str
    title: str
    unit: str
    lower_is_better: bool
    baseline: Figure
    candidate: Figure
    relative: Change | None
    absolute: Change | None
    outcome: str

    @property
    def headline(self) -> Change | None:
        """The change as it is told: relative, of shares absolute."""
        return self.absolute if self.unit == "" else self.relative


@dataclass(frozen=True)
class Effect:
    """How often a request of the candidate, drawn at random, takes longer than one of the baseline, ties half: 0.5 is
    no effect. Vargha and Delaney's A: needs no shape of the distribution, and one slow request cannot move it."""

    of: str
    title: str
    candidate_longer: float
    size: str


@dataclass(frozen=True)
class Described:
    """A side, for readers of the JSON."""

    role: str
    name: str
    directories: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """`intervals`: how many there are, each at `confidence` by itself; `goodput`: the limits that it is held to, empty
    where it is not compared."""

    baseline: Described
    candidate: Described
    confidence: float
    intervals: int
    differences: tuple[Difference, ...]
    effects: tuple[Effect, ...]
    cautions: tuple[Caution, ...]
    goodput: tuple[str, ...] = ()


def compare(
    baseline: Side, candidate: Side, *, also: Iterable[str] = (), confidence: float = CONFIDENCE, seed: int = 0
) -> Comparison:
    """All that is compared by default, and the metrics named in `also`. The same seed gives the same intervals."""
    arrivals = [run.summary["run"]["load"]["arrivals"] for run in (*baseline.runs, *candidate.runs)]
    wanted = {metric.name: metric for metric in metrics.shown(open_loop=any(name != "closed" for name in arrivals))}
    wanted |= {name: metrics.known(name) for name in also}
    cautions = tuple(comparable.cautions(baseline, candidate))
    alike = comparable.same_limits(baseline, candidate)
    if not alike:
        baseline, candidate = _without_goodput(baseline), _without_goodput(candidate)
    found = tuple(_difference(metric, baseline, candidate, confidence, seed) for metric in wanted.values())
    measured = tuple(one for one in found if one.baseline.value is not None or one.candidate.value is not None)
    kept = tuple(one for one in found if one in measured or one.metric in also)
    return Comparison(
        _described(baseline),
        _described(candidate),
        confidence,
        sum(one.headline is not None and one.headline.low is not None for one in kept),
        kept,
        tuple(_effects(wanted.values(), baseline, candidate)),
        cautions,
        tuple(limit.text for limit in baseline.runs[0].limits) if alike else (),
    )


def _without_goodput(side: Side) -> Side:
    """Requests that were held to other limits are no measure of what changed."""
    kept = [
        {name: ratio for name, ratio in run.ratios.items() if name not in (metrics.GOODPUT, metrics.GOOD_SHARE)}
        for run in side.runs
    ]
    runs = tuple(replace(run, ratios=ratios) for run, ratios in zip(side.runs, kept, strict=True))
    return replace(side, runs=runs)


def _described(side: Side) -> Described:
    return Described(side.role, side.name, tuple(str(run.path) for run in side.runs))


def _difference(metric: Metric, baseline: Side, candidate: Side, confidence: float, seed: int) -> Difference:
    rng = np.random.default_rng([seed, zlib.crc32(metric.name.encode())])
    sides = [Estimated(metric, side, rng) for side in (baseline, candidate)]
    figures = [one.figure for one in sides]
    values = [figure.value for figure in figures]
    relative = absolute = None
    if values[0] is not None and values[1] is not None:
        draws = drawn(metric, sides, rng)
        absolute = _change(values[1] - values[0], draws, lambda a, b: b - a, confidence)
        if metric.kind != metrics.SHARE and values[0] > 0:
            relative = _change(values[1] / values[0] - 1, draws, lambda a, b: b / a - 1, confidence)
    outcome = _outcome(metric, figures, absolute if metric.kind == metrics.SHARE else relative)
    return Difference(
        metric.name,
        metric.title,
        metric.unit,
        metric.lower_is_better,
        figures[0],
        figures[1],
        relative,
        absolute,
        outcome,
    )


def _change(
    estimate: float, draws: list[Floats] | None, of: Callable[[Floats, Floats], Floats], confidence: float
) -> Change:
    if draws is None:
        return Change(estimate, None, None)
    with np.errstate(divide="ignore", invalid="ignore"):
        changes = of(*draws)
    low, high = bootstrap.interval(np.nan_to_num(changes, posinf=np.finfo(float).max), confidence)
    return Change(estimate, low, high)


def _outcome(metric: Metric, figures: Sequence[Figure], change: Change | None) -> str:
    if change is None:
        return UNMEASURED
    if change.low is None or change.high is None or any(figure.rows < figure.needed for figure in figures):
        return UNSURE
    if change.low <= 0 <= change.high:
        return SAME
    return WORSE if (change.low > 0) == metric.lower_is_better else BETTER


def _effects(wanted: Iterable[Metric], baseline: Side, candidate: Side) -> Iterable[Effect]:
    for of in dict.fromkeys(one.of for one in wanted if one.unit == "ms"):
        first, second = (
            pooled([run.samples[of] for run in side.runs if of in run.samples]) for side in (baseline, candidate)
        )
        if isinstance(first, Sample) and isinstance(second, Sample):
            longer = bootstrap.superiority(first, second)
            yield Effect(of, metrics.title_of(of), longer, effect_size(longer))


def effect_size(longer: float) -> str:
    """In words, at the limits that Vargha and Delaney (2000) gave."""
    distance = max(longer, 1 - longer)
    for limit, word in ((0.56, "negligible"), (0.64, "small"), (0.71, "medium")):
        if distance < limit:
            return word
    return "large" if math.isfinite(distance) else "unknown"
