"""What all charts are made of: plotly figures in plain dicts (`data` and `layout`), rows of traces on one time axis.

Colours of paper, axes and text are the page's. Every function that makes a chart returns None where nothing was
measured: an empty chart, or a zero that nobody measured, misleads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from tokenswarm.results.distribution import Floats
from tokenswarm.results.language import Language
from tokenswarm.results.phases import Phases

Figure = dict[str, Any]
Row = tuple[str, list[Figure]]
"""The title of an axis, and what is drawn on it."""
BLUE, TEAL, ORANGE, RED, VIOLET, GREY = "#3f83f8", "#14a38b", "#e8862e", "#e5484d", "#9a6ae8", "#8b93a1"
WORKER_COLOURS: Final = (BLUE, TEAL, ORANGE, VIOLET, "#d6409f", "#b59a00", RED, GREY)
SHADES: Final = {"ramp": "rgba(232,134,46,0.09)", "steady": "rgba(20,163,139,0.09)", "drain": "rgba(139,147,161,0.14)"}
CLEAR: Final = 10
"""Pixels from the numbers of an axis to its title, however wide the numbers are."""
MOST_BINS: Final = 600
MOST_LABELS: Final = 9
MOST_SHADES: Final = 200


def stacked(found: Iterable[Row | None], phases: Phases, say: Language) -> Figure | None:
    """Rows of traces, each with its title, on one time axis; `say` is for what the axis and the phases are called."""
    rows = [row for row in found if row]
    if not rows:
        return None
    layout: Figure = {
        "height": 90 + 210 * len(rows),
        "xaxis": seconds_axis(phases, say),
        "barmode": "stack",
        "bargap": 0,
    }
    layout |= shades(phases, say)
    data = []
    height, gap = (1 - 0.07 * (len(rows) - 1)) / len(rows), 0.07
    for index, (title, traces) in enumerate(rows):
        axis = f"y{index + 1}" if index else "y"
        top = 1 - index * (height + gap)
        layout["yaxis" + axis[1:]] = {
            "title": {"text": title},
            "domain": [max(0, top - height), top],
            "rangemode": "tozero",
        }
        data += [trace | {"yaxis": axis, "xaxis": "x"} for trace in traces]
    layout["xaxis"]["anchor"] = f"y{len(rows)}" if len(rows) > 1 else "y"
    return {"data": data, "layout": layout}


def time_bins(phases: Phases, most: int) -> Floats | None:
    """Edges of bins of whole seconds over the run, at most so many; a last, half-filled one is left out."""
    seconds = phases.end - phases.start
    if not 0 < seconds < 1e8:
        return None
    widths = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 6 * 3600, 86400)
    width = next((width for width in widths if seconds / width <= most), seconds / most)
    start = np.floor(phases.start)
    bins = max(1, int((phases.end - start) // width))
    edges: Floats = start + width * np.arange(bins + 1, dtype=np.float64)
    return edges


def seconds_axis(phases: Phases, say: Language) -> Figure:
    return {"title": {"text": say("seconds since the start")}, "range": [0, round(phases.end - phases.start, 3)]}


def value_axis(title: str, values: Floats, wide: bool) -> Figure:
    """An axis of values that were measured: from 0, or logarithmic where they are spread `wide`."""
    axis: Figure = {"title": {"text": title, "standoff": CLEAR}, "exponentformat": "none", "separatethousands": True}
    if not wide:
        return axis | {"rangemode": "tozero"}
    low, high = np.floor(np.log10(values[values > 0].min())), np.ceil(np.log10(values.max()))
    each = (1, 2, 5) if high - low <= 3 else (1,)
    ticks = [step * 10.0**power for power in range(int(low), int(high) + 1) for step in each]
    return axis | {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,.10g}" for tick in ticks]}


def shades(phases: Phases, say: Language) -> Figure:
    length = phases.end - phases.start
    shapes, labels = [], []
    longest = sorted(phases.phases, key=lambda phase: phase.seconds, reverse=True)[:MOST_SHADES]
    for phase in sorted(longest, key=lambda phase: phase.start):
        start, end = phase.start - phases.start, phase.end - phases.start
        shape = {"type": "rect", "xref": "x", "yref": "paper", "x0": start, "x1": end, "y0": 0, "y1": 1}
        shapes.append(shape | {"fillcolor": SHADES[phase.kind], "line": {"width": 0}, "layer": "below"})
        if (end - start) > length * 0.06:
            labels.append(label((start + end) / 2, say(phase.kind), 1.0) | {"yanchor": "bottom", "xanchor": "center"})
    return {"shapes": shapes, "annotations": labels if len(labels) <= MOST_LABELS else []}


def label(x: float, text: str, y: float) -> Figure:
    place = {"x": x, "y": y, "xref": "x", "yref": "paper", "xanchor": "left", "yanchor": "top"}
    return place | {"text": text, "showarrow": False, "font": {"size": 11}}


def line_of(x: list[float], y: Floats, name: str, colour: str, shape: str = "linear") -> Figure:
    style = {"color": colour, "width": 2 if shape == "linear" else 1.5, "shape": shape}
    return {"type": "scatter", "mode": "lines", "x": x, "y": rounded(y), "name": name, "line": style}


def rounded(values: Floats) -> list[Any]:
    """Short numbers: a chart needs no more than a thousandth, and the file stays small. What is no number is a gap."""
    found: list[Any] = np.round(values, 3).tolist()
    finite = np.isfinite(values)
    return found if np.all(finite) else [value if known else None for value, known in zip(found, finite, strict=True)]
