"""The slowest requests, what surrounded each, and whom that makes suspect: the server, the connection or the client."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tokenswarm.results import flow
from tokenswarm.results.cohort import Rows, ended_as
from tokenswarm.results.figures.surroundings import Surroundings
from tokenswarm.results.flow import Floats, column
from tokenswarm.results.phases import Phases
from tokenswarm.results.read import Run

KINDS: Final = ("ttft_ms", "e2e_ms", "itl_max_ms")
MOST: Final = 10
ORDINARY: Final = 0.5
"""A request so little above the median (and by no more than a millisecond) is nobody's fault."""
SERVER, CONNECTION, CLIENT, LENGTH = "server", "connection", "client", "length"
TOLD: Final = ("input_tokens", "output_tokens", "queue_ms", "client_lag_ms", "ttft_ms", "e2e_ms", "itl_max_ms")


def figures(run: Run, phases: Phases, cohort: Rows) -> dict[str, list[dict[str, Any]]]:
    """By each latency the cohort's slowest, the worst first: TTFT of all rows that have it, end to end of `ok` rows,
    the longest gap between chunks of all that have one. Left out is what began nobody knows when: nothing is known to
    have surrounded it."""
    around = Surroundings(run, phases)
    usual = _usual(cohort)
    found = {}
    for kind in KINDS:
        values = np.where(np.isnan(column(cohort, "start_time")), np.nan, column(cohort, kind))
        if kind == "e2e_ms":
            values = np.where(ended_as(cohort, "ok"), values, np.nan)
        rows = cohort.take(_highest(values))
        records: list[dict[Any, Any]] = rows.to_dict("records")
        found[kind] = [_slow(row, kind, usual, around) for row in records]
    return found


def _highest(values: Floats) -> npt.NDArray[np.int64]:
    """Indices of the highest, the highest first; NaN is none."""
    known = np.flatnonzero(~np.isnan(values))
    top = known[np.argpartition(-values[known], MOST - 1)[:MOST]] if len(known) > MOST else known
    return top[np.argsort(-values[top], kind="stable")]


def _usual(cohort: Rows) -> dict[str, float]:
    """Medians that a slow request is held against; NaN where nothing was measured."""
    ok = ended_as(cohort, "ok")
    found = {name: _median(column(cohort, name)) for name in ("ttft_ms", "itl_max_ms")}
    found |= {name: _median(column(cohort, name)[ok]) for name in ("e2e_ms", "tpot_ms", "output_tokens")}
    return found | {"before_sent_ms": _median(flow.before_sent_ms(cohort))}


def _median(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else np.nan


def _slow(row: dict[str, Any], kind: str, usual: dict[str, float], around: Surroundings) -> dict[str, Any]:
    before = _sum(row, flow.BEFORE_SENT)
    own = around.of(row, kind)
    low = row["ttft_low_ms"]
    bounds = 0.0 if np.isnan(low) or np.isnan(row["ttft_ms"]) else max(0.0, row["ttft_ms"] - low)
    known = {name: None if np.isnan(row[name]) else float(row[name]) for name in TOLD}
    return {
        "id": str(row["id"]),
        "times_median": float(row[kind] / usual[kind]) if usual[kind] > 0 else None,
        "suspect": _suspect(row, kind, usual, own, before, bounds),
        "at_s": own.pop("at_s"),
        "status": str(row["status"]),
        "user_class": str(row["user_class"]),
        "name": str(row["name"]),
        "worker": None if np.isnan(row["worker"]) else int(row["worker"]),
        "step": None if np.isnan(row["step"]) else int(row["step"]),
        **known,
        "before_sent_ms": before,
        "bounds_ms": bounds,
        "conn_reused": {"true": True, "false": False}.get(str(row["conn_reused"]).lower()),
        **own,
    }


def _sum(row: dict[str, Any], names: tuple[str, ...]) -> float:
    return float(np.nansum([row[name] for name in names]))


def _suspect(
    row: dict[str, Any], kind: str, usual: dict[str, float], own: dict[str, Any], before: float, bounds: float
) -> str | None:
    """Whose part of what is above the median is the largest; None of a request that is hardly above it.

    The client's: what it does not know of an arrival since it read late, and of the time before sending what its event
    loop was busy for. The connection's: the rest of the time before sending. In a whole request, a reply longer than
    the median's, at the median pace, is its `length`. The server's, or the network's to it: everything else.
    """
    above = row[kind] - usual[kind]
    if above <= max(1.0, ORDINARY * usual[kind]):
        return None
    busy = own["loop_lag_ms"] or 0.0
    if kind == "itl_max_ms":
        # Of a client that does not read, the server hears by TCP, and stands still.
        late = row["clock"] == "user" and busy * 2 >= row[kind]
        return CLIENT if late or own["ring_full"] else SERVER
    sending = max(0.0, before - usual["before_sent_ms"])
    own_part = min(sending, busy) + bounds
    parts = {CLIENT: own_part, CONNECTION: sending - min(sending, busy), LENGTH: 0.0}
    if kind == "e2e_ms":
        longer = (row["output_tokens"] - usual["output_tokens"]) * usual["tpot_ms"]
        parts[LENGTH] = 0.0 if np.isnan(longer) else max(0.0, longer)
    parts[SERVER] = max(0.0, above - sum(parts.values()))
    return max(parts, key=lambda name: parts[name])
