"""The levels as a table for people: aligned text, Markdown, the page's. What is not known is a dash."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from tokenswarm.results import wording
from tokenswarm.results.compare import metrics
from tokenswarm.results.console import aligned
from tokenswarm.results.language import ENGLISH, Language
from tokenswarm.results.sweep import wording as words
from tokenswarm.results.sweep.curve import TOKENS, Curve, Sweep
from tokenswarm.results.sweep.levels import Level
from tokenswarm.results.wording import count, number, plain, share

_LONGEST: Final = 30
_SHOWN: Final = ("ttft_p50", "ttft_p95", "ttft_p99", "tpot_p50", "e2e_p95")
ENERGY: Final = {
    "output_tokens_per_joule": "tokens/J",
    "cost_per_million_output_tokens": "cost of 1M out",
    "cost_per_million_total_tokens": "cost of 1M",
}


@dataclass(frozen=True)
class Column:
    """A column for people."""

    head: str
    cell: Callable[[Curve, int], str]


def rows(sweep: Sweep, say: Language = ENGLISH) -> list[list[str]]:
    """The heads, then a line for each level."""
    return _filled(sweep, *(part(sweep, say) for part in (_what, _latencies, _rates, _verdict)))


def halves(sweep: Sweep, say: Language = ENGLISH) -> tuple[list[list[str]], list[list[str]]]:
    """The same as two narrower tables: latencies, and rates."""
    latencies = (part(sweep, say) for part in (_what, _latencies, _verdict))
    rates = (part(sweep, say) for part in (_what, _rates))
    return _filled(sweep, *latencies), _filled(sweep, *rates)


def text(sweep: Sweep, say: Language = ENGLISH) -> str:
    """Aligned, for a terminal."""
    return "\n".join(line.rstrip() for line in aligned(rows(sweep, say)))


def markdown(sweep: Sweep, say: Language = ENGLISH) -> str:
    """A table as GitHub has it."""
    heads, *lines = [[_cell(cell) for cell in row] for row in rows(sweep, say)]
    rule = ["---", *("---:" for _ in heads[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *lines))


def _filled(sweep: Sweep, *parts: Iterable[tuple[Column, bool]]) -> list[list[str]]:
    """Of the columns that have something to show."""
    shown = [column for part in parts for column, wanted in part if wanted]
    lines = [[column.cell(curve, index) for column in shown] for curve, index in sweep.places()]
    return [[column.head for column in shown], *lines]


def _column(head: str, cell: Callable[[Level], str]) -> Column:
    return Column(head, lambda curve, index: cell(curve.levels[index]))


def _what(sweep: Sweep, say: Language) -> Iterator[tuple[Column, bool]]:
    yield _column(say("Load"), lambda level: words.load(level, say)), True
    yield Column(say("Curve"), lambda curve, _: plain(curve.name, _LONGEST)), len(sweep.curves) > 1
    yield Column("", lambda curve, index: say(", ").join(words.marks(sweep, curve, index, say))), True


def _latencies(sweep: Sweep, say: Language) -> Iterator[tuple[Column, bool]]:
    levels = sweep.levels
    yield _column(say("runs"), lambda level: count(len(level.runs))), any(level.each for level in levels)
    yield _column(say("due"), lambda level: count(level.due)), True
    failed = any(level.failed for level in levels)
    yield _column(say("failed"), lambda level: share(level.failed / level.due if level.due else None)), failed
    for metric in _metrics(sweep):
        wanted = metric == sweep.latency or any(level.of(metric) is not None for level in levels)
        yield _column(_head(metric, say), partial(_latency, sweep, metric)), wanted


def _rates(sweep: Sweep, say: Language) -> Iterator[tuple[Column, bool]]:
    levels, tokens, open_loop = sweep.levels, sweep.throughput == TOKENS, _open_loop(sweep)
    missing = any(abs((level.means["users"] or 0.0) - (level.users or 0)) >= 0.5 for level in levels)
    yield (
        _column(say("running"), lambda level: wording.users(_rounded(level.means["users"]))),
        missing and not open_loop,
    )
    yield _column(say("due/s"), lambda level: number(level.rates["due"])), open_loop
    yield _column(say("sent/s"), lambda level: number(level.rates["sent"])), open_loop
    yield _column(say("in flight"), lambda level: number(level.means["in_flight"])), True
    yield _column(say("requests/s"), partial(_rate, sweep, "ended")), True
    yield _column(say("tokens/s"), partial(_rate, sweep, TOKENS)), tokens
    yield _column(say("per user"), lambda level: wording.statistic(level.speed, "p50")), tokens
    yield _column(say("goals"), lambda level: words.attained(level, say)), bool(sweep.goals)
    yield _column(say("good/s"), lambda level: number((level.goodput or {}).get("per_s"))), bool(sweep.limits)
    for name, head in ENERGY.items():
        wanted = any(level.energy and level.energy[name] is not None for level in levels)
        yield _column(say(head), partial(_energy, name)), wanted


def _verdict(sweep: Sweep, say: Language) -> Iterator[tuple[Column, bool]]:
    yield _column(say("verdict"), lambda level: say(level.verdict)), True


def _open_loop(sweep: Sweep) -> bool:
    return any(level.open_loop for level in sweep.levels)


def _metrics(sweep: Sweep) -> list[metrics.Metric]:
    names = [*_SHOWN, *(["ttft_due_p95"] if _open_loop(sweep) else [])]
    found = [metrics.METRICS[name] for name in dict.fromkeys((*names, sweep.latency.name))]
    order = list(metrics.METRICS)
    return sorted(found, key=lambda metric: order.index(metric.name))


def _head(metric: metrics.Metric, say: Language) -> str:
    """`End to end` is too wide for a column of figures."""
    of = "e2e" if metric.of == "e2e" else metrics.title_of(metric.of)
    return f"{say(of)} {metric.statistic}"


def _latency(sweep: Sweep, metric: metrics.Metric, level: Level) -> str:
    told = words.latency(level, metric)
    spread = level.spread(lambda one: one.of(metric)) if metric == sweep.latency else None
    return f"{told} [{number(spread[0])}–{number(spread[1])}]" if spread else told


def _rate(sweep: Sweep, name: str, level: Level) -> str:
    spread = level.spread(lambda one: one.rates[name]) if name == sweep.throughput else None
    told = number(level.rates[name])
    return f"{told} [{number(spread[0])}–{number(spread[1])}]" if spread else told


def _energy(name: str, level: Level) -> str:
    return number((level.energy or {}).get(name))


def _rounded(users: float | None) -> float | None:
    return None if users is None else round(users, 1)


def _cell(text: str) -> str:
    return plain(text).replace("\\", "\\\\").replace("|", "\\|") or " "
