"""What was asked, offered and achieved, over time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tokenswarm.results import flow
from tokenswarm.results.charts.axes import (
    BLUE,
    GREY,
    MOST_BINS,
    ORANGE,
    RED,
    TEAL,
    VIOLET,
    Figure,
    Row,
    line_of,
    rounded,
    stacked,
    time_bins,
)
from tokenswarm.results.distribution import Floats
from tokenswarm.results.flow import column
from tokenswarm.results.language import ENGLISH, Language
from tokenswarm.results.phases import Phases, intended, known_boundaries
from tokenswarm.results.read import Run


def over_time(run: Run, phases: Phases, say: Language = ENGLISH) -> Figure | None:
    """Load as asked, offered and achieved, tokens and chunks a second, and requests ended a second, under one another
    on one time axis."""
    edges = time_bins(phases, MOST_BINS)
    if edges is None:
        return None
    x = rounded((edges[:-1] + edges[1:]) / 2 - phases.start)
    rows = [*_load(run, phases, edges, x, say), _rates(run, edges, x, say), _ended(run, edges, x, say)]
    return stacked(rows, phases, say)


def _load(run: Run, phases: Phases, edges: Floats, x: list[float], say: Language) -> Iterator[Row]:
    """What was asked, offered and achieved: in a closed loop users and requests in flight; in an open one requests a
    second, and then what is in flight by itself."""
    load = run.info.load
    flying = flow.in_flight(run, phases.end)
    in_flight = None if flying is None else flying.per_bin(edges)
    if load.arrivals == "closed":
        traces = list(_asked(run, phases, 1.0, say("asked: users")))
        at, users = flow.users_running(run, phases.end)
        if len(at):
            traces.append(line_of(rounded(at - phases.start), users, say("offered: users running"), VIOLET, "hv"))
        if in_flight is not None:
            traces.append(line_of(x, in_flight, say("achieved: requests in flight"), ORANGE))
        yield from [(say("users, requests"), traces)] if traces else []
        return
    rate = load.rate_per_user
    traces = (
        []
        if rate is None
        else list(_asked(run, phases, rate, say("asked: users × {rate} requests/s", rate=f"{rate:g}")))
    )
    for times, name, colour in (
        (intended(run), say("offered: requests due/s"), VIOLET),
        (flow.sent_times(run.rows), say("achieved: requests sent/s"), ORANGE),
    ):
        counts, _ = np.histogram(times[~np.isnan(times)], edges)
        if counts.any():
            traces.append(line_of(x, counts / (edges[1] - edges[0]), name, colour))
    yield from [(say("requests/s"), traces)] if traces else []
    if in_flight is not None:
        yield say("in flight"), [line_of(x, in_flight, say("requests in flight"), TEAL)]


def _asked(run: Run, phases: Phases, each: float, name: str) -> Iterator[Figure]:
    """The asked number of users, times what each is to do."""
    known = [b for b in known_boundaries(run) if b.event in ("target", "stopping") and b.users is not None]
    if not any(boundary.event == "target" for boundary in known):
        return
    steps = sorted((b.time - phases.start, 0 if b.event == "stopping" else (b.users or 0) * each) for b in known)
    steps.append((phases.end - phases.start, steps[-1][1]))
    line = line_of([at for at, _ in steps], np.array([level for _, level in steps]), name, GREY, "hv")
    line["line"]["dash"] = "dash"
    yield line


def _rates(run: Run, edges: Floats, x: list[float], say: Language) -> Row | None:
    tokens, _ = flow.output_tokens(run)
    chunks = flow.counted(run, "chunks")
    line = {"type": "scatter", "mode": "lines", "x": x}
    traces = []
    if tokens is not None:
        rate = {
            "y": rounded(tokens.per_bin(edges)),
            "name": say("output tokens/s"),
            "line": {"color": BLUE, "width": 2},
        }
        traces.append(line | rate)
    if chunks is not None and chunks.between(edges[0], edges[-1]) > 0:
        style = {"color": TEAL, "width": 1.5, "dash": "dot"}
        traces.append(line | {"y": rounded(chunks.per_bin(edges)), "name": say("chunks/s"), "line": style})
    return (say("per second"), traces) if traces else None


def _ended(run: Run, edges: Floats, x: list[float], say: Language) -> Row | None:
    traces = []
    width = float(edges[1] - edges[0])
    ok = (run.rows["status"] == "ok").to_numpy()
    times = column(run.rows, "end_time")
    for mask, name, colour in ((ok, say("requests ended, ok"), TEAL), (~ok, say("requests ended, not ok"), RED)):
        counts, _ = np.histogram(times[mask & ~np.isnan(times)], edges)
        if counts.any():
            bar = {"type": "bar", "x": x, "y": rounded(counts / width), "width": width}
            traces.append(bar | {"name": name, "marker": {"color": colour}})
    return (say("requests/s"), traces) if traces else None
