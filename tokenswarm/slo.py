"""Goals: `--slo "ttft_p95<500ms error_rate<1%"` is about a run, `--goodput "ttft<500ms tpot<50ms"` about each request.

An objective on a percentile is one on a share of requests: p95 < 500 ms says that fewer than 5 % miss 500 ms. What
never came has missed it as well, so that a server does not look better for failing: METRICS of the documentation,
"Goals". Not here: reading rows (`results/figures/`) and the test that decides on few of them (`load/sequential.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec

from tokenswarm.errors import OptionError
from tokenswarm.record import CANCELLED, FAILED, INCOMPLETE, SHED, TIMEOUT

COLUMNS: Final = {
    "ttft": "ttft_ms",
    "ttft_sent": "ttft_sent_ms",
    "ttft_due": "ttft_due_ms",
    "tpot": "tpot_ms",
    "e2e": "e2e_ms",
    "output_tps": "output_tps",
}
"""The column of requests.csv behind each metric."""
ERROR_RATE: Final = "error_rate"
SPEEDS: Final = frozenset(("output_tps",))
"""Metrics of which more is better, per second; the others are times."""
_LOST: Final = frozenset((FAILED, TIMEOUT, SHED))

SLO_EXAMPLE: Final = "ttft_p95<500ms tpot_p95<50ms error_rate<1%"
GOODPUT_EXAMPLE: Final = "ttft<500ms tpot<50ms"

_TERM: Final = re.compile(r"(?P<metric>[a-z0-9_]+?)(?:_p(?P<rank>\d+(?:\.\d+)?))?(?P<side>[<>])(?P<limit>[^<>]+)")
_LIMIT: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|s|%|/s|)")
_MILLISECONDS: Final = {"ms": 1.0, "s": 1000.0}


T = TypeVar("T")


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What one request should keep to. `bound` in milliseconds, of a speed per second."""

    text: str
    metric: str
    bound: float

    def missed_by(self, status: str, value: float | None, age_ms: float | None = None) -> bool | None:
        """Whether a request missed it; None where it says nothing.

        `value` is its cell in the metric's column (None: empty), `age_ms` how long the request had lasted by its end or
        the run's. What failed has missed every limit. What was cancelled is out unless it was late already; what was
        still on its way is out unless it was late, or its figure was there.
        """
        if status in _LOST:
            return True
        if status == CANCELLED:
            return True if self._beyond(value, age_ms) else None
        if status == INCOMPLETE and (value is None or self.metric in ("e2e", *SPEEDS)):
            return True if self._beyond(value, age_ms) else None
        return None if value is None else not self._kept(value)

    def _kept(self, value: float) -> bool:
        return value > self.bound if self.metric in SPEEDS else value < self.bound

    def _beyond(self, value: float | None, age_ms: float | None) -> bool:
        """Whether it is too late already, however it would have ended."""
        if self.metric in SPEEDS:
            return False
        if value is None and self.metric != "tpot":  # a speed of the stream has no age
            value = age_ms
        return value is not None and not self._kept(value)


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """What a run should keep to: fewer than `allowed` (a share of 1) of its requests may miss the limit, or fail where
    there is no limit (`error_rate`)."""

    text: str
    limit: Limit | None
    allowed: float

    @property
    def metric(self) -> str:
        return ERROR_RATE if self.limit is None else self.limit.metric

    def missed_by(self, status: str, value: float | None, age_ms: float | None = None) -> bool | None:
        """Whether a request counts against it, as `Limit.missed_by` has it; None where it does not count at all."""
        if self.limit is not None:
            return self.limit.missed_by(status, value, age_ms)
        return None if status in (CANCELLED, INCOMPLETE) else status in _LOST


def parse_slo(text: str) -> tuple[Objective, ...]:
    """Objectives, separated by spaces or commas. Raises OptionError, a line each for all that is wrong."""
    return _read(text, "--slo", SLO_EXAMPLE, _objective)


def parse_goodput(text: str) -> tuple[Limit, ...]:
    """Limits on each request, separated by spaces or commas. Raises OptionError, a line each for all that is wrong."""
    return _read(text, "--goodput", GOODPUT_EXAMPLE, _limit)


def value_at(values: Sequence[float], objective: Objective) -> float | None:
    """Of sorted figures, the one whose keeping the limit is the objective's being met; None of none.

    It is the order statistic after the share that must keep to it, so that it is below the limit exactly if fewer than
    `allowed` are not. `inf` stands for what failed (0 for a speed).
    """
    if not len(values):
        return None
    if objective.metric in SPEEDS:
        values = values[::-1]
    return values[min(len(values) - 1, math.floor((1.0 - objective.allowed) * len(values) + 1e-9))]


def _read(text: str, flag: str, example: str, read: Callable[[str], T]) -> tuple[T, ...]:
    joined = re.sub(r"\s*([<>])\s*", r"\1", text)
    joined = re.sub(r"(?<=\d)\s+(?=(?:ms|s|%|/s)(?:[\s,]|$))", "", joined)
    terms = [term for term in re.split(r"[\s,]+", joined) if term]
    found, problems = [], []
    for term in terms:
        try:
            found.append(read(term))
        except ValueError as error:
            problems.append(f"{flag} {term!r}: {error}")
    if not terms:
        problems.append(f"{flag} is empty: write it as {example!r}")
    problems += [f"{flag} {term!r}: it is there twice" for term in sorted({t for t in terms if terms.count(t) > 1})]
    if problems:
        raise OptionError("\n".join(problems))
    return tuple(found)


def _objective(term: str) -> Objective:
    match, known = _TERM.fullmatch(term), f"{', '.join(COLUMNS)} with a percentile, and {ERROR_RATE}"
    if match is None:
        raise ValueError(f"not an objective; write them as {SLO_EXAMPLE!r}")
    metric, rank, side = match["metric"], match["rank"], match["side"]
    if metric == ERROR_RATE:
        allowed = _number(match["limit"], ("%", ""), f"{ERROR_RATE}<1%")
        allowed = allowed / 100 if match["limit"].endswith("%") else allowed
        if rank is not None or side != "<" or not 0.0 < allowed < 1.0:
            raise ValueError(f"write it as a share between 0 and 100 %, as in {ERROR_RATE}<1%")
        return Objective(text=term, limit=None, allowed=allowed)
    if metric not in COLUMNS:
        raise ValueError(f"{_no_metric(metric)}; known are {known}; for example {SLO_EXAMPLE!r}")
    if rank is None:
        raise ValueError(f"of which percentile? Write {metric}_p95{side}{match['limit']}")
    if not 0.0 < float(rank) < 100.0:
        raise ValueError("a percentile lies between 0 and 100")
    share = float(rank) / 100
    # Rounded, since 1.0 - 0.95 is a bit more than 0.05: exactly 5 % would then be fewer than that.
    allowed = round(share if metric in SPEEDS else 1.0 - share, 12)
    return Objective(text=term, limit=_limited(metric, side, match["limit"], f"_p{rank}", term), allowed=allowed)


def _limit(term: str) -> Limit:
    match = _TERM.fullmatch(term)
    if match is None:
        raise ValueError(f"not a limit; write them as {GOODPUT_EXAMPLE!r}")
    if match["rank"] is not None:
        raise ValueError("a limit on each request has no percentile; those are for --slo")
    if match["metric"] not in COLUMNS:
        raise ValueError(
            f"{_no_metric(match['metric'])}; known are {', '.join(COLUMNS)}; for example {GOODPUT_EXAMPLE!r}"
        )
    return _limited(match["metric"], match["side"], match["limit"], "", term)


def _limited(metric: str, side: str, limit: str, rank: str, term: str) -> Limit:
    speed = metric in SPEEDS
    example = f"{metric}{rank or ''}{'>30' if speed else '<500ms'}"
    if speed != (side == ">"):
        better = "more is better, so it takes >" if speed else "less is better, so it takes <"
        raise ValueError(f"of {metric} {better}, as in {example}")
    bound = _number(limit, ("/s", "") if speed else ("ms", "s"), example)
    for unit, factor in _MILLISECONDS.items():
        if not speed and limit.endswith(unit):
            bound *= factor
            break
    if bound <= 0:
        raise ValueError(f"the limit must be more than 0, as in {example}")
    return Limit(text=term, metric=metric, bound=bound)


def _number(text: str, units: Sequence[str], example: str) -> float:
    match = _LIMIT.fullmatch(text)
    if match is None or match["unit"] not in units:
        wanted = " or ".join(unit for unit in units if unit)
        raise ValueError(f"{text!r} is no number of {wanted}; write it as in {example}")
    return float(match["number"])


def _no_metric(name: str) -> str:
    if name == "itl":
        return "itl is measured over all requests together and not for each; take tpot"
    return f"there is no {name!r}"
