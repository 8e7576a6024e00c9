"""The report's section on hardware: what each device did in the window, and over the run's time."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from tokenswarm.results import page
from tokenswarm.results.charts.axes import WORKER_COLOURS, Figure, Row, stacked
from tokenswarm.results.charts.thinning import MOST_POINTS, extremes_kept
from tokenswarm.results.hardware import SHOWN
from tokenswarm.results.language import Language
from tokenswarm.results.page import escape
from tokenswarm.results.phases import Phases
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import count, number, on_chart, plain

CHARTED: Final = (("utilization_ratio", "cpu_busy_ratio"), ("power_watts",), ("memory_used_bytes",))
"""Rows of the chart; what is in one has one unit."""
MOST_DEVICES: Final = 16


def hardware(material: Material) -> str:
    """Nothing where nobody was asked."""
    samples, found, phases = material.run.hardware, material.summary["hardware"], material.phases
    say = material.say
    rows = [
        [
            escape(plain(figure["host"], 40)),
            f'<span class="words">{escape(plain(figure["device"], 60))}</span>',
            f"{escape(say(figure['label']))}, {escape(say(figure['unit']))}",
            *(number(figure[name]) for name in ("mean", "min", "max", "std")),
            count(figure["samples"]),
        ]
        for figure in found
    ]
    heads = [say("Machine"), say("device"), "", say("mean"), say("min"), say("max"), say("std"), say("samples")]
    chart = stacked([_row(samples, phases, metrics, say) for metrics in CHARTED], phases, say)
    caption = say("Use, power and memory, on the time axis of the charts above")
    drawn = page.figure("chart-hardware", chart, caption)
    note = say(
        "Samples inside the window; the highest is of the readings in them. Where nothing was told there is no line."
    )
    return page.section(say("Hardware"), drawn, page.table(heads, rows) if rows else "", note=note)


def _row(samples: pd.DataFrame, phases: Phases, metrics: tuple[str, ...], say: Language) -> Row | None:
    of_these = samples[samples["metric"].isin(metrics)]
    traces: list[Figure] = []
    for (host, device, metric), group in of_these.groupby(["host", "device", "metric"], sort=True, observed=True):
        if len(traces) == MOST_DEVICES:
            break
        x = group["time"].to_numpy(dtype=np.float64) - phases.start
        y = (group["mean"].fillna(group["value"]) * SHOWN[str(metric)].scale).to_numpy(dtype=np.float64)
        kept = extremes_kept(x, y, MOST_POINTS)
        style = {"color": WORKER_COLOURS[len(traces) % len(WORKER_COLOURS)], "width": 1.5}
        points = {"x": np.round(x[kept], 3).tolist(), "y": np.round(y[kept], 3).tolist()}
        name = {"name": f"{on_chart(host, 30)} {on_chart(device, 20)}", "showlegend": metrics == CHARTED[0]}
        traces.append({"type": "scatter", "mode": "lines", "line": style} | points | name)
    first = SHOWN[metrics[0]]
    title = say("GPU, CPU") if len(metrics) > 1 else say(first.label)
    return (f"{title}, {say(first.unit)}", traces) if traces else None
