"""Figures by worker, and which worker stands out: all send the same to the same server, so one whose latencies differ
has a slow host, or a network path of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tokenswarm.results import distribution
from tokenswarm.results.cohort import Rows, ended_as
from tokenswarm.results.flow import Floats, Flow, column
from tokenswarm.results.phases import Phases
from tokenswarm.results.read import Run

FEWEST: Final = 20
"""Of a worker with fewer values nothing is said."""
DIFFERENT_SHARE: Final = 0.10
DIFFERENT_MS: Final = 1.0
COMPARED: Final = ("ttft_ms", "tpot_ms")
MOST_APART: Final = 20
"""Workers told of each figure and user class: beyond, it is no longer one that stands out."""


def group(run: Run, phases: Phases, cohort: Rows) -> dict[str, list[dict[str, Any]]]:
    """`worker` of `groups` in summary.json, by number; nothing where there is one worker."""
    parts = _by_number(column(cohort, "worker"))
    if len(parts) < 2:
        return {}
    ok = ended_as(cohort, "ok")
    bad = ended_as(cohort, "failed", "timeout")
    names = ("ttft_ms", "ttft_low_ms", "tpot_ms", "e2e_ms", "output_tokens")
    values = {name: column(cohort, name) for name in names}
    rates = _tokens_per_s(run, phases)
    found = []
    for number, mine in parts.items():
        good = mine[ok[mine]]
        tokens = values["output_tokens"][good]
        found.append(
            {
                "value": str(number),
                "due": len(mine),
                "ok": len(good),
                "failed": int(bad[mine].sum()),
                "output_tokens": None if np.isnan(tokens).all() else int(np.nansum(tokens)),
                "output_tokens_per_s": rates.get(number),
                "ttft_ms": distribution.of(values["ttft_ms"][mine], values["ttft_low_ms"][mine]),
                "tpot_ms": distribution.of(values["tpot_ms"][good]),
                "e2e_ms": distribution.of(values["e2e_ms"][good]),
            }
        )
    return {"worker": found}


def _by_number(workers: Floats) -> dict[int, npt.NDArray[np.int64]]:
    """The places of each worker's requests, in their order."""
    order = np.argsort(workers, kind="stable")
    order = order[: len(order) - int(np.isnan(workers).sum())]
    numbers, begins = np.unique(workers[order], return_index=True)
    return dict(zip(map(int, numbers.tolist()), np.split(order, begins[1:]), strict=True)) if len(numbers) else {}


def _tokens_per_s(run: Run, phases: Phases) -> dict[int, float]:
    """As `throughput.output_tokens_per_s`, of each worker's chunks; nothing of those whose intervals tell none."""
    told: dict[int, list[tuple[float, float]]] = {}
    for number, pairs in zip(run.intervals["worker"].tolist(), run.intervals["tokens"].tolist(), strict=True):
        told.setdefault(number, []).extend(pairs)
    rates = {}
    for number, each in told.items():
        if each:
            table = np.array(each, dtype=np.float64)
            tokens = Flow(table[:, 0], table[:, 0] + 1.0, table[:, 1])
            rates[number] = sum(tokens.between(w.start, w.end) for w in phases.windows) / phases.seconds
    return rates


def apart(cohort: Rows) -> list[dict[str, Any]]:
    """Workers whose median TTFT or TPOT is another than that of all others together: the 95 % intervals of the two do
    not overlap, and the medians are 10 % and 1 ms apart. The most different first, and then no part of the others.

    Only requests of one user class are held against each other: workers may have drawn different shares of them.
    """
    parts = _by_number(column(cohort, "worker"))
    if len(parts) < 2:
        return []
    ok = ended_as(cohort, "ok")
    found = []
    for of_class in cohort["user_class"].unique():
        same = (cohort["user_class"] == of_class).to_numpy()
        for name in COMPARED:
            values = column(cohort, name)
            use = same & ~np.isnan(values) & (ok if name == "tpot_ms" else True)
            by_number = {number: values[mine[use[mine]]] for number, mine in parts.items()}
            about = {"figure": name, "user_class": str(of_class)}
            found += [about | difference for difference in _one_after_another(by_number)]
    return sorted(found, key=_size, reverse=True)


def _one_after_another(values: dict[int, Floats]) -> Iterator[dict[str, Any]]:
    """The worker that is the most different from the others, then from the rest the next one, while there is one."""
    left = {number: np.sort(mine) for number, mine in values.items() if len(mine) >= FEWEST}
    medians = {number: _at(mine, _middle(len(mine))) for number, mine in left.items()}
    compared = len(left)
    for _ in range(MOST_APART):
        of_left = [medians[number] for number in left] or [0.0]
        if max(of_left) - min(of_left) < max(DIFFERENT_MS, DIFFERENT_SHARE * min(of_left)):
            return  # the median of several together lies between theirs
        told: list[dict[str, Any]] = []
        for number, others in _others(left):
            if difference := _difference(left[number], medians[number], others, compared):
                told.append({"worker": number} | difference)
        if not told:
            return
        worst = max(told, key=_size)
        yield worst
        del left[worst["worker"]]


class _Others:
    """The values of all workers but one, in order, without a copy of them."""

    def __init__(self, ordered: Floats, places: npt.NDArray[np.int64]) -> None:
        """`ordered`: everybody's values. `places`: where in it those of the one are, rising."""
        self._ordered = ordered
        self._before = places - np.arange(len(places))

    def __len__(self) -> int:
        return len(self._ordered) - len(self._before)

    def __getitem__(self, rank: int) -> float:
        return float(self._ordered[rank + int(np.searchsorted(self._before, rank, side="right"))])


def _others(left: dict[int, Floats]) -> Iterator[tuple[int, _Others]]:
    """Of each worker, the others' values. What takes long, putting them all in order, is done once."""
    everybody = np.concatenate(list(left.values()))
    order = np.argsort(everybody, kind="stable")
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    ordered, ends = everybody[order], np.cumsum([len(mine) for mine in left.values()])
    for number, mine in zip(left, np.split(places, ends[:-1]), strict=True):
        yield number, _Others(ordered, mine)  # rising, since each worker's own are in order


def _size(difference: dict[str, Any]) -> tuple[float, float]:
    """How different: by the ratio; of two that differ from each other, the slower one."""
    return round(abs(math.log(difference["median"] / difference["others"])), 9), difference["median"]


def _difference(mine: Floats, median: float, others: _Others, compared: int) -> dict[str, float] | None:
    """Both medians, in milliseconds, where they differ; the values in order. So many workers are `compared` in all."""
    of_others = _at(others, _middle(len(others)))
    if min(median, of_others) <= 0 or abs(median - of_others) < max(DIFFERENT_MS, DIFFERENT_SHARE * of_others):
        return None
    low, high = median_interval(mine, compared)
    others_low, others_high = median_interval(others, compared)
    if low <= others_high and high >= others_low:
        return None
    return {"median": median, "others": of_others, "share": median / of_others - 1, "requests": len(mine)}


def _middle(count: int) -> tuple[int, int]:
    """The ranks whose mean is the median."""
    return (count - 1) // 2, count // 2


def _at(ordered: Floats | _Others, ranks: tuple[int, int]) -> float:
    return float(ordered[ranks[0]] + ordered[ranks[1]]) / 2


def median_interval(ordered: Floats | _Others, compared: int = 1) -> tuple[float, float]:
    """The 95 % interval of the median of values in order, between two of them and whatever their distribution: ranks
    half of n and 0.98 √n to either side (the binomial distribution's normal limit). Of several that are `compared`, it
    is as much wider as it takes for all to hold at once (Bonferroni): one in twenty would else differ by chance."""
    reach = NormalDist().inv_cdf(1 - 0.025 / compared) / 2 * math.sqrt(len(ordered))
    low = max(0, math.floor(len(ordered) / 2 - reach))
    high = min(len(ordered) - 1, math.ceil(len(ordered) / 2 + reach) - 1)
    return float(ordered[low]), float(ordered[high])
