"""Whether a run's numbers may be believed: rules as data, and the one function that applies them.

A rule says which metrics it touches and from which value on they are degraded or invalid. Not here: how the values are
measured (`results/evidence.py`), and whether the server is any good (a slow server measured well is a valid run).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

VALID: Final = "valid"
NOTE: Final = "note"
DEGRADED: Final = "degraded"
INVALID: Final = "invalid"
_SEVERITY: Final[Mapping[str, int]] = {VALID: 0, NOTE: 0, DEGRADED: 1, INVALID: 2}

TTFT: Final = "ttft"
TPOT: Final = "tpot"
ITL: Final = "itl"
E2E: Final = "e2e"
THROUGHPUT: Final = "throughput"
CONCURRENCY: Final = "concurrency"
METRICS: Final = (TTFT, TPOT, ITL, E2E, THROUGHPUT, CONCURRENCY)


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the verdict's table.

    A value at or past `degraded` or `invalid` fires (below them, where `low_is_bad`); at or past `note` it is told but
    changes no level. `floor` is absolute: whatever the value, the rule is silent unless the measured absolute
    difference exceeds it, so that 1 ms against a TTFT of 10 ms is not a scandal.
    """

    name: str
    metrics: tuple[str, ...]
    says: str
    """What was found; `{value}` stands for the measured number, `{absolute}` for its absolute size in milliseconds (put
    behind the value if it has no place of its own), `{subject}` for what was looked at."""
    advice: str
    unit: str = "share"
    """`share` (printed as per cent), `ms`, or `count`."""
    note: float | None = None
    degraded: float | None = None
    invalid: float | None = None
    low_is_bad: bool = False
    floor: float = 0.0
    """Milliseconds."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A value for the rule of that name. `absolute` is what the rule's floor is compared with (None: no floor)."""

    rule: str
    value: float
    absolute: float | None = None
    subject: str = ""


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that fired: its number, the threshold it crossed, and what to do about it."""

    level: str
    rule: str
    metrics: tuple[str, ...]
    value: float
    threshold: float
    text: str
    advice: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`level` is the worst of `metrics`, which holds the level of each metric that was measured or condemned."""

    level: str
    metrics: dict[str, str]
    reasons: tuple[Reason, ...]


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="no_ok_rows",
        metrics=METRICS,
        says="no request that was due in the measured window succeeded",
        advice="Nothing was measured. Look at the errors table; try one request by hand against the same URL.",
        unit="count",
        invalid=1,
        low_is_bad=True,
    ),
    Rule(
        name="no_steady_window",
        metrics=METRICS,
        says="there is no steady window, so the figures cover the whole run, ramp and drain included",
        advice="Run longer, spawn faster or set a shorter --warmup, so that load stays at its target for a while.",
        unit="count",
        invalid=1,
        low_is_bad=True,
    ),
    Rule(
        name="rows_unaccounted",
        metrics=METRICS,
        says="{value} requests that were started have no row",
        advice="The slowest requests are the likeliest to be missing. Let the run end by itself, or stop it with "
        "Ctrl-C once, and check that every worker stayed alive.",
        unit="count",
        invalid=1,
    ),
    Rule(
        name="rows_lost",
        metrics=METRICS,
        says="{value} rows could not be written or read back",
        advice="Check free space and errors of the disk that holds the run directory, then run again.",
        unit="count",
        invalid=1,
    ),
    Rule(
        name="worker_lost",
        metrics=METRICS,
        says="{subject} fell silent before the load ended",
        advice="Look at the log of {subject}; its last second of rows may be missing. Run again with it alive.",
        unit="count",
        invalid=1,
    ),
    Rule(
        name="clock_uncertain",
        metrics=(THROUGHPUT, CONCURRENCY),
        says="the time of {subject} is known to ±{value} only",
        advice="Round trips to the master take that long, so what its workers did at the same time is known no better. "
        "Durations are not touched. Give master and workers cores of their own, and a quicker network between them.",
        unit="ms",
        degraded=50.0,
    ),
    Rule(
        name="clock_off",
        metrics=(),
        says="the clock of {subject} is {value} off the master's",
        advice="Times in this run are corrected. Those in Locust's own tables are not: set the clock by NTP.",
        unit="ms",
        note=100.0,
    ),
    Rule(
        name="intervals_missing",
        metrics=(ITL, THROUGHPUT),
        says="{value} one-second intervals of the workers never arrived",
        advice="Throughput and ITL miss what happened in them. Check the connection between workers and master.",
        unit="count",
        invalid=1,
    ),
    Rule(
        name="not_ended",
        metrics=METRICS,
        says="the run was not ended properly",
        advice="It was killed or crashed, so requests in flight at that moment may have no row. Stop runs with Ctrl-C.",
        unit="count",
        degraded=1,
    ),
    Rule(
        name="few_requests",
        metrics=(TTFT, TPOT, E2E, THROUGHPUT),
        says="only {value} requests succeeded in the measured window",
        advice="Their percentiles are guesses, and p95 wants 72 of them, p99 368. Run longer, or with more users.",
        unit="count",
        degraded=36,
        invalid=6,
        low_is_bad=True,
    ),
    Rule(
        name="cut_by_the_stop",
        metrics=(TTFT, E2E),
        says="the end of the run cut {value} of the requests due, and their latencies are missing",
        advice="The longest are the likeliest to be cut, so what is left looks fast. Raise --stop-timeout.",
        degraded=0.01,
        invalid=0.05,
    ),
    Rule(
        name="mostly_failed",
        metrics=(TTFT, TPOT, ITL, E2E),
        says="{value} of the requests due failed, most of them as {subject}: the latencies are those of the others",
        advice="Look at the errors first. Users that fail ask again at once; give them a wait_time, or ask for fewer.",
        note=0.01,
        degraded=0.20,
        invalid=0.50,
    ),
    Rule(
        name="user_exceptions",
        metrics=METRICS,
        says="the locustfile's own code failed {value} times, first with: {subject}",
        advice="The users did not do what was meant. The traceback is in locust_exceptions.csv.",
        unit="count",
        degraded=1,
    ),
    Rule(
        name="settling_cut",
        metrics=(TTFT, E2E, THROUGHPUT),
        says="the settling time left out is {value} of what it should be ({subject}), because the run is short",
        advice="The start may still be in the figures. Run at least three times as long as that, or set --warmup.",
        note=0.999,
        degraded=0.3,
        low_is_bad=True,
    ),
    Rule(
        name="stopped_early",
        metrics=(),
        says="the run was stopped after {value} of the run time that was asked for",
        advice="Somebody or something ended it. What was measured until then stands.",
        note=0.98,
        low_is_bad=True,
    ),
    Rule(
        name="ttft_bounds",
        metrics=(TTFT,),
        says="the two bounds of TTFT {subject} lie {value} apart",
        advice="The client was too busy to tell when first tokens came. Give it a core of its own, or fewer users.",
        degraded=0.02,
        invalid=0.10,
        floor=1.0,
    ),
    Rule(
        name="send_delay",
        metrics=(TTFT,),
        says="start → sent {subject} is {value} of the median TTFT",
        advice="That part of TTFT is connecting and sending, not the server. See the pool, DNS, TCP, TLS and send "
        "columns; keep connections alive, give the client a core of its own, or quote TTFT from sent.",
        degraded=0.02,
        invalid=0.10,
        floor=1.0,
    ),
    Rule(
        name="in_flight_share",
        metrics=(THROUGHPUT, CONCURRENCY),
        says="requests in flight are {value} of the users (closed loop, no think time: {absolute} idle a request)",
        advice="The client did not keep the asked load up. Give it a core of its own, or look for failing connections.",
        degraded=0.98,
        invalid=0.95,
        low_is_bad=True,
        floor=1.0,
    ),
    Rule(
        name="sent_share",
        metrics=(THROUGHPUT, CONCURRENCY),
        says="open loop: {value} of the requests due were sent",
        advice="The offered load is below the plan. Give the client more CPU, or lower the rate.",
        degraded=0.99,
        invalid=0.95,
        low_is_bad=True,
    ),
    Rule(
        name="schedule_lag",
        metrics=(TTFT, E2E, CONCURRENCY),
        says="open loop: requests started {value} late (p99)",
        advice="The client lags behind its schedule. Give it more CPU; ttft_due_ms includes the delay.",
        unit="ms",
        degraded=5.0,
        invalid=50.0,
    ),
    Rule(
        name="tiny_outputs",
        metrics=(TPOT, ITL, E2E, THROUGHPUT),
        says="{value} of the answers have at most one token, though more was asked",
        advice="The server hardly generates. Look at the prompts, the chat template and the stop tokens.",
        degraded=0.01,
        invalid=0.10,
    ),
    Rule(
        name="short_outputs",
        metrics=(E2E, THROUGHPUT),
        says="{value} of the answers are less than half as long as asked, though ignore_eos was asked for",
        advice="The server stops early and so looks fast. Check that it supports ignore_eos, and its length limits.",
        degraded=0.01,
        invalid=0.10,
    ),
    Rule(
        name="early_stops",
        metrics=(E2E, THROUGHPUT),
        says="{value} of the answers ended before half of the allowed length",
        advice="Shorter answers look faster: compare runs by output length too, or fix the length with ignore_eos.",
        note=0.10,
    ),
    Rule(
        name="user_clock",
        metrics=(TTFT, ITL, TPOT),
        says="{value} of the requests were timed by the client's own clock, not the kernel's",
        advice="A busy client adds its own delay to those. Use the fast transport on Linux, or keep the client idle.",
        note=1e-9,
    ),
    Rule(
        name="tokens_estimated",
        metrics=(TPOT, THROUGHPUT),
        says="tokens of {value} of the answers are counted as chunks, because the server told no usage",
        advice="Token figures are an estimate. Let the server report usage.",
        note=1e-9,
    ),
    Rule(
        name="several_levels",
        metrics=(),
        says="the figures mix {value} load levels",
        advice="Read the table of windows for each level by itself.",
        unit="count",
        note=2,
    ),
)


def judge(measured: Iterable[Measured], metrics: Iterable[str] = METRICS, rules: Iterable[Rule] = RULES) -> Verdict:
    """The verdict on the metrics that were measured. Raises KeyError for a value whose rule does not exist."""
    table = {rule.name: rule for rule in rules}
    order = {name: index for index, name in enumerate(table)}
    reasons = [reason for item in measured if (reason := _apply(table[item.rule], item)) is not None]
    reasons.sort(key=lambda reason: (-_SEVERITY[reason.level], reason.level == NOTE, order[reason.rule]))
    levels = dict.fromkeys(metrics, VALID)
    for reason in reasons:
        if _SEVERITY[reason.level]:
            for metric in reason.metrics:
                levels[metric] = worst(levels.get(metric, VALID), reason.level)
    return Verdict(level=worst(*levels.values()), metrics=levels, reasons=tuple(reasons))


def worst(*levels: str) -> str:
    """The most severe of the levels; `valid` if there is none. A note is no worse than `valid`."""
    found = max(levels, key=_SEVERITY.__getitem__, default=VALID)
    return VALID if found == NOTE else found


def _apply(rule: Rule, item: Measured) -> Reason | None:
    if item.absolute is not None and item.absolute <= rule.floor:
        return None
    for level, threshold in ((INVALID, rule.invalid), (DEGRADED, rule.degraded), (NOTE, rule.note)):
        if threshold is None:
            continue
        if item.value < threshold if rule.low_is_bad else item.value >= threshold:
            return Reason(
                level=level,
                rule=rule.name,
                metrics=rule.metrics,
                value=item.value,
                threshold=threshold,
                text=_sentence(rule, item, level, threshold),
                advice=rule.advice.replace("{subject}", item.subject),
            )
    return None


def _sentence(rule: Rule, item: Measured, level: str, threshold: float) -> str:
    value = _quantity(item.value, rule.unit)
    absolute = "" if item.absolute is None else _quantity(item.absolute, "ms")
    if absolute and "{absolute}" not in rule.says:
        value += f" ({absolute})"
    text = rule.says.replace("{value}", value).replace("{subject}", item.subject).replace("{absolute}", absolute)
    if level != NOTE and rule.unit != "count":
        side = "below" if rule.low_is_bad else "from"
        text += f"; {level} {side} {_quantity(threshold, rule.unit)}"
    return text[0].upper() + text[1:]


def _quantity(value: float, unit: str) -> str:
    if unit == "share":
        return f"{value * 100:.3g} %"
    if unit == "ms":
        return f"{value:.3g} ms" if value < 1000 else f"{value:,.0f} ms"
    return f"{value:,.0f}"
