"""What a sweep needs of one run: each of its load levels as a `Part`, so that a run is read once and its rows let go.

A load level is a steady window: of `--steps`, a shape or edits in the web page; of a plain run its only one; of a
capacity search every level that it measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import pandas as pd

from tokenswarm import verdict
from tokenswarm.errors import RunDirectoryError
from tokenswarm.results import flow, phases, read, summarise
from tokenswarm.results.cohort import tally
from tokenswarm.results.compare import metrics
from tokenswarm.results.figures import client, energy, evidence, goals
from tokenswarm.results.flow import Floats, Flows, column
from tokenswarm.results.phases import STEADY, Phase, Phases
from tokenswarm.results.read import Run
from tokenswarm.results.wording import plain
from tokenswarm.verdict import Verdict

CLIENT_RULES: Final = frozenset(
    (
        "ttft_bounds",
        "send_delay",
        "schedule_lag",
        "sent_share",
        "in_flight_share",
        "users_share",
        "client_too_busy",
        "busy_user_clock",
        "loop_blocked",
        "ring_full",
        "clock_jump",
        "cpu_steal",
        "cgroup_throttling",
        "tcp_trouble",
        "descriptors",
        "ports",
        "worker_lost",
    )
)
"""Rules of the verdict that are about who made the load, not about who bore it."""
OVERLOADED: Final = "no_steady_state"
"""The rule that a server breaks which is asked for more than it can do."""
SPEED: Final = "speed"
"""1 / TPOT, tokens a second."""

NO_WISH: Final = energy.Wish()


@dataclass(frozen=True)
class Wish:
    """What is asked beyond the runs: goals as `--slo` and `--goodput` write them, instead of the runs' own ("": those),
    and what `results/figures/energy.py` wants to know."""

    slo: str = ""
    goodput: str = ""
    energy: energy.Wish = NO_WISH


NOTHING: Final = Wish()


@dataclass(frozen=True)
class Part:
    """One steady window of one run. `amounts` are totals over the window, None where they are not known: `due`, `sent`
    and `ended` requests; `output_tokens` and `input_tokens`; `in_flight` and `users` in seconds of them."""

    run: str
    users: int | None
    rate: float | None
    """Requests a second that were asked for; None in a closed loop, and where an open one does not say."""
    open_loop: bool
    start: float
    """Seconds since the run's start."""
    seconds: float
    statuses: dict[str, int]
    amounts: dict[str, float | None]
    samples: dict[str, Floats] = field(repr=False)
    """Milliseconds by the names of `compare.metrics.COLUMNS`, NaN where not measured; and SPEED."""
    ttft_low: Floats = field(repr=False)
    itl: tuple[str, ...] = field(repr=False)
    """Histograms, encoded."""
    objectives: tuple[dict[str, Any], ...]
    goodput: dict[str, Any] | None
    energy: dict[str, Any] | None
    verdict: Verdict

    @property
    def client_was_the_limit(self) -> bool:
        """As in a search for capacity: not a little off, but invalid."""
        return any(r.level == verdict.INVALID and r.rule in CLIENT_RULES for r in self.verdict.reasons)

    @property
    def overloaded(self) -> bool:
        """Whether the server's queue is all that is wrong with it: then it does tell what lies beyond the knee."""
        rules = {reason.rule for reason in self.verdict.reasons if reason.level != verdict.NOTE}
        return rules == {OVERLOADED}


@dataclass(frozen=True)
class Observed:
    """A run that was read. `described` is what `compare.comparable.FACTS` look at."""

    path: Path
    name: str
    label: str
    start: float
    described: dict[str, Any]
    parts: tuple[Part, ...]
    defects: tuple[str, ...]
    notes: tuple[str, ...]
    """On energy and cost: what is unknown and why, what to doubt."""


def observe(path: Path, wish: Wish = NOTHING) -> Observed:
    """Read a run directory. Raises RunDirectoryError if there is none or if it has no load level, AnalysisError for a
    GPU that cannot be told from another."""
    run = read.load(path)
    found = _levels(run, phases.find(run))
    if not len(run.rows) or found.whole_run:
        raise RunDirectoryError(f"{path} has no load level to show: {_why_none(run, found)}")
    run = _with_goals(run, wish)
    defects = list(run.defects)
    told, notes = _energy(run, found, wish.energy)
    flows = flow.flows(run, found.end)
    due = phases.intended(run)
    parts = []
    for index, window in enumerate(found.windows):
        rows = run.rows[(due >= window.start) & (due < window.end)]
        alone = replace(found, windows=(window,))
        parts.append(_part(run, alone, rows, flows, told[index] if told else None, defects))
    start = run.info.start.time if run.info.start else found.start
    return Observed(
        path, run.name, run.info.label, start, _described(run), tuple(parts), tuple(dict.fromkeys(defects)), notes
    )


def _why_none(run: Run, found: Phases) -> str:
    """Damage first: what is missing for it may be the whole reason."""
    damage = " ".join(run.defects[:2])
    if not len(run.rows):
        return damage or "it holds no request. Its report says how the run ended."
    why = found.note.partition(":")[2].partition(". ")[0].strip()
    there = any(boundary.event == "spawned" for boundary in phases.known_boundaries(run))
    advice = "Let each level last longer, or set a shorter --warmup." if there else ""
    return " ".join(filter(None, (damage, f"{why}.", advice)))


def _levels(run: Run, found: Phases) -> Phases:
    """A capacity search's figures are of its answer; its levels are all that it measured."""
    if run.info.capacity is None or not run.info.capacity.measured:
        return found
    windows = tuple(
        Phase(STEADY, probe.measured_from or 0.0, probe.until or 0.0, probe.users)
        for probe in run.info.capacity.measured
    )
    return replace(found, windows=windows, whole_run=False, note="")


def _with_goals(run: Run, wish: Wish) -> Run:
    given = {name: text for name, text in (("slo", wish.slo), ("goodput", wish.goodput)) if text}
    classes = run.info.user_classes
    if wish.slo:  # it is for everybody: classes have no goals of their own any more
        classes = [
            msgspec.structs.replace(one, options={k: v for k, v in one.options.items() if k != "slo"})
            for one in classes
        ]
    options = run.info.options | given
    return replace(run, info=msgspec.structs.replace(run.info, options=options, user_classes=classes))


def _objectives(run: Run, rows: pd.DataFrame, defects: list[str]) -> Iterator[dict[str, Any]]:
    """Goals of the run, and of the classes of users that have their own, by whose name these begin."""
    judged = goals.objectives(run, rows, defects)
    if judged is None:
        return
    yield from judged["objectives"]
    for one in judged["classes"]:
        name = plain(one["user_class"], 40)
        yield from (goal | {"objective": f"{name}: {goal['objective']}"} for goal in one["objectives"])


def _part(
    run: Run, alone: Phases, rows: pd.DataFrame, flows: Flows, used: dict[str, Any] | None, defects: list[str]
) -> Part:
    """`alone`: the run's phases with the one window that the rows were due in."""
    (window,) = alone.windows
    load, seconds = run.info.load, window.seconds
    rates = summarise.throughput(run, alone, rows, flows)
    flying = summarise.concurrency(run, alone, flows)
    summary = {
        "latency": summarise.latencies(rows),
        "concurrency": flying,
        "requests": {"unaccounted": flows.unaccounted},
        "client": client.figures(run, alone, rows, defects),
    }
    known = {
        "due": rates["due_per_s"],
        "sent": rates["sent_per_s"],
        "ended": rates["requests_per_s"],
        "output_tokens": rates["output_tokens_per_s"],
        "input_tokens": rates["input_tokens_per_s"],
        "in_flight": flying["in_flight"],
        "users": _running(run, window),
    }
    per_user = load.rate_per_user
    return Part(
        run=run.name,
        users=window.users,
        rate=per_user * window.users if per_user is not None and window.users is not None else None,
        open_loop=load.arrivals != "closed",
        start=window.start - alone.start,
        seconds=seconds,
        statuses=tally(rows["status"]),
        amounts={name: None if value is None else value * seconds for name, value in known.items()},
        samples=dict(_samples(rows)),
        ttft_low=column(rows, "ttft_low_ms"),
        itl=tuple(text for text in client.intervals_inside(run, alone)["itl"] if text),
        objectives=tuple(_objectives(run, rows, defects)),
        goodput=goals.goodput(run, rows, seconds, defects),
        energy=used,
        verdict=verdict.judge(evidence.collect(run, alone, rows, summary)),
    )


def _samples(rows: pd.DataFrame) -> Iterator[tuple[str, Floats]]:
    """Each latency of its population: from the first token of every row, the others of those that succeeded."""
    ok = (rows["status"] == "ok").to_numpy()
    for name, of in metrics.COLUMNS.items():
        values = column(rows, of)
        yield name, values if name in metrics.FROM_FIRST_TOKEN else values[ok]
    tpot = column(rows, "tpot_ms")[ok]
    yield SPEED, 1e3 / tpot[tpot > 0]


def _running(run: Run, window: Phase) -> float | None:
    """Users that ran, on average, as the workers told every second; None where they did not."""
    there = flow.workers_over_time(run, "users")
    inside = there[(there.index >= window.start) & (there.index + 1 <= window.end)].dropna()
    return float(inside.mean()) if len(inside) else None


def _energy(run: Run, found: Phases, wish: energy.Wish) -> tuple[list[dict[str, Any]] | None, tuple[str, ...]]:
    """Of each window, or None where there is nothing to know it from, and what is to be said about it."""
    if run.hardware.empty and wish == NO_WISH:
        return None, ()
    told = energy.figures(run, found, wish)
    notes = list(told["notes"])
    if wish.price_per_gpu_hour is not None and not told["gpus"] and wish.gpu_count is None:
        notes.append(
            "The cost is unknown, since no GPU was sampled: say how many there are by --gpu-count, or record the run "
            "with --hardware."
        )
    return told["windows"], tuple(notes) if told["gpus"] or wish != NO_WISH else ()


def _described(run: Run) -> dict[str, Any]:
    info = run.info
    kept = ("suite", "host", "target", "options", "seed", "user_classes", "load")
    models = sorted({str(name) for name in run.rows["model"].unique() if name}) or [info.target.model or ""]
    protocols = sorted({str(name) for name in run.rows["protocol"].unique() if name}) or [info.target.protocol or ""]
    ok = run.rows[run.rows["status"] == "ok"]
    return {
        "run": {name: msgspec.to_builtins(getattr(info, name)) for name in kept}
        | {"models": models, "protocols": protocols},
        "tokens": {"sources": sorted({str(name) for name in ok["token_source"].unique() if name})},
        "client": {"clocks": sorted({str(name) for name in ok["clock"].unique() if name})},
    }
