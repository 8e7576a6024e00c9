"""Figures by worker, and which worker stands out: all send the same to the same server, so one whose latencies differ
has a slow host, or a network path of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

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


def group(run: Run, phases: Phases, cohort: Rows) -> dict[str, list[dict[str, Any]]]:
    """`worker` of `groups` in summary.json, by number; nothing where there is one worker."""
    numbers = column(cohort, "worker")
    known = np.unique(numbers[~np.isnan(numbers)])
    if len(known) < 2:
        return {}
    ok = ended_as(cohort, "ok")
    bad = ended_as(cohort, "failed", "timeout")
    names = ("ttft_ms", "ttft_low_ms", "tpot_ms", "e2e_ms", "output_tokens")
    values = {name: column(cohort, name) for name in names}
    found = []
    for number in known:
        mine = numbers == number
        good = mine & ok
        tokens = values["output_tokens"][good]
        found.append(
            {
                "value": str(int(number)),
                "due": int(mine.sum()),
                "ok": int(good.sum()),
                "failed": int((mine & bad).sum()),
                "output_tokens": None if np.isnan(tokens).all() else int(np.nansum(tokens)),
                "output_tokens_per_s": _tokens_per_s(run, phases, int(number)),
                "ttft_ms": distribution.of(values["ttft_ms"][mine], values["ttft_low_ms"][mine]),
                "tpot_ms": distribution.of(values["tpot_ms"][good]),
                "e2e_ms": distribution.of(values["e2e_ms"][good]),
            }
        )
    return {"worker": found}


def _tokens_per_s(run: Run, phases: Phases, number: int) -> float | None:
    """As `throughput.output_tokens_per_s`, of the one worker's chunks; None without intervals that tell."""
    told = run.intervals.loc[run.intervals["worker"] == number, "tokens"]
    table = np.array([pair for pairs in told for pair in pairs], dtype=np.float64).reshape(-1, 2)
    if not len(table):
        return None
    tokens = Flow(table[:, 0], table[:, 0] + 1.0, table[:, 1])
    return sum(tokens.between(window.start, window.end) for window in phases.windows) / phases.seconds


def apart(cohort: Rows) -> list[dict[str, Any]]:
    """Workers whose median TTFT or TPOT is another than that of all others together: the 95 % intervals of the two do
    not overlap, and the medians are 10 % and 1 ms apart. The most different first, and then no part of the others.

    Only requests of one user class are held against each other: workers may have drawn different shares of them.
    """
    workers = column(cohort, "worker")
    numbers = np.unique(workers[~np.isnan(workers)])
    if len(numbers) < 2:
        return []
    ok = ended_as(cohort, "ok")
    found = []
    for of_class in cohort["user_class"].unique():
        same = (cohort["user_class"] == of_class).to_numpy()
        for name in COMPARED:
            values = column(cohort, name)
            use = same & ~np.isnan(values) & (ok if name == "tpot_ms" else True)
            by_number = {int(number): values[use & (workers == number)] for number in numbers}
            about = {"figure": name, "user_class": str(of_class)}
            found += [about | difference for difference in _one_after_another(by_number)]
    return sorted(found, key=_size, reverse=True)


def _one_after_another(values: dict[int, Floats]) -> Iterator[dict[str, Any]]:
    """The worker that is the most different from the others, then from the rest the next one, while there is one."""
    left = {number: mine for number, mine in values.items() if len(mine) >= FEWEST}
    medians = {number: float(np.median(mine)) for number, mine in left.items()}
    while len(left) > 1:
        lowest, highest = (extreme(medians[number] for number in left) for extreme in (min, max))
        if highest - lowest < max(DIFFERENT_MS, DIFFERENT_SHARE * lowest):
            return  # the median of several together lies between theirs
        told: list[dict[str, Any]] = []
        for number, mine in left.items():
            others = np.concatenate([values for other, values in left.items() if other != number])
            if difference := _difference(mine, others):
                told.append({"worker": number} | difference)
        if not told:
            return
        worst = max(told, key=_size)
        yield worst
        del left[worst["worker"]]


def _size(difference: dict[str, Any]) -> tuple[float, float]:
    """How different: by the ratio; of two that differ from each other, the slower one."""
    return round(abs(math.log(difference["median"] / difference["others"])), 9), difference["median"]


def _difference(mine: Floats, others: Floats) -> dict[str, float] | None:
    """Both medians, in milliseconds, where they differ."""
    median, of_others = float(np.median(mine)), float(np.median(others))
    if min(median, of_others) <= 0 or abs(median - of_others) < max(DIFFERENT_MS, DIFFERENT_SHARE * of_others):
        return None
    low, high = median_interval(mine)
    others_low, others_high = median_interval(others)
    if low <= others_high and high >= others_low:
        return None
    return {"median": median, "others": of_others, "share": median / of_others - 1, "requests": len(mine)}


def median_interval(values: Floats) -> tuple[float, float]:
    """The 95 % interval of the median, between two of the values and whatever their distribution: ranks half of n and
    0.98 √n to either side (the binomial distribution's normal limit)."""
    ordered = np.sort(values)
    reach = 0.98 * math.sqrt(len(ordered))
    low = max(0, math.floor(len(ordered) / 2 - reach))
    high = min(len(ordered) - 1, math.ceil(len(ordered) / 2 + reach) - 1)
    return float(ordered[low]), float(ordered[high])
