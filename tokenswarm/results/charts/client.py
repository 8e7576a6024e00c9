"""How busy the measuring side was, over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tokenswarm.results.charts.axes import WORKER_COLOURS, Figure, Row, rounded, stacked
from tokenswarm.results.flow import column
from tokenswarm.results.language import Language
from tokenswarm.results.phases import Phases
from tokenswarm.results.read import Run

LEGEND_OF: Final = "cpu_percent"
CLIENT_GAUGES: Final = {"cpu_percent": "CPU, % of a core", "loop_lag_ms": "loop busy, ms"}


def over_time(run: Run, phases: Phases, workers: Sequence[int], say: Language) -> Figure | None:
    """CPU of these workers, and for how long at most their event loops read nothing, under one another."""
    rows = [_gauges(run, phases, workers, name, say) for name in CLIENT_GAUGES]
    return stacked(rows, phases, say)


def _gauges(run: Run, phases: Phases, workers: Sequence[int], name: str, say: Language) -> Row | None:
    traces: list[Figure] = []
    for index, worker in enumerate(workers):
        lines = run.intervals[(run.intervals["worker"] == worker) & run.intervals[name].notna()]
        if len(lines):
            style = {"color": WORKER_COLOURS[index % len(WORKER_COLOURS)], "width": 1.5}
            points = {"x": rounded(column(lines, "time") - phases.start), "y": rounded(column(lines, name))}
            shown = {
                "name": say("worker {index}", index=worker),
                "legendgroup": str(worker),
                "showlegend": name == LEGEND_OF,
            }
            traces.append({"type": "scatter", "mode": "lines", "line": style} | points | shown)
    return (say(CLIENT_GAUGES[name]), traces) if traces else None
