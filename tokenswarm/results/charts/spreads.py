"""Kinds of requests beside one another: for each, from p5 to p95, the middle half as a box, and the median."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from tokenswarm.results.charts.axes import BLUE, TEAL, VIOLET, Figure, rounded
from tokenswarm.results.distribution import Floats
from tokenswarm.results.wording import on_chart

SHARES: Final = (5, 25, 50, 75, 95)
FEWEST: Final = 20
"""Values without which p5 and p95 would be the outermost of a handful."""
COLOURS: Final = (BLUE, TEAL, VIOLET)
GAP: Final = 0.06


def side_by_side(titles: Sequence[str], kinds: Sequence[tuple[str, Sequence[Floats]]]) -> Figure | None:
    """One panel a title, one line a kind; each kind has a name and the values of each panel (NaN: not measured). None
    where no two kinds have enough values."""
    kinds = [(on_chart(name, 40), values) for name, values in kinds]
    panels = []
    for index, title in enumerate(titles):
        known = [(name, values[index][~np.isnan(values[index])]) for name, values in kinds]
        panels.append((title, [(name, values) for name, values in known if len(values) >= FEWEST]))
    panels = [(title, lines) for title, lines in panels if lines]
    if not any(len(lines) > 1 for _, lines in panels):
        return None
    names = [name for name, _ in kinds if any(name == one for _, lines in panels for one, _ in lines)]
    width = (1 - GAP * (len(panels) - 1)) / len(panels)
    axis = {"categoryorder": "array", "categoryarray": names[::-1], "type": "category"}
    layout: Figure = {"height": 110 + 34 * len(names), "yaxis": axis, "showlegend": False}
    data = []
    for index, (title, lines) in enumerate(panels):
        number = str(index + 1) if index else ""
        start = index * (width + GAP)
        place = {"domain": [round(start, 4), round(start + width, 4)], "rangemode": "tozero"}
        layout[f"xaxis{number}"] = place | {"title": {"text": title}}
        data.append(_boxes(lines, COLOURS[index % len(COLOURS)]) | {"xaxis": f"x{number}", "yaxis": "y"})
    return {"data": data, "layout": layout}


def _boxes(lines: Sequence[tuple[str, Floats]], colour: str) -> Figure:
    found = np.array([np.percentile(values, SHARES) for _, values in lines])
    names = ("lowerfence", "q1", "median", "q3", "upperfence")
    boxes: Figure = {name: rounded(found[:, index]) for index, name in enumerate(names)}
    boxes |= {"type": "box", "orientation": "h", "y": [name for name, _ in lines], "boxpoints": False, "name": ""}
    return boxes | {"marker": {"color": colour}, "line": {"width": 1.5}, "whiskerwidth": 0.4, "hoverinfo": "x"}
