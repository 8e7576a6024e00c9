"""A whole sweep: the curves that its runs make, each with its Pareto front, its knee, and the levels that answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tokenswarm.results.compare.metrics import ITL, Metric
from tokenswarm.results.sweep import knee, levels, pareto, series
from tokenswarm.results.sweep.knee import Knee
from tokenswarm.results.sweep.levels import Level
from tokenswarm.results.sweep.observe import Observed
from tokenswarm.results.wording import plain

TOKENS: Final = "output_tokens"
REQUESTS: Final = "ended"

USERS: Final = "users"
RATE: Final = "rate"
IN_FLIGHT: Final = "in_flight"
"""What load is told by: users of closed loops, requests a second of open ones, and where there are both the requests in
flight, which either has."""


@dataclass(frozen=True)
class Curve:
    """Levels by rising load. `front` and the others are indices of them: `most` has the highest throughput, `best` the
    highest of those that kept all goals. None: there is none."""

    name: str
    levels: tuple[Level, ...]
    front: tuple[int, ...]
    knee: Knee
    most: int | None
    best: int | None


@dataclass(frozen=True)
class Sweep:
    """`throughput` (TOKENS, or REQUESTS where no run tells tokens) and `latency` are what front and knee are of.
    `unread` are sentences on directories that were left out."""

    runs: tuple[Observed, ...]
    curves: tuple[Curve, ...]
    latency: Metric
    throughput: str
    axis: str
    trust: str
    goals: tuple[str, ...]
    limits: tuple[str, ...]
    simulator: bool
    price: float | None
    unread: tuple[str, ...]

    @property
    def levels(self) -> list[Level]:
        return [level for curve in self.curves for level in curve.levels]

    def places(self) -> Iterator[tuple[Curve, int]]:
        """Every level, as its curve and its index."""
        for curve in self.curves:
            for index in range(len(curve.levels)):
                yield curve, index

    def x(self, level: Level) -> float | None:
        """The load of a level on the axis that all of them share."""
        return level.means["in_flight"] if self.axis == IN_FLIGHT else level.load


def sweep(
    runs: Sequence[Observed],
    latency: Metric,
    *,
    trust: str = levels.VALID_ONLY,
    price: float | None = None,
    unread: Sequence[str] = (),
) -> Sweep:
    """All that these runs tell together; at least one, each with at least one level."""
    by_signature: dict[series.Signature, list[Observed]] = {}
    for run in runs:
        by_signature.setdefault(series.signature(run.described), []).append(run)
    differ = series.differing(list(by_signature))
    found = [
        (_name(one, same, differ), levels.levels((part for run in same for part in run.parts), itl=latency.of == ITL))
        for one, same in by_signature.items()
    ]
    every = [level for _, of_one in found for level in of_one]
    throughput = TOKENS if any(level.rates[TOKENS] is not None for level in every) else REQUESTS
    loops = {level.open_loop for level in every}
    return Sweep(
        runs=tuple(runs),
        curves=tuple(_curve(name, of_one, latency, throughput, trust) for name, of_one in found),
        latency=latency,
        throughput=throughput,
        axis=IN_FLIGHT if len(loops) > 1 else RATE if True in loops else USERS,
        trust=trust,
        goals=tuple(dict.fromkeys(one["objective"] for level in every for one in level.objectives)),
        limits=tuple(dict.fromkeys(" ".join(level.goodput["limits"]) for level in every if level.goodput)),
        simulator=any(run.described["run"]["target"]["simulator"] for run in runs),
        price=price,
        unread=tuple(unread),
    )


def _name(one: series.Signature, same: Sequence[Observed], differ: Sequence[str]) -> str:
    """By what differs; the names of its runs where nothing of that is known. "" for the only one."""
    runs = dict.fromkeys(run.label or run.name for run in same)
    return series.name(one, differ) or (plain(", ".join(runs), series.LONGEST) if differ else "")


def _curve(name: str, of_one: tuple[Level, ...], latency: Metric, throughput: str, trust: str) -> Curve:
    gains = [level.rates[throughput] for level in of_one]
    costs = [level.of(latency) for level in of_one]
    usable = [index for index, level in enumerate(of_one) if level.trusted(trust) and gains[index] is not None]
    both = [index for index in usable if costs[index] is not None]
    kept = [index for index in usable if of_one[index].attained]

    def gain(index: int) -> float:
        return gains[index] or 0.0

    front = pareto.front([(gain(index), costs[index] or 0.0) for index in both])
    # An overloaded level is not to be chosen, but it does show that there is a bend before it.
    seen = [
        index
        for index, level in enumerate(of_one)
        if index in both or (level.overloaded and gains[index] is not None and costs[index] is not None)
    ]
    points = [
        knee.Point(of_one[index].load or 0.0, gain(index), costs[index] or 0.0, chosen=index in both) for index in seen
    ]
    bend = knee.find(points)
    if bend.why == knee.FEW and len(of_one) > len(seen):
        bend = Knee(None, knee.UNCOUNTED)
    return Curve(
        name=name,
        levels=of_one,
        front=tuple(both[index] for index in front) if len(both) > 1 else (),
        knee=bend if bend.index is None else Knee(seen[bend.index]),
        most=max(usable, key=gain, default=None),
        best=max(kept, key=gain, default=None),
    )
