"""What was served, how long it took, and what server and hardware did meanwhile, on one time axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from tokenswarm.results import counters, flow, hardware
from tokenswarm.results.charts.axes import (
    BLUE,
    GREY,
    ORANGE,
    TEAL,
    VIOLET,
    WORKER_COLOURS,
    Figure,
    rounded,
    seconds_axis,
    shades,
    time_bins,
    value_axis,
)
from tokenswarm.results.charts.thinning import extremes_kept, spread_out
from tokenswarm.results.distribution import NEEDED, Floats, between
from tokenswarm.results.figures import server
from tokenswarm.results.figures.gpus import of_gpus
from tokenswarm.results.flow import column
from tokenswarm.results.language import Language
from tokenswarm.results.phases import Phases
from tokenswarm.results.read import Run
from tokenswarm.results.wording import on_chart

ROW, GAP, ABOVE, BELOW = 112, 62, 82, 60
"""Pixels: of a row, between two (its title and its legend), above the first, below the last."""
MOST_BINS: Final = 300
MOST_POINTS: Final = 1000
ON_A_LINE: Final = 400
EACH_BY_ITSELF: Final = 4
"""Devices in a row; of more the mean is drawn, and from the lowest to the highest of them."""
FEW_FOR_A_MEDIAN: Final = 12
NEARLY_ALL: Final = 25.0
"""Per cent from which on a share is shown against the whole."""
DASHES: Final = ("solid", "dash", "dot", "dashdot")
BROKEN_S: Final = 2.5
"""A line is broken where nothing was told for so long, and for longer than two samples and a half."""


@dataclass(frozen=True)
class Row:
    """What stands above a row, its unit, and what is drawn in it."""

    title: str
    unit: str
    traces: list[Figure]
    spread: bool = False


def chart(run: Run, phases: Phases, clients: Sequence[str], say: Language) -> Figure | None:
    """None where neither hardware nor server told anything: load and latency have charts of their own. `clients`: hosts
    that made the load."""
    pages = server.pages(run.server)
    beneath = [*_server(pages, run, phases, say), *_hardware(run, phases, clients, say)]
    above = [row for row in (_tokens(run, phases, pages, say), _ttft(run, phases, say)) if row]
    return _drawn([*above, *beneath], phases, say) if beneath else None


def _drawn(rows: Sequence[Row], phases: Phases, say: Language) -> Figure:
    inside = len(rows) * ROW + (len(rows) - 1) * GAP
    layout: Figure = {"height": ABOVE + inside + BELOW, "hovermode": "x", "hoversubplots": "axis", "barmode": "overlay"}
    layout["xaxis"] = seconds_axis(phases, say) | {"anchor": f"y{len(rows)}" if len(rows) > 1 else "y"}
    layout["xaxis"] |= {"showspikes": True, "spikemode": "across", "spikethickness": 1, "spikedash": "dot"}
    layout |= shades(phases, say)
    layout["annotations"] = [note | {"yanchor": "top"} for note in layout["annotations"]]
    data: list[Figure] = []
    for index, row in enumerate(rows):
        number = "" if index == 0 else str(index + 1)
        top = 1 - index * (ROW + GAP) / inside
        axis = _axis(row) | {"domain": [max(0.0, top - ROW / inside), top], "nticks": 4}
        layout[f"yaxis{number}"] = axis
        place = {"x": 0, "y": top, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
        title = {"text": row.title, "showarrow": False, "font": {"size": 12, "weight": 700}, "yshift": 22}
        layout["annotations"].append(place | title)
        layout[f"legend{index + 2}"] = place | {"orientation": "h", "font": {"size": 11}, "bgcolor": "rgba(0,0,0,0)"}
        data += [
            {"legend": f"legend{index + 2}"} | trace | {"xaxis": "x", "yaxis": f"y{number}"} for trace in row.traces
        ]
    return {"data": data, "layout": layout}


def _axis(row: Row) -> Figure:
    values = np.array([y for trace in row.traces for y in trace["y"] if y is not None] or [0.0])
    axis = value_axis(row.unit, values, row.spread)
    return axis | {"range": [0, 105]} if row.unit == "%" and values.max() > NEARLY_ALL else axis


def _tokens(run: Run, phases: Phases, pages: Sequence[server.Page], say: Language) -> Row | None:
    tokens, _ = flow.output_tokens(run)
    edges = time_bins(phases, MOST_BINS)
    if tokens is None or edges is None:
        return None
    x = (edges[:-1] + edges[1:]) / 2 - phases.start
    traces = [_line(x, tokens.per_bin(edges), say("arrived here"), BLUE)]
    for page, name in zip(pages, _named(pages, say("server's counter")), strict=True):
        made = page.so_far(page.names.output_tokens)
        if made is not None and len(made) > 1:
            apart = _spaced(page.times)
            times = page.times[apart]
            rates = counters.rates(times, made[apart], counters.LONGEST_GAP_S)
            middles = times - np.diff(times, prepend=times[0]) / 2
            traces.append(_told(middles - phases.start, rates, name, GREY, dash="dot"))
    return Row(say("Output tokens"), say("tokens/s"), traces)


def _spaced(times: Floats) -> list[int]:
    """Of pages that came right behind one another, after they were late, the last: between them there is no rate."""
    if len(times) < 2:
        return list(range(len(times)))
    least = float(np.median(np.diff(times))) / 2
    kept: list[int] = []
    for index, time in enumerate(times.tolist()):
        if kept and time - times[kept[-1]] < least:
            kept.pop()
        kept.append(index)
    return kept


def _ttft(run: Run, phases: Phases, say: Language) -> Row | None:
    """Each request's, and median and p95 of those that started in the same stretch of time."""
    x, y = column(run.rows, "start_time") - phases.start, column(run.rows, "ttft_ms")
    known = ~(np.isnan(x) | np.isnan(y))
    if not known.any():
        return None
    x, y = x[known], y[known]
    kept = extremes_kept(x, y, MOST_POINTS)
    marker = {"size": 3, "color": BLUE, "opacity": 0.35}
    points: Figure = {"type": "scatter", "mode": "markers", "name": say("requests"), "marker": marker}
    traces = [points | {"x": rounded(x[kept]), "y": rounded(y[kept]), "hoverinfo": "skip"}]
    for percent, name, needed, colour in (
        (50, say("median"), FEW_FOR_A_MEDIAN, TEAL),
        (95, say("p95"), NEEDED["p95"], ORANGE),
    ):
        if line := _percentile(phases, x, y, percent, needed):
            traces.append(_line(*line, name, colour) | {"mode": "lines+markers", "marker": {"size": 3}})
    return Row(say("TTFT, by the time a request started"), "ms", traces, spread_out(y))


def _percentile(phases: Phases, x: Floats, y: Floats, percent: float, needed: int) -> tuple[Floats, Floats] | None:
    """Middles of stretches of time, and the percentile of each, NaN where it has too few requests; None with fewer than
    two."""
    edges = time_bins(phases, max(1, min(MOST_BINS, int(len(x) / (1.25 * needed)))))
    if edges is None:
        return None
    edges = edges - phases.start
    stretches = between(edges, x, y)
    found = np.array([np.percentile(each, percent) if len(each) >= needed else np.nan for each in stretches])
    return ((edges[:-1] + edges[1:]) / 2, found) if np.isfinite(found).sum() > 1 else None


def _server(pages: Sequence[server.Page], run: Run, phases: Phases, say: Language) -> Iterator[Row]:
    queue: list[Figure] = []
    for colour, gauge, of in (
        (TEAL, "running", say("running")),
        (ORANGE, "waiting", say("waiting")),
    ):
        for index, (page, name) in enumerate(zip(pages, _named(pages, of), strict=True)):
            if (values := page.gauge(gauge)) is not None:
                queue.append(_told(page.times - phases.start, values, name, colour, dash=DASHES[index % len(DASHES)]))
    if queue:
        flying, edges = flow.in_flight(run, phases.end), time_bins(phases, MOST_BINS)
        if flying is not None and edges is not None:
            x = (edges[:-1] + edges[1:]) / 2 - phases.start
            queue.insert(0, _line(x, flying.per_bin(edges), say("in flight"), GREY, dash="dot"))
        yield Row(say("Requests at the server"), say("requests"), queue)
    cache = [
        _told(page.times - phases.start, values * 100, name, WORKER_COLOURS[index % len(WORKER_COLOURS)])
        for index, (page, name) in enumerate(zip(pages, _named(pages, say("in use")), strict=True))
        if (values := page.gauge("kv_cache")) is not None
    ]
    if cache:
        yield Row(say("KV cache of the server, share in use"), "%", cache)
    lost = []
    for index, (page, name) in enumerate(zip(pages, _named(pages, say("so far")), strict=True)):
        values = page.so_far(page.names.preemptions)
        if values is not None and np.nanmax(values) > values[0]:
            colour = WORKER_COLOURS[index % len(WORKER_COLOURS)]
            lost.append(_told(page.times - phases.start, values - values[0], name, colour, shape="hv"))
    if lost:
        yield Row(say("Preemptions"), say("requests"), lost)


def _hardware(run: Run, phases: Phases, clients: Sequence[str], say: Language) -> Iterator[Row]:
    """GPUs first, then hosts, each named as what it is."""
    known = hardware.names(run.info.scraped)
    cards, hosts = of_gpus(run.hardware), run.hardware[run.hardware["device"] == "host"]
    parts = (
        (cards, "utilization_ratio", say("GPU utilization"), "%"),
        (cards, "power_watts", say("GPU power"), "W"),
        (cards, "memory_used_bytes", say("GPU memory"), "GiB"),
        (hosts, "cpu_busy_ratio", say("CPU of the machines"), "%"),
        (hosts, "memory_used_bytes", say("Memory of the machines"), "GiB"),
    )
    for samples, metric, title, unit in parts:
        lines = samples[samples["metric"] == metric]
        devices = {
            (str(host), str(device)): group.sort_values("time", kind="stable")
            for (host, device), group in lines.groupby(["host", "device"], sort=True, observed=True)
        }
        scale = hardware.SHOWN[metric].scale
        if len(devices) > EACH_BY_ITSELF:
            name = say("mean of {n} machines" if samples is hosts else "mean of {n} GPUs", n=len(devices))
            yield Row(title, unit, _band(lines, scale, phases, name, say))
        elif devices:
            traces = []
            for index, ((host, device), group) in enumerate(devices.items()):
                name = known.get((host, device), host if device == "host" else f"{host}/{device}")
                if device == "host":
                    name = _role(name, host, host in {str(one) for one in cards["host"].unique()}, clients, say)
                values = group["mean"].fillna(group["value"]).to_numpy(dtype=np.float64) * scale
                colour = WORKER_COLOURS[index % len(WORKER_COLOURS)]
                traces.append(_told(column(group, "time") - phases.start, values, on_chart(name, 40), colour))
            yield Row(title, unit, traces)


def _role(name: str, host: str, has_gpus: bool, clients: Sequence[str], say: Language) -> str:
    if host in clients:
        return say("{host} (client, with GPUs)", host=name) if has_gpus else say("{host} (client)", host=name)
    return say("{host} (GPUs)", host=name) if has_gpus else name


def _band(lines: pd.DataFrame, scale: float, phases: Phases, name: str, say: Language) -> list[Figure]:
    """Mean of all devices in each bin, called `name`, and from the lowest to the highest of them."""
    edges = time_bins(phases, MOST_BINS)
    if edges is None:
        return []
    values = lines["mean"].fillna(lines["value"]) * scale
    width = max(edges[1] - edges[0], float(np.ceil(_apart(lines))))
    which = ((column(lines, "time") - edges[0]) // width).astype(np.int64)
    device = lines.groupby(["host", "device"], observed=True).ngroup().to_numpy()  # `host` is a device of each machine
    groups = values.groupby([which, device]).mean().groupby(level=0).agg(["mean", "min", "max"])
    x = rounded(edges[0] + (groups.index.to_numpy() + 0.5) * width - phases.start)
    edge: Figure = {"type": "scatter", "mode": "lines", "x": x, "line": {"width": 0, "color": VIOLET}}
    shown = {"fill": "tonexty", "fillcolor": "rgba(154,106,232,0.22)", "name": say("lowest to highest")}
    return [
        edge | {"y": rounded(groups["min"].to_numpy()), "showlegend": False, "hoverinfo": "skip"},
        edge | {"y": rounded(groups["max"].to_numpy())} | shown,
        _line(x, groups["mean"].to_numpy(), name, VIOLET),
    ]


def _apart(lines: pd.DataFrame) -> float:
    times = lines.groupby(["host", "device"], observed=True)["time"]
    found = times.agg(lambda each: each.sort_values().diff().median()).max()
    return 1.0 if pd.isna(found) else float(found)


def _line(x: Any, y: Floats, name: str, colour: str, dash: str = "solid", shape: str = "linear") -> Figure:
    style = {"color": colour, "width": 1.6, "dash": dash, "shape": shape}
    points = {"x": x if isinstance(x, list) else rounded(x), "y": rounded(y)}
    return {"type": "scatter", "mode": "lines", "name": name, "line": style} | points


def _told(x: Floats, y: Floats, name: str, colour: str, dash: str = "solid", shape: str = "linear") -> Figure:
    """What somebody told now and then: thinned, extremes kept, and broken where nothing came."""
    known = ~np.isnan(y)
    x, y = x[known], y[known]
    kept = extremes_kept(x, y, ON_A_LINE)
    usual = float(np.median(np.diff(x))) if len(x) > 1 else 0.0
    gone = np.flatnonzero(np.diff(x) > max(BROKEN_S, 2.5 * usual)) + 1
    breaks = np.searchsorted(kept, gone)
    x, y = np.insert(x[kept], breaks, x[gone]), np.insert(y[kept], breaks, np.nan)
    return _line(x, y, name, colour, dash, shape)


def _named(pages: Sequence[server.Page], what: str) -> list[str]:
    return [what if len(pages) == 1 else f"{what} {on_chart(page.source, 40)}" for page in pages]
