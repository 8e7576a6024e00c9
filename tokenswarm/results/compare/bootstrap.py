"""Draws from the sampling distribution of percentiles, means, shares and rates. Pure numpy, seeded, no resampling of
rows: a million rows cost what a thousand do.

Successive requests are alike (they share batches, queues, waves of prompts), so rows are no independent sample. Every
measurement is therefore cut into batches of time, and what the batches tell replaces what independent rows would: as
the effective number of rows (Woodruff 1952: the interval of a percentile is that of its rank), or as the variance of a
ratio. Batches are few, so their variance is itself drawn (scaled inverse chi-squared), which makes intervals as wide as
Student's t would. Strata are the windows of runs: only what differs within a window counts as noise of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DRAWS: Final = 10_000
FEWEST_FREEDOM: Final = 3
"""Four batches: with fewer nothing can be said of how alike the rows of a batch are."""
_LARGEST_EXPONENT: Final = 50.0


@dataclass(frozen=True)
class Sample:
    """Measured values, rising, each `counts` times, and in which batch; `strata` has the stratum of each batch."""

    values: Floats
    counts: Floats
    batch: Ints
    strata: Ints

    @property
    def size(self) -> float:
        return float(self.counts.sum())


@dataclass(frozen=True)
class Ratio:
    """An amount a size, by batch: requests a second, errors a request. `strata` as in Sample."""

    amounts: Floats
    sizes: Floats
    strata: Ints

    @property
    def estimate(self) -> float | None:
        """None of nothing."""
        size = float(self.sizes.sum())
        return float(self.amounts.sum()) / size if size > 0 else None


def sample(values: Floats, batch: Ints, strata: Ints, counts: Floats | None = None) -> Sample:
    """A Sample of values in any order; NaN (not measured) is left out."""
    measured = ~np.isnan(values)
    values, batch = values[measured], batch[measured]
    counts = np.ones(len(values)) if counts is None else counts[measured]
    order = np.argsort(values, kind="stable")
    return Sample(values[order], counts[order], batch[order], strata)


def pooled_samples(samples: Sequence[Sample]) -> Sample:
    """One sample of several runs; their batches and strata stay apart."""
    batch, strata = _apart([(one.batch, one.strata) for one in samples])
    values = np.concatenate([one.values for one in samples])
    return sample(values, batch, strata, np.concatenate([one.counts for one in samples]))


def pooled_ratios(ratios: Sequence[Ratio]) -> Ratio:
    """One ratio of several runs: all amounts over all sizes."""
    _, strata = _apart([(np.empty(0, dtype=np.int64), one.strata) for one in ratios])
    amounts = np.concatenate([one.amounts for one in ratios])
    return Ratio(amounts, np.concatenate([one.sizes for one in ratios]), strata)


def quantile(found: Sample, levels: Floats | float) -> Floats:
    """Percentiles of type 7, levels of 1, as numpy's of the values with their counts."""
    return _at(found, np.asarray(levels, dtype=np.float64) * (found.size - 1))


def mean(found: Sample) -> float:
    return float(np.average(found.values, weights=found.counts))


def superiority(first: Sample, second: Sample) -> float:
    """P(a value of `second` > one of `first`) + half of P(equal): Vargha and Delaney's A, 0.5 for no effect."""
    below = np.concatenate([[0.0], np.cumsum(first.counts)])
    less = below[np.searchsorted(first.values, second.values, "left")]
    no_more = below[np.searchsorted(first.values, second.values, "right")]
    return float(np.sum(second.counts * (less + no_more)) / 2 / (first.size * second.size))


def draw_quantile(found: Sample, level: float, rng: np.random.Generator, draws: int = DRAWS) -> Floats:
    """Draws of a percentile: of its rank in so many effective rows, read off the values."""
    at = int(np.searchsorted(found.values, quantile(found, level), "right"))
    below = Ratio(_by_batch(found, at, found.counts), _by_batch(found, None, found.counts), found.strata)
    rows = _effective(found.size, level * (1 - level), below, rng, draws)
    ranks = rng.beta((rows + 1) * level, (rows + 1) * (1 - level))
    return _at(found, ranks * (found.size + 1) - 1)


def draw_mean(found: Sample, rng: np.random.Generator, draws: int = DRAWS) -> Floats:
    """Draws of the mean; its variance is at least that of independent rows."""
    sums = _by_batch(found, None, found.counts * found.values)
    sizes = _by_batch(found, None, found.counts)
    centre = mean(found)
    independent = float(np.average((found.values - centre) ** 2, weights=found.counts)) / max(1.0, found.size - 1)
    of_batches = _drawn_variance(Ratio(sums, sizes, found.strata), rng, draws)
    variance = np.full(draws, independent) if of_batches is None else np.maximum(of_batches, independent)
    return centre + np.sqrt(variance) * rng.standard_normal(draws)


def draw_share(found: Ratio, rng: np.random.Generator, draws: int = DRAWS) -> Floats:
    """Draws of a share of rows (Jeffreys' interval, of effective rows): 0 of 100 is not known to be 0."""
    rows, share = float(found.sizes.sum()), found.estimate or 0.0
    effective = _effective(rows, share * (1 - share), found, rng, draws)
    return rng.beta(share * effective + 0.5, (1 - share) * effective + 0.5)


def draw_rate(found: Ratio, rng: np.random.Generator, draws: int = DRAWS) -> Floats | None:
    """Draws of an amount a second; None with fewer than four batches."""
    variance = _drawn_variance(found, rng, draws)
    if variance is None or found.estimate is None:
        return None
    return np.maximum(found.estimate + np.sqrt(variance) * rng.standard_normal(draws), 0.0)


def draw_between(
    runs: Sequence[Sequence[float]], within: float, rng: np.random.Generator, draws: int = DRAWS
) -> Floats | None:
    """Draws of the variance between repeated runs, taken to be the same on every side; None if no side has two.

    `runs`: each side's estimates, one a run; `within`: how much those vary by their own rows. Generalised inference for
    a random effect: the observed variance has a chi-squared distribution, so two or three runs say little, and what
    they don't say widens the interval; a plain resampling of so few would make it far too narrow.
    """
    freedom = sum(len(side) - 1 for side in runs if side)
    if freedom < 1:
        return None
    squares = sum(float(np.sum((np.asarray(side) - np.mean(side)) ** 2)) for side in runs if side)
    return np.maximum(squares / rng.chisquare(freedom, draws) - within, 0.0)


def spread(draws: Floats, variance: Floats, weights: Floats, rng: np.random.Generator, *, relative: bool) -> Floats:
    """Draws of a side, spread by what varies between its runs, whose shares of its rows are `weights`."""
    noise = np.sqrt(variance * float(np.sum(weights**2))) * rng.standard_normal(len(draws))
    if not relative:
        return draws + noise
    return draws * np.exp(np.clip(noise, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))


def interval(draws: Floats, confidence: float) -> tuple[float, float]:
    """The middle `confidence` (of 1) of the draws."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _at(found: Sample, positions: Floats) -> Floats:
    """Values at ranks from 0, between two of them in proportion."""
    ends = np.cumsum(found.counts)
    positions = np.clip(positions, 0, ends[-1] - 1)
    whole = np.floor(positions)
    low = found.values[np.searchsorted(ends, whole, "right")]
    high = found.values[np.searchsorted(ends, np.minimum(whole + 1, ends[-1] - 1), "right")]
    between: Floats = low + (high - low) * (positions - whole)
    return between


def _by_batch(found: Sample, until: int | None, amounts: Floats) -> Floats:
    """The amounts of the values before `until`, summed over each batch."""
    return np.bincount(found.batch[:until], amounts[:until], len(found.strata)).astype(np.float64)


def _effective(rows: float, of_one: float, batches: Ratio, rng: np.random.Generator, draws: int) -> Floats:
    """How many independent rows would tell as much, at most as many as there are; `of_one`: variance of one row."""
    variance = _drawn_variance(batches, rng, draws)
    if variance is None or of_one <= 0:
        return np.full(draws, rows)
    with np.errstate(divide="ignore"):
        return np.clip(of_one / variance, min(2.0, rows), rows)


def _drawn_variance(found: Ratio, rng: np.random.Generator, draws: int) -> Floats | None:
    """Draws of the variance of a ratio, from how its batches differ within strata; None with too few of them."""
    strata = int(found.strata.max()) + 1 if len(found.strata) else 0
    batches = np.bincount(found.strata, minlength=strata)
    freedom = int(np.maximum(batches - 1, 0).sum())
    sizes = np.bincount(found.strata, found.sizes, strata)
    if freedom < FEWEST_FREEDOM or not sizes.sum() > 0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.nan_to_num(np.bincount(found.strata, found.amounts, strata) / sizes)
    residuals = found.amounts - ratios[found.strata] * found.sizes
    squares = np.bincount(found.strata, residuals**2, strata)
    scale = np.where(batches > 1, batches / np.maximum(batches - 1, 1), 0.0)
    variance = float(np.sum(scale * squares)) / float(sizes.sum()) ** 2
    return variance * freedom / rng.chisquare(freedom, draws)


def _apart(several: Sequence[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    """Batches and strata of several runs, renumbered so that none coincide."""
    batches, strata = [], []
    batch_offset = stratum_offset = 0
    for batch, stratum in several:
        batches.append(batch + batch_offset)
        strata.append(stratum + stratum_offset)
        batch_offset += len(stratum)
        stratum_offset += int(stratum.max()) + 1 if len(stratum) else 0
    return np.concatenate(batches), np.concatenate(strata)
