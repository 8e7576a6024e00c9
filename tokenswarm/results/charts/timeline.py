"""A sample of requests one by one: each a bar of what it waited for, on the run's time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tokenswarm.results import flow
from tokenswarm.results.charts.axes import GREY, ORANGE, RED, TEAL, VIOLET, Figure, rounded
from tokenswarm.results.distribution import Floats
from tokenswarm.results.flow import column
from tokenswarm.results.language import Language
from tokenswarm.results.wording import number, on_chart

Lines = npt.NDArray[np.int64]

MOST: Final = 150
LONGEST_S: Final = 5.0
CONNECTING: Final = ("pool_ms", "dns_ms", "tcp_ms", "tls_ms")
CONNECT_COLOUR, SEND_COLOUR, STILL_COLOUR = "#b59a00", "#d6409f", "#a01d55"
LINE_HEIGHTS: Final = ((30, 15), (70, 10), (MOST, 6))
"""Pixels of a line where there are at most so many."""
OUTLINE: Final = {"color": "rgba(0,0,0,0)", "line": {"color": "#5b6472", "width": 1}}
"""Of a request: two in one line would else be one bar."""
INSIDE: Final = 0.006
"""Of the picture's width: from the end of a request to the middle of the mark of how it ended."""
SHOWN_S: Final = 0.0005
"""Of a part that is shorter nothing would be seen."""


@dataclass(frozen=True)
class Sample:
    """All requests that started from `start` to `end` (UTC epoch seconds), in order, by their rows."""

    rows: pd.DataFrame
    start: float
    end: float


def sample(rows: pd.DataFrame, around: float) -> Sample | None:
    """The requests that started nearest to a moment (UTC epoch seconds), however they went: all of a few seconds, or of
    one and a half times the median of what requests take, and at most MOST. None without any."""
    starts, takes = column(rows, "start_time"), column(rows, "e2e_ms")
    known = takes[~np.isnan(takes)]
    reach = max(LONGEST_S, 1.5 * float(np.median(known)) / 1e3) / 2 if len(known) else LONGEST_S / 2
    away = np.abs(starts - around)
    near = np.flatnonzero(away <= reach)
    if len(near) > MOST:
        near = near[np.argpartition(away[near], MOST - 1)[:MOST]]
    if not len(near):
        return None
    chosen = rows.iloc[near[np.argsort(starts[near], kind="stable")]]
    own = column(chosen, "start_time")
    return Sample(chosen, float(own[0]), float(own[-1]))


def chart(
    found: Sample, origin: float, stalls: Mapping[str, tuple[float, float]], marked: str | None, say: Language
) -> Figure:
    """The bars. `origin`: the run's start; `stalls`: by id between which seconds of the run a reply stood still;
    `marked`: the id of the request that the sample was taken around."""
    times = _Times(found.rows, origin)
    lines = _lines(times.due, times.end)
    parts = _parts(found.rows, times, stalls, say)
    data = [bars for part in parts if (bars := _bars(*part, lines)) is not None]
    data += _marks(found.rows, times, lines, marked, say)
    whole: Figure = {"type": "bar", "orientation": "h", "base": rounded(times.due), "x": rounded(times.end - times.due)}
    texts = list(_texts(found.rows, times, say))
    whole |= {"y": lines.tolist(), "width": 0.82, "marker": OUTLINE, "showlegend": False}
    data.append(whole | {"hovertext": texts, "hoverinfo": "text", "name": ""})
    count = int(lines.max()) + 1
    height = next(pixels for most, pixels in LINE_HEIGHTS if count <= most)
    layout: Figure = {"height": 130 + height * count, "barmode": "overlay", "bargap": 0}
    layout["xaxis"] = {
        "title": {"text": say("seconds since the start")},
        "range": _range(times, (found.rows["id"] == marked).to_numpy()),
    }
    layout["yaxis"] = {"showticklabels": False, "showgrid": False, "zeroline": False, "range": [count - 0.4, -0.6]}
    return {"data": data, "layout": layout}


class _Times:
    """The instants of each request, in seconds of the run; a part that never came has no length."""

    def __init__(self, rows: pd.DataFrame, origin: float) -> None:
        self.start = column(rows, "start_time") - origin
        self.due = self.start - np.maximum(0.0, np.nan_to_num(column(rows, "queue_ms"))) / 1e3
        connecting = np.nansum([column(rows, name) for name in CONNECTING], axis=0) / 1e3
        self.connected = self.start + connecting
        self.sent = self.start + np.nan_to_num(flow.before_sent_ms(rows)) / 1e3
        end = column(rows, "end_time") - origin
        self.end = np.where(np.isnan(end), np.fmax(self.sent, self.start + column(rows, "e2e_ms") / 1e3), end)
        self.connected, self.sent = np.minimum(self.connected, self.end), np.minimum(self.sent, self.end)
        first = column(rows, "first_token_time") - origin
        self.first = np.where(np.isnan(first), self.end, first)
        last = self.start + column(rows, "last_token_ms") / 1e3
        self.last = np.where(np.isnan(last), self.first, np.maximum(last, self.first))


def _parts(
    rows: pd.DataFrame, times: _Times, stalls: Mapping[str, tuple[float, float]], say: Language
) -> Iterator[tuple[str, str, Floats, Floats]]:
    yield say("client late"), VIOLET, times.due, times.start
    yield say("connecting"), CONNECT_COLOUR, times.start, times.connected
    yield say("sending"), SEND_COLOUR, times.connected, times.sent
    yield say("waiting for the first token"), ORANGE, times.sent, times.first
    yield say("tokens"), TEAL, times.first, times.last
    yield say("to the end"), GREY, times.last, times.end
    nothing = (np.nan, np.nan)
    still = np.array([stalls.get(str(name), nothing) for name in rows["id"]], dtype=np.float64).reshape(-1, 2)
    yield say("stood still"), STILL_COLOUR, still[:, 0], still[:, 1]


def _bars(name: str, colour: str, begins: Floats, ends: Floats, lines: Lines) -> Figure | None:
    seen = ends - begins > SHOWN_S
    if not seen.any():
        return None
    bars: Figure = {"type": "bar", "orientation": "h", "name": name, "hoverinfo": "skip", "width": 0.82}
    bars |= {"base": rounded(begins[seen]), "x": rounded((ends - begins)[seen]), "y": lines[seen].tolist()}
    return bars | {"marker": {"color": colour, "line": {"width": 0}}}


def _lines(begins: Floats, ends: Floats) -> Lines:
    """For each request the first line that is free when it begins."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    found = np.zeros(len(begins), dtype=np.int64)
    for index in np.argsort(begins, kind="stable").tolist():
        while busy and busy[0][0] <= begins[index]:
            heapq.heappush(free, heapq.heappop(busy)[1])
        line = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (float(ends[index]), line))
        found[index] = line
    return found


def _marks(rows: pd.DataFrame, times: _Times, lines: Lines, marked: str | None, say: Language) -> Iterator[Figure]:
    """How those ended that were not ok, and the request that all this is about."""
    status, about = rows["status"].to_numpy(), (rows["id"] == marked).to_numpy()
    left, right = _range(times, about)
    # Inside its own bar: between two it could be either's.
    ends = np.maximum((times.due + times.end) / 2, times.end - INSIDE * (right - left))
    for name, colour, which in (
        (say("failed or timed out"), RED, np.isin(status, ("failed", "timeout"))),
        (say("cancelled or cut"), GREY, np.isin(status, ("cancelled", "incomplete"))),
    ):
        if which.any():
            marker = {"symbol": "x", "size": 8, "color": colour}
            yield _points(ends[which], lines[which], name, marker)
    if about.any():
        marker = {"symbol": "triangle-right", "size": 13, "color": RED}
        yield _points(times.due[about], lines[about], say("the one that this is about"), marker)


def _points(x: Floats, lines: Lines, name: str, marker: Figure) -> Figure:
    points: Figure = {"type": "scatter", "mode": "markers", "x": rounded(x), "y": lines.tolist(), "name": name}
    return points | {"hoverinfo": "skip", "marker": marker, "cliponaxis": False}


def _texts(rows: pd.DataFrame, times: _Times, say: Language) -> Iterator[str]:
    """What is told of a request to whoever points at it; plotly takes some markup for its own."""
    for index, row in enumerate(rows.to_dict("records")):
        parts = [
            on_chart(row["id"], 80),
            on_chart(f"{row['user_class']} · {row['name']} · {say(str(row['status']))} {row['error_class']}", 120),
            say("worker {worker}, started at {at} s", worker=_count(row["worker"]), at=f"{times.start[index]:.3f}"),
            say("{into} tokens in, {out} out", into=_count(row["input_tokens"]), out=_count(row["output_tokens"])),
            say("client late {ms} ms, to sent {sent} ms", ms=_ms(row["queue_ms"]), sent=_sent(times, index)),
            say(
                "TTFT {ttft} ms, TPOT {tpot} ms, end to end {e2e} ms",
                ttft=_ms(row["ttft_ms"]), tpot=_ms(row["tpot_ms"]), e2e=_ms(row["e2e_ms"]),
            ),
            say("longest gap {gap} ms", gap=_ms(row["itl_max_ms"])),
        ]  # fmt: skip
        yield "<br>".join(parts)


def _sent(times: _Times, index: int) -> str:
    return number(round(float(times.sent[index] - times.start[index]) * 1e3, 3))


def _ms(value: float) -> str:
    return number(None if np.isnan(value) else float(value))


def _count(value: float) -> str:
    return number(None) if np.isnan(value) else f"{value:,.0f}"


def _range(times: _Times, marked: np.ndarray[Any, np.dtype[np.bool_]]) -> list[float]:
    """From the first to the last end; a few that took much longer than the others run out of the picture, but not the
    one that it is about."""
    start = float(times.due.min())
    usual = float(times.start.max()) + 3 * float(np.percentile(times.end - times.due, 90))
    end = min(float(times.end.max()), max(usual, *times.end[marked].tolist(), start))
    margin = max(0.01 * (end - start), 1e-3)
    return [round(start - margin, 3), round(end + margin, 3)]
