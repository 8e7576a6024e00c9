"""Stalls over time: how many ended when, and how long each was."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np

from tokenswarm.results.charts.axes import WORKER_COLOURS, Figure, rounded, stacked, time_bins
from tokenswarm.results.language import Language
from tokenswarm.results.phases import Phases
from tokenswarm.results.wording import UNKNOWN, on_chart

SURE_S: Final = 1.2
"""A moment that is known less well has a line of what it may have been."""
MOST_BINS: Final = 120


def over_time(stalls: list[dict[str, Any]], phases: Phases, say: Language) -> Figure | None:
    """How many ended in each stretch of time, and a point for each, coloured by worker; None without any. `stalls` as
    `stalls.each` of summary.json has them."""
    edges = time_bins(phases, MOST_BINS)
    if not stalls or edges is None:
        return None
    edges = edges - phases.start
    width = float(edges[1] - edges[0])
    bars, points = [], []
    groups = _by_worker(stalls, say)
    for index, (name, mine) in enumerate(groups):
        look: Figure = {"name": name, "legendgroup": name}
        colour = WORKER_COLOURS[index]
        at = np.array([stall["at_s"] for stall in mine])
        counts, _ = np.histogram(np.clip(at, edges[0], edges[-1]), edges)
        bar = {"type": "bar", "x": rounded(edges[:-1]), "y": counts.tolist(), "width": width, "offset": 0}
        bars.append(look | bar | {"marker": {"color": colour}, "showlegend": len(groups) > 1})
        points.append(look | _points(mine, at, colour))
    return stacked([(say("stalls per {s} s", s=f"{width:g}"), bars), (say("length, s"), points)], phases, say)


def _by_worker(stalls: list[dict[str, Any]], say: Language) -> list[tuple[str, list[dict[str, Any]]]]:
    """As many groups as there are colours: where workers are more, those with the most stalls, and all others."""
    counts = Counter(stall["worker"] for stall in stalls)
    alone = len(counts) if len(counts) <= len(WORKER_COLOURS) else len(WORKER_COLOURS) - 1
    named = sorted((worker for worker, _ in counts.most_common(alone)), key=lambda worker: (worker is None, worker))
    groups = []
    for worker in named:
        name = say("worker {worker}", worker=UNKNOWN if worker is None else worker)
        groups.append((name, [stall for stall in stalls if stall["worker"] == worker]))
    if len(named) < len(counts):
        groups.append((say("other workers"), [stall for stall in stalls if stall["worker"] not in named]))
    return groups


def _points(stalls: list[dict[str, Any]], at: np.ndarray, colour: str) -> Figure:
    low, high = (np.array([stall[name] for stall in stalls]) for name in ("from_s", "to_s"))
    lengths = np.array([stall["gap_ms"] for stall in stalls]) / 1e3
    points: Figure = {"type": "scatter", "mode": "markers", "x": rounded(at), "y": rounded(lengths)}
    points |= {"marker": {"size": 7, "color": colour, "opacity": 0.7}, "showlegend": False}
    points |= {"text": [on_chart(stall["id"], 80) for stall in stalls]}
    unsure = high - low > SURE_S
    if unsure.any():
        reach = {"array": rounded(np.where(unsure, high - at, 0)), "arrayminus": rounded(np.where(unsure, at - low, 0))}
        points["error_x"] = {"type": "data", "symmetric": False, "color": colour, "thickness": 1, "width": 0} | reach
    return points
