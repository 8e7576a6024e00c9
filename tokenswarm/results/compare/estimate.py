"""One metric of one side: its value, each run's own, and draws from where the true value may lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokenswarm.results import distribution
from tokenswarm.results.compare import bootstrap, metrics
from tokenswarm.results.compare.bootstrap import Floats, Ratio, Sample
from tokenswarm.results.compare.metrics import Metric
from tokenswarm.results.compare.sides import Observed, Side

Part = Sample | Ratio


@dataclass(frozen=True)
class Figure:
    """One side's value of a metric. `runs`: each run's own; `between`: their standard deviation, of a share in points
    of 1, else as a share of their mean; None with one run. `needed`: rows that the percentile wants, at least."""

    value: float | None
    rows: int
    needed: int
    runs: tuple[float | None, ...]
    between: float | None


class Estimated:
    """A metric of one side: its value, each run's, and draws from where its true value may lie."""

    def __init__(self, metric: Metric, side: Side, rng: np.random.Generator) -> None:
        self.metric = metric
        self._rng = rng
        parts = [_part(metric, run) for run in side.runs]
        own = [None if part is None else _value(metric, part) for part in parts]
        self._parts = [part for part in parts if part is not None]
        self.of_runs = [value for value in own if value is not None]
        whole = pooled(self._parts)
        rows = _size(whole) if whole is not None and metric.kind != metrics.RATE else 0
        self.figure = Figure(
            None if whole is None else _value(metric, whole),
            round(rows),
            distribution.NEEDED.get(metric.statistic, 0),
            tuple(own),
            self._between(),
        )
        self._whole = whole

    def draws(self) -> Floats | None:
        """Of all rows, as if the runs did not differ."""
        return None if self._whole is None else self._drawn(self._whole)

    def within(self) -> list[float]:
        """The variance of each run's own value, by its rows."""
        drawn = (self._drawn(part) for part in self._parts)
        return [float(np.var(self.scaled(one))) for one in drawn if one is not None]

    def scaled(self, values: Floats) -> Floats:
        """On the scale on which runs differ: logarithms, of shares themselves."""
        if self.metric.kind == metrics.SHARE:
            return values
        logarithms: Floats = np.log(np.maximum(values, 1e-9))
        return logarithms

    @property
    def weights(self) -> Floats:
        sizes = np.array([_size(part) for part in self._parts])
        weights: Floats = sizes / sizes.sum()
        return weights

    def _drawn(self, part: Part) -> Floats | None:
        if isinstance(part, Ratio):
            share = self.metric.kind == metrics.SHARE
            return bootstrap.draw_share(part, self._rng) if share else bootstrap.draw_rate(part, self._rng)
        if self.metric.kind == metrics.MEAN:
            return bootstrap.draw_mean(part, self._rng)
        draws = bootstrap.draw_quantile(part, self.metric.level, self._rng)
        if self.metric.of == metrics.ITL:  # histograms know it to so much
            draws = draws * (1 + self._rng.uniform(-metrics.ITL_RESOLUTION, metrics.ITL_RESOLUTION, len(draws)))
        return draws

    def _between(self) -> float | None:
        if len(self.of_runs) < 2:
            return None
        deviation = float(np.std(self.of_runs, ddof=1))
        if self.metric.kind == metrics.SHARE:
            return deviation
        mean = float(np.mean(self.of_runs))
        return deviation / mean if mean > 0 else None


def drawn(metric: Metric, sides: Sequence[Estimated], rng: np.random.Generator) -> list[Floats] | None:
    """Draws of every side, with what varies between runs in them where there are repeated runs."""
    draws = [side.draws() for side in sides]
    variance = _between(sides, rng)
    if variance is None:
        return None if draws[0] is None or draws[1] is None else [draws[0], draws[1]]
    relative = metric.kind != metrics.SHARE
    spread = []
    for side, own in zip(sides, draws, strict=True):
        centre = np.full(bootstrap.DRAWS, side.figure.value or 0.0) if own is None else own
        spread.append(bootstrap.spread(centre, variance, side.weights, rng, relative=relative))
    return spread


def _between(sides: Sequence[Estimated], rng: np.random.Generator) -> Floats | None:
    """Draws of the variance between runs; None if nothing was repeated."""
    if all(len(side.of_runs) < 2 for side in sides):
        return None
    within = [variance for side in sides for variance in side.within()]
    runs = [side.scaled(np.array(side.of_runs)).tolist() for side in sides]
    return bootstrap.draw_between(runs, float(np.mean(within)) if within else 0.0, rng)


def _part(metric: Metric, run: Observed) -> Part | None:
    return run.ratios.get(metric.of) if metric.kind in (metrics.RATE, metrics.SHARE) else run.samples.get(metric.of)


def pooled(parts: Sequence[Part]) -> Part | None:
    samples = [part for part in parts if isinstance(part, Sample)]
    ratios = [part for part in parts if isinstance(part, Ratio)]
    if samples:
        return bootstrap.pooled_samples(samples)
    return bootstrap.pooled_ratios(ratios) if ratios else None


def _size(part: Part) -> float:
    return part.size if isinstance(part, Sample) else float(part.sizes.sum())


def _value(metric: Metric, part: Part) -> float | None:
    if isinstance(part, Ratio):
        return part.estimate
    return bootstrap.mean(part) if metric.kind == metrics.MEAN else float(bootstrap.quantile(part, metric.level))
