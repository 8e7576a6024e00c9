"""A load level: what was measured at one load, over repeated runs taken together.

Percentiles are those of all requests together, never means of percentiles; rates are all amounts over all seconds. How
far the runs lie apart is kept beside that (`Level.each`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tokenswarm import verdict
from tokenswarm.results import distribution
from tokenswarm.results.compare import metrics
from tokenswarm.results.distribution import Distribution, Floats
from tokenswarm.results.sweep.observe import SPEED, Part
from tokenswarm.verdict import Reason

VALID_ONLY: Final = "valid"
DEGRADED_TOO: Final = "degraded"
ALL: Final = "all"
TRUST: Final = (VALID_ONLY, DEGRADED_TOO, ALL)
"""Which levels may be on the front, the knee or an answer. Where the client was the limit only with ALL."""
_FAILED: Final = ("failed", "timeout", "shed")


@dataclass(frozen=True)
class Level:
    """`rates` are per second, by what; `means` are over the time: `in_flight` and `users` (running). Latencies by the
    names of `compare.metrics`. None: not measured."""

    runs: tuple[str, ...]
    open_loop: bool
    users: int | None
    rate: float | None
    seconds: float
    statuses: dict[str, int]
    latency: dict[str, Distribution | None]
    speed: Distribution | None
    """Tokens a second of one request while it streams (1 / TPOT)."""
    rates: dict[str, float | None]
    means: dict[str, float | None]
    objectives: tuple[dict[str, Any], ...]
    goodput: dict[str, Any] | None
    energy: dict[str, float | None] | None
    verdict: str
    reasons: tuple[Reason, ...]
    client_was_the_limit: bool
    overloaded: bool
    each: tuple[Level, ...] = ()
    """Of each run by itself, where there are several."""

    @property
    def load(self) -> float | None:
        """Users; in an open loop requests a second: asked for, or, where that is not known, due."""
        if not self.open_loop:
            return None if self.users is None else float(self.users)
        return self.rates["due"] if self.rate is None else self.rate

    @property
    def due(self) -> int:
        return sum(self.statuses.values())

    @property
    def failed(self) -> int:
        return sum(self.statuses.get(name, 0) for name in _FAILED)

    @property
    def attained(self) -> bool | None:
        """Whether all goals were kept; None without any, and where one was not measured and none was missed."""
        found = [objective["attained"] for objective in self.objectives]
        return None if not found else False if False in found else None if None in found else True

    def of(self, metric: metrics.Metric) -> float | None:
        """A statistic of a latency; its upper bound."""
        found = self.latency[metric.of]
        return None if found is None else found.get(metric.statistic)

    def low(self, metric: metrics.Metric) -> float | None:
        """The lower bound of the same."""
        found = self.latency[metric.of]
        value = None if found is None else found.get("low", {}).get(metric.statistic)
        return self.of(metric) if value is None else value

    def unsure(self, metric: metrics.Metric) -> bool:
        """Whether too few requests carry it."""
        found = self.latency[metric.of]
        return found is not None and metric.statistic in found["unsure"]

    def spread(self, of: Callable[[Level], float | None]) -> tuple[float, float] | None:
        """The lowest and the highest of the runs by themselves; None with one."""
        known = [value for one in self.each if (value := of(one)) is not None]
        return (min(known), max(known)) if len(known) > 1 else None

    def trusted(self, trust: str) -> bool:
        if trust == ALL:
            return True
        allowed = (verdict.VALID,) if trust == VALID_ONLY else (verdict.VALID, verdict.DEGRADED)
        return self.verdict in allowed and not self.client_was_the_limit


def levels(parts: Iterable[Part], *, itl: bool = False) -> tuple[Level, ...]:
    """Parts of one curve as levels, by rising load. Those at the same load are pooled, but a part that is not valid
    only with others of its kind, so that it does not spoil the rest. `itl`: with that latency, which takes a while."""
    groups: dict[object, list[Part]] = {}
    for index, part in enumerate(parts):
        at: object = part.users if not part.open_loop else None if part.rate is None else float(f"{part.rate:.6g}")
        key = (at, part.verdict.level, part.client_was_the_limit) if at is not None else index
        groups.setdefault(key, []).append(part)
    return tuple(sorted((pooled(group, itl=itl) for group in groups.values()), key=lambda level: level.load or 0.0))


def pooled(parts: Sequence[Part], *, itl: bool = False) -> Level:
    """One level of one part or several."""
    first = parts[0]
    seconds = sum(part.seconds for part in parts)
    per_second = {name: _over(_total(part.amounts[name] for part in parts), seconds) for name in first.amounts}
    output, into = per_second["output_tokens"], per_second["input_tokens"]
    per_second["total_tokens"] = None if output is None or into is None else output + into
    latency = {name: distribution.of(_joined(parts, name)) for name in metrics.COLUMNS}
    latency["ttft"] = distribution.of(_joined(parts, "ttft"), np.concatenate([part.ttft_low for part in parts]))
    latency[metrics.ITL] = _itl(parts) if itl else None
    statuses = {name: 0 for part in parts for name in part.statuses}
    return Level(
        runs=tuple(part.run for part in parts),
        open_loop=first.open_loop,
        users=first.users,
        rate=first.rate,
        seconds=seconds,
        statuses={name: sum(part.statuses.get(name, 0) for part in parts) for name in statuses},
        latency=latency,
        speed=distribution.of(_joined(parts, SPEED)),
        rates={name: value for name, value in per_second.items() if name not in ("in_flight", "users")},
        means={name: per_second[name] for name in ("in_flight", "users")},
        objectives=_objectives(parts),
        goodput=_goodput(parts, seconds),
        energy=_energy(parts),
        verdict=verdict.worst(*(part.verdict.level for part in parts)),
        reasons=tuple(reason for part in parts for reason in part.verdict.reasons if reason.level != verdict.NOTE),
        client_was_the_limit=any(part.client_was_the_limit for part in parts),
        overloaded=all(part.overloaded for part in parts),
        each=tuple(pooled([part], itl=itl) for part in parts) if len(parts) > 1 else (),
    )


def _total(amounts: Iterable[float | None]) -> float | None:
    """Unknown as soon as one is."""
    found = list(amounts)
    known = [amount for amount in found if amount is not None]
    return sum(known) if len(known) == len(found) else None


def _over(amount: float | None, by: float | None) -> float | None:
    return amount / by if amount is not None and by else None


def _joined(parts: Sequence[Part], name: str) -> Floats:
    return np.concatenate([part.samples[name] for part in parts])


def _itl(parts: Sequence[Part]) -> Distribution | None:
    """None as well where a histogram is damaged, which is said elsewhere: a run with one has a defect."""
    try:
        return distribution.of_histograms(text for part in parts for text in part.itl)
    except ValueError:
        return None


def _objectives(parts: Sequence[Part]) -> tuple[dict[str, Any], ...]:
    """Shares of requests that missed each goal; only goals that all parts have."""
    texts = [[objective["objective"] for objective in part.objectives] for part in parts]
    found = []
    for text in texts[0]:
        same = [objective for part in parts for objective in part.objectives if objective["objective"] == text]
        if len(same) < len(parts):
            continue
        counted, misses = sum(one["counted"] for one in same), sum(one["misses"] for one in same)
        share = _over(misses, counted)
        attained = None if share is None else share < same[0]["allowed"]
        found.append(
            {"objective": text, "counted": counted, "misses": misses, "miss_share": share} | {"attained": attained}
        )
    return tuple(found)


def _goodput(parts: Sequence[Part], seconds: float) -> dict[str, Any] | None:
    known = [part.goodput for part in parts if part.goodput]
    if len(known) < len(parts) or len({tuple(one["limits"]) for one in known}) > 1:
        return None
    good, due = _total(one["good"] for one in known), sum(one["due"] for one in known)
    return {"limits": known[0]["limits"], "per_s": _over(good, seconds), "share": _over(good, due)}


def _energy(parts: Sequence[Part]) -> dict[str, float | None] | None:
    told = [part.energy for part in parts if part.energy]
    if len(told) < len(parts):
        return None
    names = ("seconds", "joules", "net_joules", "cost", "output_tokens", "total_tokens")
    used = {name: _total(one[name] for one in told) for name in names}
    cost = None if used["cost"] is None else used["cost"] * 1e6
    return {
        "watts": _over(used["joules"], used["seconds"]),
        "output_tokens_per_joule": _over(used["output_tokens"], used["joules"]),
        "net_output_tokens_per_joule": _over(used["output_tokens"], used["net_joules"]),
        "total_tokens_per_joule": _over(used["total_tokens"], used["joules"]),
        "cost_per_million_output_tokens": _over(cost, used["output_tokens"]),
        "cost_per_million_total_tokens": _over(cost, used["total_tokens"]),
    }
