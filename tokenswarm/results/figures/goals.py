"""Whether a run kept to its goals (`--slo`), and how many of its requests to their limits (`--goodput`).

Counted is every request that was due in the measured windows, whatever became of it; slo.py says what each of them
means for a goal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from tokenswarm.errors import OptionError
from tokenswarm.record import CANCELLED, FAILED, INCOMPLETE, OK, SHED, TIMEOUT
from tokenswarm.results.cohort import Mask, Rows, among
from tokenswarm.results.flow import Floats, column
from tokenswarm.results.read import Run
from tokenswarm.slo import COLUMNS, SPEEDS, Limit, Objective, parse_goodput, parse_slo, value_at


@dataclass(frozen=True)
class Figures:
    """Requests as a goal sees them, one beside another: `values` is NaN where one has none, `ages_ms` how long each
    lasted (NaN: unknown)."""

    statuses: pd.Series[Any]
    values: Floats
    ages_ms: Floats

    def are(self, *statuses: str) -> Mask:
        """Which of them have one of these statuses."""
        return self.statuses.isin(statuses).to_numpy()


@dataclass(frozen=True)
class Held:
    """What several limits on each request make of some requests, one beside another: which of them count, which of
    these kept to all limits, and, for each limit, which missed it and which have a figure for it."""

    due: Mask
    good: Mask
    missed: tuple[Mask, ...]
    told: tuple[Mask, ...]

    @property
    def known(self) -> bool:
        """Not where none has a figure for one of the limits; but nothing is good where everything failed."""
        measured = all(each.any() for each in self.told)
        return bool(self.due.any()) and (measured or not bool(self.good.any()))

    def among(self, some: Mask) -> Held:
        """The same of some of them."""
        missed, told = (tuple(each[some] for each in masks) for masks in (self.missed, self.told))
        return Held(self.due[some], self.good[some], missed, told)


def objectives(run: Run, cohort: Rows, defects: list[str]) -> dict[str, Any] | None:
    """Of the whole run, and of the classes of users that have goals of their own. None without any.

    `attained` is None where something could not be measured and nothing was missed.
    """
    given = _text(run.info.options, "slo")
    found = {"objectives": _judged(given, cohort, run, defects), "classes": []}
    for user_class in run.info.user_classes:
        if own := _text(user_class.options, "slo"):
            of_class = among(cohort, (cohort["user_class"] == user_class.name).to_numpy())
            judged = _judged(own, of_class, run, defects)
            found["classes"].append({"user_class": user_class.name, "objectives": judged})
    every = [each for part in (found, *found["classes"]) for each in part["objectives"]]
    return {"attained": _all(each["attained"] for each in every), **found} if every else None


def goodput(run: Run, cohort: Rows, seconds: float, defects: list[str]) -> dict[str, Any] | None:
    """Requests that kept to all limits: a second, and of all that were due. None without limits.

    Out are those that were cancelled or cut before they were late. A limit that no request has a figure for is not
    measured, and so is then the whole, unless each request has missed something.
    """
    try:
        limits = goodput_limits(run)
    except OptionError as error:  # run.json was edited, or is of another version
        defects.append(f"{error}.")
        limits = ()
    if not limits:
        return None
    held, user_class = held_to(limits, cohort, run), cohort["user_class"]
    classes = sorted(str(name) for name in user_class.unique() if name)
    parts = [
        {"user_class": name, **_good(held.among((user_class == name).to_numpy()), seconds)}
        for name in (classes if len(classes) > 1 else ())
    ]
    return {"limits": [limit.text for limit in limits], **_good(held, seconds), "classes": parts}


def goodput_limits(run: Run) -> tuple[Limit, ...]:
    """The run's own `--goodput`; empty without. Raises OptionError if it cannot be understood."""
    text = _text(run.info.options, "goodput")
    return parse_goodput(text) if text else ()


def _text(options: Mapping[str, Any], name: str) -> str:
    given = options.get(name)
    return given if isinstance(given, str) else ""


def _judged(text: str, rows: Rows, run: Run, defects: list[str]) -> list[dict[str, Any]]:
    try:
        return [_judge(objective, rows, run) for objective in parse_slo(text)] if text else []
    except OptionError as error:  # run.json was edited, or is of another version
        defects.append(f"{error}.")
        return []


def _judge(objective: Objective, rows: Rows, run: Run) -> dict[str, Any]:
    figures = _figures(rows, objective.metric, run)
    counts, missed = missed_by(objective, figures)
    counted, misses = int(counts.sum()), int(missed.sum())
    share = misses / counted if counted else None
    value = share
    if objective.limit is not None:
        ranked = np.sort(_worths(figures, objective.metric)[counts])
        value = value_at(cast(Sequence[float], ranked), objective)
        value = None if value is None else float(value)
    never = 0.0 if objective.metric in SPEEDS else math.inf
    beyond = objective.limit is not None and value == never
    return {
        "objective": objective.text,
        "metric": objective.metric,
        "limit": None if objective.limit is None else objective.limit.bound,
        "allowed": objective.allowed,
        "counted": counted,
        "misses": misses,
        "miss_share": share,
        "value": None if beyond else value,
        "beyond": beyond,
        "attained": None if share is None else share < objective.allowed,
    }


def missed_by(goal: Objective | Limit, figures: Figures) -> tuple[Mask, Mask]:
    """Of each request, whether it counts, and whether it missed: `missed_by` of the goal, for many at once."""
    limit = goal if isinstance(goal, Limit) else goal.limit
    lost, cut = figures.are(FAILED, TIMEOUT, SHED), figures.are(CANCELLED, INCOMPLETE)
    if limit is None:
        return ~cut, lost
    values, speed = figures.values, limit.metric in SPEEDS
    told = ~np.isnan(values)
    # What was still on its way and has its figure counts as any other, unless the figure grows until the end.
    if limit.metric != "e2e" and not speed:
        cut = cut & ~(told & figures.are(INCOMPLETE))
    late = values if limit.metric == "tpot" else np.where(told, values, figures.ages_ms)
    beyond = np.zeros_like(cut) if speed else late >= limit.bound
    kept = values > limit.bound if speed else values < limit.bound
    counts: Mask = lost | np.where(cut, beyond, told)
    return counts, counts & (lost | cut | ~kept)


def _worths(figures: Figures, metric: str) -> Floats:
    """What each request stands for in a percentile: what never came is infinitely late, what was cut as late as it was
    by then."""
    known = np.where(np.isnan(figures.values), figures.ages_ms, figures.values)
    cut = np.where(figures.are(CANCELLED, INCOMPLETE), np.nan_to_num(known), math.inf)
    others = np.zeros_like(cut) if metric in SPEEDS else cut
    return np.where(figures.are(OK) & ~np.isnan(figures.values), figures.values, others)


def held_to(limits: Sequence[Limit], rows: Rows, run: Run) -> Held:
    """Requests of the run, held to one limit or more."""
    columns = [_figures(rows, limit.metric, run) for limit in limits]
    missed = tuple(missed_by(limit, figures)[1] for limit, figures in zip(limits, columns, strict=True))
    late, ended = np.logical_or.reduce(missed), columns[0].are(OK)
    return Held(ended | late, ended & ~late, missed, tuple(~np.isnan(figures.values) for figures in columns))


def _good(held: Held, seconds: float) -> dict[str, Any]:
    due, good = int(held.due.sum()), int(held.good.sum())
    return {
        "due": due,
        "good": good if held.known else None,
        "per_s": good / seconds if held.known else None,
        "share": good / due if held.known else None,
        "misses": [int(each.sum()) for each in held.missed],
    }


def _figures(rows: Rows, metric: str, run: Run) -> Figures:
    values = column(rows, COLUMNS[metric]) if metric in COLUMNS else np.full(len(rows), np.nan)
    last = float(run.rows["end_time"].max()) if len(run.rows) else math.nan
    ends = column(rows, "end_time")
    since, else_since = ("intended_time", "start_time") if metric == "ttft_due" else ("start_time", "intended_time")
    starts = column(rows, since)
    starts = np.where(np.isnan(starts), column(rows, else_since), starts)
    return Figures(rows["status"], values, (np.where(np.isnan(ends), last, ends) - starts) * 1e3)


def _all(attained: Iterator[bool | None]) -> bool | None:
    found = list(attained)
    return False if False in found else None if None in found else True
