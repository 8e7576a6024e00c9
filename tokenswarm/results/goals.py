"""Whether a run kept to its goals (`--slo`), and how many of its requests to their limits (`--goodput`).

Counted is every request that was due in the measured windows, whatever became of it; slo.py says what each of them
means for a goal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pandas as pd

from tokenswarm.errors import OptionError
from tokenswarm.record import CANCELLED, INCOMPLETE, OK
from tokenswarm.results.flow import column
from tokenswarm.results.read import Run
from tokenswarm.slo import COLUMNS, SPEEDS, Limit, Objective, parse_goodput, parse_slo, value_at


class Figure(msgspec.Struct, frozen=True):
    """A request as a goal sees it: `value` is None where it has none, `age_ms` how long it lasted."""

    status: str
    value: float | None
    age_ms: float | None


def objectives(run: Run, cohort: pd.DataFrame, defects: list[str]) -> dict[str, Any] | None:
    """Of the whole run, and of the classes of users that have goals of their own. None without any.

    `attained` is None where something could not be measured and nothing was missed.
    """
    given = _text(run.info.options, "slo")
    found = {"objectives": _judged(given, cohort, run, defects), "classes": []}
    for user_class in run.info.user_classes:
        if own := _text(user_class.options, "slo"):
            rows = cohort[cohort["user_class"] == user_class.name]
            judged = _judged(own, rows, run, defects)
            found["classes"].append({"user_class": user_class.name, "objectives": judged})
    every = [each for part in (found, *found["classes"]) for each in part["objectives"]]
    return {"attained": _all(each["attained"] for each in every), **found} if every else None


def goodput(run: Run, cohort: pd.DataFrame, seconds: float, defects: list[str]) -> dict[str, Any] | None:
    """Requests that kept to all limits: a second, and of all that were due. None without limits.

    Out are those that were cancelled or cut before they were late. A limit that no request has a figure for is not
    measured, and so is then the whole, unless each request has missed something.
    """
    text = _text(run.info.options, "goodput")
    try:
        limits = parse_goodput(text) if text else ()
    except OptionError as error:
        defects.append(f"{error}.")
        limits = ()
    if not limits:
        return None
    classes = [name for name in cohort["user_class"].unique() if name]
    parts = [
        {"user_class": name, **_good(limits, cohort[cohort["user_class"] == name], run, seconds)} for name in classes
    ]
    return {
        "limits": [limit.text for limit in limits],
        **_good(limits, cohort, run, seconds),
        "classes": parts if len(parts) > 1 else [],
    }


def _text(options: Mapping[str, Any], name: str) -> str:
    given = options.get(name)
    return given if isinstance(given, str) else ""


def _judged(text: str, rows: pd.DataFrame, run: Run, defects: list[str]) -> list[dict[str, Any]]:
    try:
        return [_judge(objective, rows, run) for objective in parse_slo(text)] if text else []
    except OptionError as error:  # run.json was edited, or is of another version
        defects.append(f"{error}.")
        return []


def _judge(objective: Objective, rows: pd.DataFrame, run: Run) -> dict[str, Any]:
    counted, misses, values = 0, 0, []
    for figure in _figures(rows, objective.metric, run):
        missed = objective.missed_by(figure.status, figure.value, figure.age_ms)
        if missed is None:
            continue
        counted += 1
        misses += missed
        values.append(_worth(figure, objective.metric))
    share = misses / counted if counted else None
    value = share if objective.limit is None else value_at(sorted(values), objective)
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


def _worth(figure: Figure, metric: str) -> float:
    """What a request stands for in a percentile: what never came is infinitely late, what was cut as late as it was by
    then."""
    if figure.status == OK and figure.value is not None:
        return figure.value
    if metric in SPEEDS:
        return 0.0
    if figure.status in (CANCELLED, INCOMPLETE):
        found = figure.age_ms if figure.value is None else figure.value
        return found or 0.0
    return math.inf


def _good(limits: Sequence[Limit], rows: pd.DataFrame, run: Run, seconds: float) -> dict[str, Any]:
    columns = [list(_figures(rows, limit.metric, run)) for limit in limits]
    measured = all(any(figure.value is not None for figure in figures) for figures in columns)
    due = good = 0
    misses = [0] * len(limits)
    for figures in zip(*columns, strict=True):
        missed = [limit.missed_by(f.status, f.value, f.age_ms) for limit, f in zip(limits, figures, strict=True)]
        for index, each in enumerate(missed):
            misses[index] += each is True
        ended = figures[0].status == OK
        due += ended or True in missed
        good += ended and True not in missed
    known = due > 0 and (measured or good == 0)  # nothing is good where everything failed
    return {
        "due": due,
        "good": good if known else None,
        "per_s": good / seconds if known else None,
        "share": good / due if known else None,
        "misses": misses,
    }


def _figures(rows: pd.DataFrame, metric: str, run: Run) -> Iterator[Figure]:
    values = column(rows, COLUMNS[metric]) if metric in COLUMNS else [math.nan] * len(rows)
    ends = column(rows, "end_time")
    last = float(run.rows["end_time"].max()) if len(run.rows) else math.nan
    since, else_since = ("intended_time", "start_time") if metric == "ttft_due" else ("start_time", "intended_time")
    starts = rows[since].fillna(rows[else_since]).to_numpy(dtype="float64")
    for status, value, start, end in zip(rows["status"], values, starts, ends, strict=True):
        age = ((last if math.isnan(end) else end) - start) * 1e3
        yield Figure(str(status), None if math.isnan(value) else float(value), None if math.isnan(age) else float(age))


def _all(attained: Iterator[bool | None]) -> bool | None:
    found = list(attained)
    return False if False in found else None if None in found else True
