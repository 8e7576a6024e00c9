"""What the model server says of itself, over the windows, beside what we measured of the same seconds.

From the pages in server_metrics.csv, one a second: a counter's growth is known from page to page, not in between. So
what is ours is taken between the same pages. None means "not told"; a counter that began anew makes its figure unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from tokenswarm.results import flow
from tokenswarm.results.distribution import Floats
from tokenswarm.results.figures.server_names import SERVERS, Alternatives, Names
from tokenswarm.results.files import server_metrics
from tokenswarm.results.files.server_metrics import Series
from tokenswarm.results.flow import Flows, column
from tokenswarm.results.phases import Phase, Phases
from tokenswarm.results.read import Run

NEVER_ASKED: Final = ("connect", "tls", "dns", "connect_timeout")
"""Errors of requests that reached no server."""
LONGEST_GAP_S: Final = 5.0
"""Between an edge of a window and the page that stands for it."""
GAUGES: Final = ("running", "waiting", "kv_cache")
SHARES: Final = ("prefix_share", "accepted_share")
"""Gauges of which a page's engines have each their own."""
COUNTERS: Final = (
    "preemptions",
    "prefix_asked",
    "prefix_found",
    "drafted",
    "accepted",
    "input_tokens",
    "output_tokens",
)


@dataclass(frozen=True)
class Page:
    """A server's page over the run: when it came (UTC epoch seconds), and its metrics by name, each with a series for
    every set of labels. `unanswered`: how often none came."""

    source: str
    names: Names
    times: Floats
    metrics: dict[str, list[Series]]
    unanswered: int

    def series(self, alternatives: Alternatives) -> list[Series]:
        """Of the first of these names that the page has; all of what is to be added up."""
        for alternative in alternatives:
            parts = alternative.split("+")
            if all(part in self.metrics for part in parts):
                return [series for part in parts for series in self.metrics[part]]
        return []

    def gauge(self, name: str) -> Floats | None:
        """A gauge at each page, over all its labels: their sum; of caches the fullest, of other shares the mean. None
        if it has none."""
        found = self.series(getattr(self.names, name))
        if not found:
            return None
        table = np.array([series.values for series in found])
        there = (~np.isnan(table)).sum(axis=0)
        together = np.fmax.reduce(table) if name == "kv_cache" else np.nansum(table, axis=0)
        together = together / np.maximum(there, 1) if name in SHARES else together
        values: Floats = np.where(there == 0, np.nan, together)
        return values

    def so_far(self, alternatives: Alternatives) -> Floats | None:
        """A counter at each page, over all its labels: NaN from where one of them began anew. None if it has none."""
        found = self.series(alternatives)
        if not found:
            return None
        total = np.zeros(len(self.times))
        for series in found:
            values = np.nan_to_num(series.values)  # not there yet: nothing was counted
            total += np.where(np.cumsum(np.diff(values, prepend=values[:1]) < 0) > 0, np.nan, values)
        return total


@dataclass(frozen=True)
class Span:
    """Two pages, by their indices, that stand for a window's edges."""

    first: int
    last: int


def pages(lines: pd.DataFrame) -> list[Page]:
    """The pages of servers that are known; others tell nothing that we understand."""
    by_source: dict[str, dict[str, list[Series]]] = {}
    for series in server_metrics.series(lines):
        by_source.setdefault(series.source, {}).setdefault(series.metric, []).append(series)
    found = []
    for source, metrics in by_source.items():
        names = next((names for names in SERVERS if not metrics.keys().isdisjoint(names.metrics())), None)
        times = next(iter(metrics.values()))[0].times
        if names is not None and len(times):
            found.append(Page(source, names, times, metrics, _unanswered(lines, source)))
    return found


def figures(run: Run, phases: Phases, flows: Flows) -> dict[str, Any] | None:
    """Of each page, of all together, and ours beside them; None where no page was read."""
    found = pages(run.server)
    if not found:
        return None
    each = [_figures(page, phases) for page in found]
    return {"sources": each, "all": _together(each), "ours": _ours(run, phases, found[0], flows)}


def spans(page: Page, windows: Sequence[Phase]) -> list[Span] | None:
    """For each window the pages that were there at its edges; None if one has none."""
    found = []
    for window in windows:
        first, last = (int(i) - 1 for i in np.searchsorted(page.times, (window.start, window.end), side="right"))
        if first < 0 and page.times[0] - window.start <= LONGEST_GAP_S:
            first = 0
        if first < 0 or last <= first:
            return None
        if max(window.start - page.times[first], window.end - page.times[last]) > LONGEST_GAP_S:
            return None
        found.append(Span(first, last))
    return found


def growth(values: Floats | None, over: Iterable[Span] | None) -> float | None:
    """What a counter grew by; None if that is not known."""
    if values is None or over is None:
        return None
    grown = float(sum(values[span.last] - values[span.first] for span in over))
    return None if np.isnan(grown) else grown


def _figures(page: Page, phases: Phases) -> dict[str, Any]:
    over, names = spans(page, phases.windows), page.names
    inside = phases.contain(page.times)
    told: dict[str, Any] = {
        "source": page.source,
        "server": names.server,
        "pages": int(inside.sum()),
        "unanswered": page.unanswered,
    }
    told |= {name: _level(page.gauge(name), inside) for name in GAUGES}
    told |= {name: growth(page.so_far(getattr(names, name)), over) for name in COUNTERS}
    told["ttft_count"] = growth(page.so_far(tuple(f"{name}_count" for name in names.ttft)), over)
    told["ttft_seconds"] = growth(page.so_far(tuple(f"{name}_sum" for name in names.ttft)), over)
    told |= _ratios(told)
    for share, gauge in (("prefix_hit_share", "prefix_share"), ("acceptance_share", "accepted_share")):
        if told[share] is None and (level := _level(page.gauge(gauge), inside)) is not None:
            told[share] = level["mean"]
    return told


def _ratios(told: dict[str, Any]) -> dict[str, Any]:
    seconds = told["ttft_seconds"]
    return {
        "prefix_hit_share": _over(told["prefix_found"], told["prefix_asked"]),
        "acceptance_share": _over(told["accepted"], told["drafted"]),
        "ttft_ms": _over(None if seconds is None else seconds * 1e3, told["ttft_count"]),
    }


def _together(each: list[dict[str, Any]]) -> dict[str, Any]:
    """Counters of all pages, and what follows from them; requests at once are the sum of the pages' means. Pages of
    several kinds are not added up: a gateway counts again what the servers behind it do."""
    of_one_kind = len({one["server"] for one in each}) == 1

    def total(name: str) -> float | None:
        known = [one[name] for one in each if one[name] is not None]
        return sum(known) if of_one_kind and len(known) == len(each) else None

    told: dict[str, Any] = {name: total(name) for name in (*COUNTERS, "ttft_count", "ttft_seconds")}
    for name in ("running", "waiting"):
        means = [one[name]["mean"] for one in each if one[name] is not None]
        told[name] = {"mean": sum(means)} if of_one_kind and len(means) == len(each) else None
    told |= _ratios(told)
    if len(each) == 1:
        told |= {name: each[0][name] for name in ("prefix_hit_share", "acceptance_share")}
    return told


def _ours(run: Run, phases: Phases, page: Page, flows: Flows) -> dict[str, Any]:
    """What we saw between the same two pages of each window: first tokens that came, tokens that arrived."""
    over = spans(page, phases.windows)
    if over is None:
        return {"from": None, "ttft_ms": None, "ttft_count": None, "output_tokens": None, "input_tokens": None}
    edges = [(float(page.times[span.first]), float(page.times[span.last])) for span in over]
    firsts, waited = column(run.rows, "first_token_time"), column(run.rows, "ttft_sent_ms")
    came = np.zeros(len(firsts), dtype=np.bool_)
    for start, end in edges:
        came |= (firsts >= start) & (firsts < end)
    came &= ~np.isnan(waited)
    tokens = {
        name: None if amount is None else sum(amount.between(start, end) for start, end in edges)
        for name, amount in (("output_tokens", flows.output_tokens), ("input_tokens", flows.input_tokens))
    }
    return {
        "from": edges,
        "ttft_ms": float(waited[came].mean()) if came.any() else None,
        "ttft_count": int(came.sum()),
        **tokens,
    }


def _level(values: Floats | None, inside: Any) -> dict[str, float] | None:
    if values is None or np.isnan(values[inside]).all():
        return None
    known = values[inside]
    known = known[~np.isnan(known)]
    return {"mean": float(known.mean()), "max": float(known.max())}


def _over(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _unanswered(lines: pd.DataFrame, source: str) -> int:
    ups = lines[lines["metric"] == server_metrics.UP]
    of_it = ups["source"].astype(str).map(server_metrics.short) == source
    return int((of_it & (ups["value"] != 1)).sum())


_OF_GENERATED: Final = (
    *("status", "error_class", "http_status", "pool_ms", "start_time", "end_time", "remote_addr"),
    *("token_source", "output_tokens", "asked_output_tokens"),
)


@dataclass(frozen=True)
class Generated:
    """Output tokens of a whole run by the server's counter, and the fewest and the most that it can have made for us.
    `unsure`: how far off these may be, because requests were under way when the first page came."""

    made: float
    least: float
    most: float
    unsure: float


def generated(run: Run) -> Generated | None:
    """The server's counter of generated tokens beside our rows. None where they cannot be compared: no such counter,
    one that began anew, pages that do not reach over the run or are of fewer servers than answered, replies whose
    tokens the server did not tell."""
    found, rows = pages(run.server), run.rows
    if not found:
        return None
    sent = rows["pool_ms"].notna()
    ok = sent & (rows["status"] == "ok")
    addresses = rows["remote_addr"].unique()
    if not ok.any() or (ok & (rows["token_source"] != "usage")).any() or sum(addresses != "") > len(found):
        return None
    begun, ended = float(rows["start_time"][sent].min()), float(rows["end_time"].max())
    first = max(float(page.times[0]) for page in found)
    made = [_of_whole_run(page, first, begun, ended) for page in found]
    tokens, _ = flow.output_tokens(run)
    if tokens is None or not all(amount is not None for amount in made):
        return None
    least = float(rows["output_tokens"][ok].sum()) - tokens.between(begun - 1.0, first)
    refused = (rows["http_status"] >= 400) | rows["error_class"].isin(NEVER_ASKED)
    of_others = rows["asked_output_tokens"][sent & ~ok & ~refused]
    return Generated(
        made=sum(amount or 0.0 for amount in made),
        least=least,
        most=least + (np.inf if of_others.isna().any() else float(of_others.sum())),
        unsure=tokens.between(first - 1.0, first + 1.0) if begun < first else 0.0,
    )


def _of_whole_run(page: Page, first: float, begun: float, ended: float) -> float | None:
    """From its last page before `first`, when all servers had told one, to its last of all."""
    values = page.so_far(page.names.output_tokens)
    if values is None or not page.names.at_once or page.times[-1] < ended or first > begun + LONGEST_GAP_S:
        return None
    return growth(values, [Span(int(np.searchsorted(page.times, first, side="right")) - 1, len(values) - 1)])
