"""Charts as plotly figures in plain dicts (`data` and `layout`). Colours of paper, axes and text are the page's.

Every function returns None where nothing was measured: an empty chart, or a zero that nobody measured, misleads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from tokenswarm.results import flow
from tokenswarm.results.distribution import Distribution, Floats
from tokenswarm.results.flow import column
from tokenswarm.results.phases import Phases, intended, known_boundaries
from tokenswarm.results.read import Run
from tokenswarm.results.wording import number, plain

Figure = dict[str, Any]
Row = tuple[str, list[Figure]]
"""The title of an axis, and what is drawn on it."""

BLUE, TEAL, ORANGE, RED, VIOLET, GREY = "#3f83f8", "#14a38b", "#e8862e", "#e5484d", "#9a6ae8", "#8b93a1"
CLASS_COLOURS: Final = (RED, ORANGE, VIOLET, BLUE, TEAL, "#d6409f", "#b59a00", GREY)
WORKER_COLOURS: Final = (BLUE, TEAL, ORANGE, VIOLET, "#d6409f", "#b59a00", RED, GREY)
SHADES: Final = {"ramp": "rgba(232,134,46,0.09)", "steady": "rgba(20,163,139,0.09)", "drain": "rgba(139,147,161,0.14)"}
MOST_BINS: Final = 600
MOST_POINTS: Final = 4000
MOST_LABELS: Final = 9
LEGEND_OF: Final = "cpu_percent"
CLIENT_GAUGES: Final = {"cpu_percent": "CPU, % of a core", "loop_lag_ms": "loop busy, ms"}


def over_time(run: Run, phases: Phases) -> Figure | None:
    """Load as asked, offered and achieved, tokens and chunks a second, and requests ended a second, under one another
    on one time axis."""
    edges = time_bins(phases, MOST_BINS)
    if edges is None:
        return None
    x = _rounded((edges[:-1] + edges[1:]) / 2 - phases.start)
    return stacked([*_load(run, phases, edges, x), _rates(run, edges, x), _ended(run, edges, x)], phases)


def client_over_time(run: Run, phases: Phases, workers: Sequence[int]) -> Figure | None:
    """CPU of these workers, and for how long at most their event loops read nothing, under one another."""
    return stacked([_gauges(run, phases, workers, name, title) for name, title in CLIENT_GAUGES.items()], phases)


def _gauges(run: Run, phases: Phases, workers: Sequence[int], name: str, title: str) -> Row | None:
    traces: list[Figure] = []
    for index, worker in enumerate(workers):
        lines = run.intervals[(run.intervals["worker"] == worker) & run.intervals[name].notna()]
        if len(lines):
            style = {"color": WORKER_COLOURS[index % len(WORKER_COLOURS)], "width": 1.5}
            points = {"x": _rounded(column(lines, "time") - phases.start), "y": _rounded(column(lines, name))}
            shown = {"name": f"worker {worker}", "legendgroup": str(worker), "showlegend": name == LEGEND_OF}
            traces.append({"type": "scatter", "mode": "lines", "line": style} | points | shown)
    return (title, traces) if traces else None


def stacked(found: Iterable[Row | None], phases: Phases) -> Figure | None:
    """Rows of traces, each with its title, on one time axis."""
    rows = [row for row in found if row]
    if not rows:
        return None
    layout: Figure = {"height": 90 + 210 * len(rows), "xaxis": _seconds_axis(phases), "barmode": "stack", "bargap": 0}
    layout |= _shades(phases)
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


def latency_over_time(run: Run, phases: Phases, name: str, title: str) -> Figure | None:
    """A scatter of one latency against the time the request started, thinned with its extremes kept, and the median
    and p95 of each stretch of time."""
    rows = run.rows[run.rows[name].notna() & run.rows["start_time"].notna()]
    if rows.empty:
        return None
    x, y = column(rows, "start_time") - phases.start, column(rows, name)
    ok = (rows["status"] == "ok").to_numpy()
    kept = extremes_kept(x, y, MOST_POINTS)
    data = []
    for mask, label, colour in ((ok[kept], "ok", BLUE), (~ok[kept], "not ok", RED)):
        if mask.any():
            marker = {"size": 4, "color": colour, "opacity": 0.55}
            points = {"x": _rounded(x[kept][mask]), "y": _rounded(y[kept][mask])}
            data.append({"type": "scatter", "mode": "markers", "name": label, "marker": marker} | points)
    data += _running_percentiles(x, y)
    axis: Figure = {"title": {"text": f"{title}, ms"}}
    axis |= {"type": "log"} if spread_out(y) else {"rangemode": "tozero"}
    layout = {"height": 360, "xaxis": _seconds_axis(phases), "yaxis": axis}
    return {"data": data, "layout": layout | _shades(phases), "shown": len(kept), "of": len(y)}


def distribution(values: Floats, found: Distribution | None, title: str, colour: str) -> Figure | None:
    """A histogram and the share of requests below each value (right axis), with the percentiles that can be had."""
    values = np.sort(values[~np.isnan(values)])
    if not len(values) or found is None:
        return None
    wide = spread_out(values)
    edges = _histogram_edges(values, wide)
    counts, _ = np.histogram(values, edges)
    shares = np.linspace(0, 100, min(400, max(2, len(values))))
    bars: Figure = {"x": _rounded(edges), "y": [*counts.tolist(), 0], "fill": "tozeroy"}
    bars["line"] = {"shape": "hv", "width": 1.2, "color": colour}
    curve: Figure = {"x": _rounded(np.percentile(values, shares)), "y": _rounded(shares), "yaxis": "y2"}
    curve["line"] = {"color": GREY, "width": 2}
    lines = [name for name in ("p50", "p95", "p99") if name not in found["unsure"]]
    layout: Figure = {
        "height": 320,
        "xaxis": {"title": {"text": f"{title}, ms"}, "type": "log" if wide else "linear"},
        "yaxis": {"title": {"text": "requests"}, "rangemode": "tozero"},
        "yaxis2": {"title": {"text": "share below, %"}, "overlaying": "y", "side": "right", "range": [0, 101]},
        "shapes": [_percentile_line(found[name]) for name in lines],
        "annotations": [
            _label(
                float(np.log10(found[name])) if wide else found[name], f"{name} {number(found[name])}", 1.0 - 0.09 * i
            )
            for i, name in enumerate(lines)
        ],
    }
    layout["yaxis2"] |= {"showgrid": False, "tickvals": [0, 25, 50, 75, 100]}
    scatter = {"type": "scatter", "mode": "lines"}
    return {
        "data": [scatter | bars | {"name": "requests"}, scatter | curve | {"name": "share below"}],
        "layout": layout,
    }


def errors_over_time(run: Run, phases: Phases) -> Figure | None:
    """Stacked bars of requests that ended in an error, by class."""
    rows = run.rows[run.rows["error_class"] != ""]
    edges = time_bins(phases, 120)
    if rows.empty or edges is None:
        return None
    times = column(rows, "end_time")
    times = np.where(np.isnan(times), column(rows, "start_time"), times)
    times = np.clip(times, edges[0], edges[-1] - 1e-6)
    x, width = _rounded(edges[:-1] - phases.start), float(edges[1] - edges[0])
    data = []
    for index, name in enumerate(rows["error_class"].value_counts().index):
        counts, _ = np.histogram(times[(rows["error_class"] == name).to_numpy()], edges)
        bar = {"x": x, "y": counts.tolist(), "width": width, "offset": 0, "name": plain(name, 40)}
        data.append({"type": "bar", "marker": {"color": CLASS_COLOURS[index % len(CLASS_COLOURS)]}} | bar)
    axis = {"title": {"text": f"errors per {width:g} s"}, "rangemode": "tozero"}
    layout = {"height": 300, "barmode": "stack", "xaxis": _seconds_axis(phases), "yaxis": axis}
    return {"data": data, "layout": layout | _shades(phases)}


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


def extremes_kept(x: Floats, y: Floats, limit: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Indices of at most about `limit` points: all of them if they fit; else the lowest and highest of every stretch of
    x, which no thinning may hide, and evenly spaced ones between."""
    everything = np.arange(len(x))
    if len(x) <= limit:
        return everything
    bins = limit // 4
    span = float(x.max() - x.min()) or 1.0
    which = np.minimum(((x - x.min()) / span * bins).astype(np.int64), bins - 1)
    order = np.lexsort((y, which))
    first = np.flatnonzero(np.diff(which[order], prepend=-1))
    last = np.append(first[1:], len(order)) - 1
    keep = np.concatenate([order[first], order[last], everything[:: -(-len(x) // (limit // 2))]])
    return np.unique(keep)


def spread_out(values: Floats) -> bool:
    """Whether only a logarithmic axis shows both the bulk and the tail."""
    low, high = np.percentile(values, (1, 99.9))
    return bool(low > 0 and values.min() > 0 and high / low > 50)


def _rates(run: Run, edges: Floats, x: list[float]) -> Row | None:
    tokens, _ = flow.output_tokens(run)
    chunks = flow.counted(run, "chunks")
    line = {"type": "scatter", "mode": "lines", "x": x}
    traces = []
    if tokens is not None:
        rate = {"y": _rounded(tokens.per_bin(edges)), "name": "output tokens/s", "line": {"color": BLUE, "width": 2}}
        traces.append(line | rate)
    if chunks is not None and chunks.between(edges[0], edges[-1]) > 0:
        style = {"color": TEAL, "width": 1.5, "dash": "dot"}
        traces.append(line | {"y": _rounded(chunks.per_bin(edges)), "name": "chunks/s", "line": style})
    return ("per second", traces) if traces else None


def _ended(run: Run, edges: Floats, x: list[float]) -> Row | None:
    traces = []
    width = float(edges[1] - edges[0])
    ok = (run.rows["status"] == "ok").to_numpy()
    times = column(run.rows, "end_time")
    for mask, name, colour in ((ok, "ok", TEAL), (~ok, "not ok", RED)):
        counts, _ = np.histogram(times[mask & ~np.isnan(times)], edges)
        if counts.any():
            bar = {"type": "bar", "x": x, "y": _rounded(counts / width), "width": width}
            traces.append(bar | {"name": f"requests ended, {name}", "marker": {"color": colour}})
    return ("requests/s", traces) if traces else None


def _load(run: Run, phases: Phases, edges: Floats, x: list[float]) -> Iterator[Row]:
    """What was asked, offered and achieved: in a closed loop users and requests in flight; in an open one requests a
    second, and then what is in flight by itself."""
    load = run.info.load
    flying = flow.in_flight(run, phases.end)
    in_flight = None if flying is None else flying.per_bin(edges)
    if load.arrivals == "closed":
        traces = list(_asked(run, phases, 1.0, "users"))
        at, users = flow.users_running(run, phases.end)
        if len(at):
            traces.append(_line(_rounded(at - phases.start), users, "offered: users running", VIOLET, "hv"))
        if in_flight is not None:
            traces.append(_line(x, in_flight, "achieved: requests in flight", ORANGE))
        yield from [("users, requests", traces)] if traces else []
        return
    rate = load.rate_per_user
    traces = [] if rate is None else list(_asked(run, phases, rate, f"users × {rate:g} requests/s"))
    for times, name, colour in (
        (intended(run), "offered: requests due/s", VIOLET),
        (flow.sent_times(run.rows), "achieved: requests sent/s", ORANGE),
    ):
        counts, _ = np.histogram(times[~np.isnan(times)], edges)
        if counts.any():
            traces.append(_line(x, counts / (edges[1] - edges[0]), name, colour))
    yield from [("requests/s", traces)] if traces else []
    if in_flight is not None:
        yield "in flight", [_line(x, in_flight, "requests in flight", TEAL)]


def _asked(run: Run, phases: Phases, each: float, unit: str) -> Iterator[Figure]:
    """The asked number of users, times what each is to do."""
    known = [b for b in known_boundaries(run) if b.event in ("target", "stopping") and b.users is not None]
    if not any(boundary.event == "target" for boundary in known):
        return
    steps = sorted((b.time - phases.start, 0 if b.event == "stopping" else (b.users or 0) * each) for b in known)
    steps.append((phases.end - phases.start, steps[-1][1]))
    line = _line([at for at, _ in steps], np.array([level for _, level in steps]), f"asked: {unit}", GREY, "hv")
    line["line"]["dash"] = "dash"
    yield line


def _line(x: list[float], y: Floats, name: str, colour: str, shape: str = "linear") -> Figure:
    style = {"color": colour, "width": 2 if shape == "linear" else 1.5, "shape": shape}
    return {"type": "scatter", "mode": "lines", "x": x, "y": _rounded(y), "name": name, "line": style}


def _running_percentiles(x: Floats, y: Floats) -> list[Figure]:
    """Median and p95 of stretches of time that hold at least 72 requests each; none with fewer than two of them."""
    stretches = min(60, len(x) // 100)
    if stretches < 2:
        return []
    edges = np.linspace(x.min(), x.max() + 1e-9, stretches + 1)
    which = np.digitize(x, edges) - 1
    found = []
    for index in range(stretches):
        inside = y[which == index]
        if len(inside) >= 72:
            middle = float(edges[index] + edges[index + 1]) / 2
            found.append((middle, *(float(p) for p in np.percentile(inside, (50, 95)))))
    if len(found) < 2:
        return []
    table = np.array(found)
    line = {"type": "scatter", "mode": "lines", "x": _rounded(table[:, 0])}
    return [
        line | {"y": _rounded(table[:, 1]), "name": "median", "line": {"color": TEAL, "width": 2}},
        line | {"y": _rounded(table[:, 2]), "name": "p95", "line": {"color": ORANGE, "width": 2}},
    ]


def _histogram_edges(values: Floats, wide: bool) -> Floats:
    low, high = float(values[0]), float(values[-1])
    if high - low < 1e-9 * max(1.0, abs(high)):
        half = max(0.05, abs(high) * 0.02)
        return np.linspace(low - half, high + half, 12)
    bins = int(np.clip(np.sqrt(len(values)) * 1.5, 12, 70))
    edges: Floats = np.geomspace(low, high, bins + 1) if wide else np.linspace(low, high, bins + 1)
    edges[0], edges[-1] = low, high
    return edges


def _seconds_axis(phases: Phases) -> Figure:
    return {"title": {"text": "seconds since the start"}, "range": [0, round(phases.end - phases.start, 3)]}


def _shades(phases: Phases) -> Figure:
    length = phases.end - phases.start
    shapes, labels = [], []
    for phase in phases.phases:
        start, end = phase.start - phases.start, phase.end - phases.start
        shape = {"type": "rect", "xref": "x", "yref": "paper", "x0": start, "x1": end, "y0": 0, "y1": 1}
        shapes.append(shape | {"fillcolor": SHADES[phase.kind], "line": {"width": 0}, "layer": "below"})
        if (end - start) > length * 0.06:
            labels.append(_label((start + end) / 2, phase.kind, 1.0) | {"yanchor": "bottom", "xanchor": "center"})
    return {"shapes": shapes, "annotations": labels if len(labels) <= MOST_LABELS else []}


def _label(x: float, text: str, y: float) -> Figure:
    place = {"x": x, "y": y, "xref": "x", "yref": "paper", "xanchor": "left", "yanchor": "top"}
    return place | {"text": text, "showarrow": False, "font": {"size": 11}}


def _percentile_line(x: float) -> Figure:
    place = {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1}
    return place | {"line": {"color": GREY, "width": 1, "dash": "dot"}}


def _rounded(values: Floats) -> list[float]:
    """Short numbers: a chart needs no more than a thousandth, and the file stays small."""
    found: list[float] = np.round(values, 3).tolist()
    return found
