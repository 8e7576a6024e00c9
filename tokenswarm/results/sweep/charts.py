"""Charts of a sweep, as plotly figures in plain dicts; None where nothing was measured.

A point is a level, with its load beside it. Filled: it counts; hollow: its verdict keeps it from being chosen.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from tokenswarm.results.charts.axes import BLUE, GREY, ORANGE, RED, TEAL, VIOLET, Figure
from tokenswarm.results.compare import metrics
from tokenswarm.results.language import Language
from tokenswarm.results.sweep import wording
from tokenswarm.results.sweep.curve import IN_FLIGHT, RATE, TOKENS, USERS, Curve, Sweep
from tokenswarm.results.sweep.levels import Level
from tokenswarm.results.wording import number, plain
from tokenswarm.slo import parse_slo

COLOURS: Final = (BLUE, VIOLET, TEAL, RED, "#d6409f", "#b59a00", GREY)
AXES: Final = {USERS: "users", RATE: "requests/s asked for", IN_FLIGHT: "requests in flight"}
MOST_TICKS: Final = 14
_LONGEST: Final = 28
_NEAR_X, _NEAR_Y = 0.04, 0.05
"""Shares of a chart's width and height within which two labels would touch."""
_WIDE: Final = 20.0
"""Axes are logarithmic from this ratio of the highest to the lowest value on."""

Of = Callable[[Level], float | None]


def trade_off(sweep: Sweep, say: Language) -> Figure | None:
    """Latency against throughput, with front, knee and goal: down and to the right is better."""
    found = Drawing(sweep, say)
    for curve in sweep.curves:
        found.front(curve)
        found.points(
            curve,
            lambda level: level.rates[sweep.throughput],
            lambda level: level.of(sweep.latency),
            low=lambda level: level.low(sweep.latency),
        )
        for index, title, colour in ((curve.best, say("best"), TEAL), (curve.knee.index, say("knee"), ORANGE)):
            if index is not None:
                found.ring(curve.levels[index], title, colour)
    if not found.traces:
        return None
    y: Figure = {"title": {"text": f"{wording.latency_title(sweep.latency, say)}, ms"}}
    y |= _scale(level.of(sweep.latency) for level in sweep.levels)
    x = {"title": {"text": wording.throughput_title(sweep, say)}, "rangemode": "tozero"}
    layout: Figure = {"height": 440, "xaxis": x, "yaxis": y, "shapes": [], "annotations": []}
    for goal, bound in _bounds(sweep):
        across = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": bound, "y1": bound}
        layout["shapes"].append(across | {"line": {"color": RED, "width": 1, "dash": "dash"}})
        at = math.log10(bound) if y.get("type") == "log" else bound
        place = {"xref": "paper", "x": 0.01, "xanchor": "left", "y": at, "yanchor": "bottom", "showarrow": False}
        layout["annotations"].append(place | {"text": _text(goal), "font": {"size": 11}})
    return found.figure(layout)


def speeds(sweep: Sweep, say: Language) -> Figure | None:
    """Tokens a second of all users together against those of one: up and to the right is better."""
    if sweep.throughput != TOKENS:
        return None
    found = Drawing(sweep, say)
    for curve in sweep.curves:
        found.points(curve, _speed, lambda level: level.rates[TOKENS], line=True)
    x = {"title": {"text": say("tokens/s of one user, median (1 / TPOT)")}, "rangemode": "tozero"}
    y = {"title": {"text": say("output tokens/s")}, "rangemode": "tozero"}
    return found.figure({"height": 340, "xaxis": x, "yaxis": y})


def throughput(sweep: Sweep, say: Language) -> Figure | None:
    """Throughput against load."""
    title = wording.throughput_title(sweep, say)
    return _against_load(sweep, say, title, [(title, lambda level: level.rates[sweep.throughput])])


def latencies(sweep: Sweep, say: Language) -> Figure | None:
    """Percentiles of the latency against load: three of one curve, the chosen one of several."""
    of = sweep.latency.of
    shown = [metrics.METRICS[f"{of}_{name}"] for name in ("p50", "p95", "p99")]
    shown = [sweep.latency] if len(sweep.curves) > 1 else [metric for metric in shown if metric != sweep.latency]
    shown = shown if sweep.latency in shown else [sweep.latency, *shown]
    title = f"{say(metrics.title_of(of))}, ms"
    lines: list[tuple[str, Of]] = [
        (say(metric.statistic), lambda level, metric=metric: level.of(metric))  # type: ignore[misc]
        for metric in sorted(shown, key=lambda metric: metric.name)
    ]
    return _against_load(sweep, say, title, lines, log=True)


def goodput(sweep: Sweep, say: Language) -> Figure | None:
    """Requests a second that kept to all limits, beside all that succeeded."""
    lines: list[tuple[str, Of]] = [(say("within the limits"), _good)]
    if len(sweep.curves) == 1:
        lines.append((say("all that succeeded"), lambda level: level.rates["ended"]))
    if not any(_good(level) is not None for level in sweep.levels):
        return None
    return _against_load(sweep, say, say("requests/s"), lines)


def load(sweep: Sweep, say: Language) -> Figure | None:
    """What was asked, offered and achieved."""
    if sweep.axis == IN_FLIGHT:
        return None
    asked: tuple[str, Of] = (say("asked"), lambda level: level.load)
    if sweep.axis == RATE:
        lines: list[tuple[str, Of]] = [
            (say("due"), lambda level: level.rates["due"]),
            (say("sent"), lambda level: level.rates["sent"]),
            (say("succeeded"), lambda level: level.rates["ended"]),
        ]
        title = say("requests/s")
    else:
        lines = [
            (say("users running"), lambda level: level.means["users"]),
            (say("requests in flight"), lambda level: level.means["in_flight"]),
        ]
        title = say("users, requests")
    lines = lines[-1:] if len(sweep.curves) > 1 else lines
    return _against_load(sweep, say, title, [asked, *lines])


def energy(sweep: Sweep, say: Language) -> Figure | None:
    """Output tokens a joule."""
    lines = [(say("gross"), _energy("output_tokens_per_joule"))]
    net = _energy("net_output_tokens_per_joule")
    if any(net(level) is not None for level in sweep.levels):
        lines.append((say("net of idle"), net))
    return _against_load(sweep, say, say("output tokens per joule"), lines)


def cost(sweep: Sweep, say: Language) -> Figure | None:
    """Price of a million tokens."""
    lines = [
        (say("output tokens"), _energy("cost_per_million_output_tokens")),
        (say("all tokens"), _energy("cost_per_million_total_tokens")),
    ]
    return _against_load(sweep, say, say("price of a million"), lines)


class Drawing:
    """The traces of a chart of levels."""

    def __init__(self, sweep: Sweep, say: Language) -> None:
        self.sweep = sweep
        self.say = say
        self.traces: list[Figure] = []
        self.placed: list[tuple[float, float]] = []
        """Where labels are."""

    def points(self, curve: Curve, x: Of, y: Of, low: Of | None = None, line: bool = False) -> None:
        """A curve's levels; bars reach over the bounds of a latency, and over the runs of a pooled level."""
        known = [level for level in curve.levels if x(level) is not None and y(level) is not None]
        if not known:
            return
        colour = self.colour(curve)
        counted = [level.trusted(self.sweep.trust) for level in known]
        marker = {"size": 9, "color": colour, "line": {"width": 1.6, "color": colour}}
        marker["symbol"] = ["circle" if one else "circle-open" for one in counted]
        marker["opacity"] = [1.0 if one else 0.65 for one in counted]
        trace: Figure = {"type": "scatter", "mode": "lines+markers+text" if line else "markers+text"}
        trace |= {"x": _numbers(known, x), "y": _numbers(known, y), "marker": marker, "textfont": {"size": 11}}
        trace |= {"text": self.labels(known, x, y), "textposition": "bottom right"}
        trace |= {"hovertext": [self.hover(level) for level in known], "hoverinfo": "text", "cliponaxis": False}
        trace |= {"name": _named(curve), "showlegend": len(self.sweep.curves) > 1}
        trace |= {"line": {"color": colour, "width": 1.2, "dash": "dot"}} if line else {}
        for axis, of, lowest in (("error_x", x, None), ("error_y", y, low)):
            if bars := _bars(known, of, lowest):
                trace[axis] = bars | {"color": colour, "thickness": 1.1, "width": 3}
        self.traces.append(trace)

    def front(self, curve: Curve) -> None:
        """A line along the levels of the Pareto front."""
        chosen = [curve.levels[index] for index in curve.front]
        x, y = _numbers(chosen, self.throughput), _numbers(chosen, self.latency)
        style = {"color": self.colour(curve), "width": 2}
        title = self.say("Pareto front")
        name = title if len(self.sweep.curves) == 1 else f"{title}: {_named(curve)}"
        if len(chosen) > 1:
            self.traces.append(
                {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": style, "name": name, "hoverinfo": "skip"}
                | {"showlegend": len(self.sweep.curves) == 1}
            )

    def ring(self, level: Level, title: str, colour: str) -> None:
        """Round the level that answers."""
        if self.throughput(level) is None or self.latency(level) is None:
            return
        marker = {"symbol": "circle-open", "size": 19, "color": colour, "line": {"width": 2.4}}
        if colour == TEAL:
            marker["size"] = 26
        place = {"x": _numbers([level], self.throughput), "y": _numbers([level], self.latency)}
        named: Figure = {"name": title, "legendgroup": title, "hoverinfo": "skip"}
        named["showlegend"] = not any(trace.get("legendgroup") == title for trace in self.traces)
        self.traces.append({"type": "scatter", "mode": "markers", "marker": marker} | place | named)

    def throughput(self, level: Level) -> float | None:
        return level.rates[self.sweep.throughput]

    def latency(self, level: Level) -> float | None:
        return level.of(self.sweep.latency)

    def colour(self, curve: Curve) -> str:
        index = next(index for index, one in enumerate(self.sweep.curves) if one is curve)
        return COLOURS[index % len(COLOURS)]

    def labels(self, known: list[Level], x: Of, y: Of) -> list[str]:
        """Loads, but none where it would lie upon another."""
        found = []
        for level, *at in zip(known, self.positions(known, x), self.positions(known, y), strict=True):
            near = any(abs(at[0] - left) < _NEAR_X and abs(at[1] - up) < _NEAR_Y for left, up in self.placed)
            found.append("" if near else f"\u00a0\u00a0{wording.short(level)}")
            if not near:
                self.placed.append((at[0], at[1]))
        return found

    def positions(self, known: list[Level], of: Of) -> list[float]:
        """Where they lie on the axis of all levels, 0 to 1."""
        every = [value for level in self.sweep.levels if (value := of(level)) is not None]
        scale = math.log if _wide(every) else float
        lowest, highest = scale(min(every)) if _wide(every) else 0.0, scale(max(every))
        return [(scale(of(level) or 0.0) - lowest) / ((highest - lowest) or 1.0) for level in known]

    def hover(self, level: Level) -> str:
        latency = (
            f"{wording.latency_title(self.sweep.latency, self.say)} {wording.latency(level, self.sweep.latency)} ms"
        )
        rate = wording.throughput(self.sweep, level, self.say)
        lines = [wording.load(level, self.say), rate, latency, self.say(level.verdict)]
        return "<br>".join(_text(line) for line in lines)

    def figure(self, layout: Figure) -> Figure | None:
        if not self.traces:
            return None
        return {"data": self.traces, "layout": {"showlegend": True} | layout}


def _against_load(
    sweep: Sweep, say: Language, title: str, lines: Iterable[tuple[str, Of]], *, log: bool = False
) -> Figure | None:
    """Lines over the load, a point for each level; of several curves a colour each, else of each line."""
    traces: list[Figure] = []
    several = len(sweep.curves) > 1
    named = [(name, of) for name, of in lines if any(of(level) is not None for level in sweep.levels)]
    for at, curve in enumerate(sweep.curves):
        for index, (name, of) in enumerate(named):
            known = [level for level in curve.levels if sweep.x(level) is not None and of(level) is not None]
            if not known:
                continue
            colour = COLOURS[(at if several else index) % len(COLOURS)]
            style: Figure = {"color": colour, "width": 2 if not several or not index else 1.2}
            if name == say("asked"):
                style = {"color": GREY, "width": 1.5, "dash": "dash"}
            marker: Figure = {"size": 7, "color": style["color"]}
            marker["symbol"] = ["circle" if level.trusted(sweep.trust) else "circle-open" for level in known]
            called = name if not several else f"{_named(curve)}, {name}" if len(named) > 1 else _named(curve)
            traces.append(
                {"type": "scatter", "mode": "lines+markers", "x": [_rounded(sweep.x(level)) for level in known]}
                | {"y": _numbers(known, of), "line": style, "marker": marker, "name": called}
            )
    if not traces:
        return None
    y: Figure = {"title": {"text": title}} | (
        _scale(of(level) for _, of in named for level in sweep.levels) if log else {"rangemode": "tozero"}
    )
    return {
        "data": traces,
        "layout": {"height": 300, "xaxis": _load_axis(sweep, say), "yaxis": y, "showlegend": len(traces) > 1},
    }


def _load_axis(sweep: Sweep, say: Language) -> Figure:
    found: Figure = {"title": {"text": say(AXES[sweep.axis])}}
    loads = sorted({value for level in sweep.levels if (value := sweep.x(level))})
    found |= _scale(loads)
    if len(loads) <= MOST_TICKS and sweep.axis != IN_FLIGHT:
        found |= {"tickvals": loads, "ticktext": [_load(value) for value in loads]}
    return found


def _scale(values: Iterable[float | None]) -> Figure:
    known = [value for value in values if value is not None]
    if not _wide(known):
        return {"rangemode": "tozero"}
    decades = range(math.floor(math.log10(min(known))), math.ceil(math.log10(max(known))) + 1)
    ticks = [float(f"{step}e{decade}") for decade in decades for step in (1, 2, 5)]
    ticks = [tick for tick in ticks if min(known) / 2 <= tick <= max(known) * 2]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,.10g}" for tick in ticks]}


def _wide(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) / min(values) > _WIDE


def _bounds(sweep: Sweep) -> list[tuple[str, float]]:
    """Goals of the whole run on the latency that is drawn, with their limits in milliseconds."""
    found = [objective for text in sweep.goals if ": " not in text for objective in parse_slo(text)]
    return [(one.text, one.limit.bound) for one in found if one.limit and one.text.split("<")[0] == sweep.latency.name]


def _bars(known: list[Level], of: Of, low: Of | None) -> Figure | None:
    """From the lower bound, or the lowest run, to the highest run."""
    up, down = [], []
    for level in known:
        value = of(level) or 0.0
        ends = [value, *(level.spread(of) or ())]
        lowest = low(level) if low else None
        up.append(_rounded(max(ends) - value))
        down.append(_rounded(value - min([*ends, *([] if lowest is None else [lowest])])))
    if not any(up) and not any(down):
        return None
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down}


def _numbers(known: Iterable[Level], of: Of) -> list[float | None]:
    return [_rounded(of(level)) for level in known]


def _load(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else number(value)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _speed(level: Level) -> float | None:
    return level.speed["p50"] if level.speed else None


def _good(level: Level) -> float | None:
    found: Any = (level.goodput or {}).get("per_s")
    return None if found is None else float(found)


def _energy(name: str) -> Of:
    return lambda level: (level.energy or {}).get(name)


def _named(curve: Curve) -> str:
    """Short enough for the legend of a narrow chart."""
    return html.escape(plain(curve.name, _LONGEST), quote=False)


def _text(said: str) -> str:
    """plotly takes some markup in its texts for markup."""
    return html.escape(plain(said, 60), quote=False)
