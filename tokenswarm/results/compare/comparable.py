"""Whether two sides may be compared at all: what differs between them beside what was meant to, and what makes either
hard to believe. Sentences only; nothing here changes a figure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from tokenswarm.results import wording
from tokenswarm.results.compare import metrics
from tokenswarm.results.compare.sides import Observed, Side
from tokenswarm.results.wording import plain

WARNING: Final = "warning"
NOTE: Final = "note"
LENGTHS_DIFFER: Final = 0.05
ERRORS_DIFFER: Final = 0.01
SHORTEST_S: Final = 30.0
_MOST_LISTED: Final = 4
_MOST_DEFECTS: Final = 3

_NOT_THE_LOAD: Final = frozenset(
    [
        "run_dir",
        "label",
        "save_responses",
        "lang",
        "hardware",
        "server_metrics",
        "fail_on",
        "check",
        "slo",
        "goodput",
        "protocol",
        "transport",
        "model",
        "seed",
    ]  # the second line's have facts of their own
)


@dataclass(frozen=True)
class Caution:
    """`warning`: a difference may come from this instead; `note`: good to know."""

    level: str
    text: str


@dataclass(frozen=True)
class Fact:
    """Something that ought to be the same on both sides; `of` gives it, in words, for one run ("" for unknown).
    `may_vary`: repeated runs of one side may well differ in it."""

    level: str
    name: str
    of: Callable[[dict[str, Any]], str]
    may_vary: bool = False


def _load(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda summary: _text(summary["run"]["load"].get(name))


def _target(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda summary: _text(summary["run"]["target"].get(name))


def _version(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda summary: _text(summary["run"]["suite"].get(name))


def _users(summary: dict[str, Any]) -> str:
    return " then ".join(_text(window["users"]) for window in summary["phases"]["windows"])


def _classes(summary: dict[str, Any]) -> str:
    return "; ".join(sorted(_class(one) for one in summary["run"]["user_classes"]))


def _class(described: dict[str, Any]) -> str:
    own = [f"{name}={value}" for name, value in sorted((described.get("options") or {}).items())]
    return f"{described['name']}{' (thinks)' if described['think_time'] else ''} {' '.join(own)}".strip()


FACTS: Final = (
    Fact(
        WARNING,
        "kinds of target",
        lambda s: "the built-in simulator" if s["run"]["target"]["simulator"] else "a server",
    ),
    Fact(WARNING, "models", lambda s: ", ".join(map(str, s["run"]["models"]))),
    Fact(WARNING, "protocols", lambda s: ", ".join(map(str, s["run"]["protocols"]))),
    Fact(WARNING, "transports", _target("transport")),
    Fact(WARNING, "arrivals", _load("arrivals")),
    Fact(WARNING, "rates of each user", _load("rate_per_user")),
    Fact(WARNING, "numbers of users measured", _users),
    Fact(WARNING, "user classes", _classes),
    Fact(WARNING, "seeds, so other prompts", lambda s: _text(s["run"]["seed"]), may_vary=True),
    Fact(WARNING, "sources of token counts", lambda s: ", ".join(sorted(s["tokens"]["sources"]))),
    Fact(WARNING, "clocks of arrivals", lambda s: ", ".join(sorted(s["client"]["clocks"]))),
    Fact(WARNING, "versions of tokenswarm", _version("tokenswarm")),
    Fact(NOTE, "versions of Locust", _version("locust")),
    Fact(NOTE, "spawn rates", _load("spawn_rate")),
    Fact(NOTE, "run times, in seconds", _load("run_time")),
    Fact(NOTE, "targets", _target("host")),
    Fact(NOTE, "machines that made the load", lambda s: _text(s["run"]["host"].get("hostname"))),
)


def cautions(baseline: Side, candidate: Side) -> Iterator[Caution]:
    """Warnings first, then notes."""
    found = list(
        chain(
            _left_out(baseline, candidate),
            _same_runs(baseline, candidate),
            _facts(baseline, candidate),
            _options(baseline, candidate),
            _limits(baseline, candidate),
            _lengths(baseline, candidate),
            _errors(baseline, candidate),
            chain.from_iterable(_belief(run) for run in (*baseline.runs, *candidate.runs)),
            _repeats(baseline, candidate),
        )
    )
    for level in (WARNING, NOTE):
        yield from (caution for caution in found if caution.level == level)


def _left_out(*sides: Side) -> Iterator[Caution]:
    for side in sides:
        for problem in side.problems:
            yield Caution(WARNING, f"{side.role.capitalize()}: {plain(problem)}")


def _same_runs(baseline: Side, candidate: Side) -> Iterator[Caution]:
    paths = {run.path.resolve() for run in baseline.runs}
    for run in candidate.runs:
        if run.path.resolve() in paths:
            yield Caution(WARNING, f"{run.path} is on both sides: a run is compared with itself.")
    first: dict[tuple[str, float], Observed] = {}
    for run in (*baseline.runs, *candidate.runs):
        known = first.setdefault((run.name, run.summary["run"]["start"]), run)
        if known.path.resolve() != run.path.resolve():
            yield Caution(WARNING, f"{run.path} holds the same run as {known.path}: one is a copy of the other.")


def _facts(baseline: Side, candidate: Side) -> Iterator[Caution]:
    for fact in FACTS:
        values = [_values(fact.of, side) for side in (baseline, candidate)]
        if values[0] != values[1]:
            yield Caution(fact.level, f"Other {fact.name}: {_listed(values[0])} against {_listed(values[1])}.")
        elif len(values[0]) > 1 and fact.level == WARNING and not fact.may_vary:
            yield Caution(WARNING, f"Runs of one side have different {fact.name}: {_listed(values[0])}.")


def _values(of: Callable[[dict[str, Any]], str], side: Side) -> list[str]:
    return sorted({of(run.summary) for run in side.runs})


def _options(baseline: Side, candidate: Side) -> Iterator[Caution]:
    names = {name for side in (baseline, candidate) for run in side.runs for name in run.summary["run"]["options"]}
    for name in sorted(names - _NOT_THE_LOAD):
        values = [
            _values(lambda summary, name=name: _text(summary["run"]["options"].get(name)), side)  # type: ignore[misc]
            for side in (baseline, candidate)
        ]
        if values[0] != values[1]:
            yield Caution(
                WARNING, f"Other option {plain(name, 40)}: {_listed(values[0])} against {_listed(values[1])}."
            )


def same_limits(baseline: Side, candidate: Side) -> bool:
    """Whether all requests were held to the same limits, or none to any: whether goodput can be compared."""
    return len({run.held_to for run in (*baseline.runs, *candidate.runs)}) == 1


def _limits(baseline: Side, candidate: Side) -> Iterator[Caution]:
    if same_limits(baseline, candidate):
        return
    told = [
        sorted({" ".join(sorted(limit.text for limit in run.limits)) for run in side.runs})
        for side in (baseline, candidate)
    ]
    which = f"Other --goodput: {_listed(told[0])} against {_listed(told[1])}"
    if told[0] == told[1]:
        which = f"Runs of one side have different --goodput: {_listed(told[0])}"
    yield Caution(WARNING, f"{which}. Goodput is left out: --goodput here holds all runs to the same limits.")


def _lengths(baseline: Side, candidate: Side) -> Iterator[Caution]:
    for name, what in (("input", "Prompts"), ("output", "Replies")):
        means = [_mean(side, lambda s, name=name: s["tokens"][name]) for side in (baseline, candidate)]  # type: ignore[misc]
        if means[0] and means[1] and abs(means[1] / means[0] - 1) > LENGTHS_DIFFER:
            first, second = (wording.number(mean) for mean in means)
            yield Caution(WARNING, f"{what} were of another length: {first} tokens on average against {second}.")
    shares = [_mean(side, lambda s: {"mean": s["tokens"]["cached_share"]}) for side in (baseline, candidate)]
    if shares[0] is not None and shares[1] is not None and abs(shares[0] - shares[1]) > LENGTHS_DIFFER:
        first, second = (wording.share(share) for share in shares)
        yield Caution(WARNING, f"Another share of the input came from the server's cache: {first} against {second}.")


def _mean(side: Side, of: Callable[[dict[str, Any]], dict[str, Any] | None]) -> float | None:
    found = [figures["mean"] for run in side.runs if (figures := of(run.summary)) and figures["mean"] is not None]
    return sum(found) / len(found) if found else None


def _errors(baseline: Side, candidate: Side) -> Iterator[Caution]:
    shares = []
    for side in (baseline, candidate):
        ratios = [run.ratios[metrics.ERROR_RATE] for run in side.runs if metrics.ERROR_RATE in run.ratios]
        rows = sum(float(ratio.sizes.sum()) for ratio in ratios)
        shares.append(sum(float(ratio.amounts.sum()) for ratio in ratios) / rows if rows else 0.0)
    if max(shares) > ERRORS_DIFFER:
        yield Caution(
            WARNING,
            f"{wording.share(shares[0])} of the baseline's requests failed, {wording.share(shares[1])} of the "
            "candidate's: TPOT and end-to-end are of those that succeeded, and who fails early makes room for others.",
        )


def _belief(run: Observed) -> Iterator[Caution]:
    summary, name = run.summary, plain(run.name, 80)
    verdict = summary["verdict"]
    if verdict["level"] != "valid":
        worst = [plain(reason["text"], 120) for reason in verdict["reasons"] if reason["level"] == verdict["level"]]
        yield Caution(WARNING, f"{name} is {verdict['level']}: {'; '.join(worst[:_MOST_LISTED])}.")
    for defect in summary["defects"][:_MOST_DEFECTS]:
        yield Caution(WARNING, f"{name}: {plain(defect)}")
    if len(summary["defects"]) > _MOST_DEFECTS:
        yield Caution(WARNING, f"{name}: {len(summary['defects']) - _MOST_DEFECTS} more defects; its report has them.")
    windows = summary["phases"]["windows"]
    if len(windows) > 1:
        yield Caution(WARNING, f"{name} has {len(windows)} steady windows: their requests are taken together.")
    if summary["phases"]["seconds"] < SHORTEST_S:
        seconds = wording.seconds(summary["phases"]["seconds"])
        yield Caution(NOTE, f"{name} was measured for {seconds} only: slow waves of the server may not show.")


def _repeats(baseline: Side, candidate: Side) -> Iterator[Caution]:
    if len(baseline.runs) == len(candidate.runs) == 1:
        yield Caution(
            NOTE,
            "One run a side: the intervals hold what requests vary, not what another start of the server would. "
            "Repeat both sides to have that in.",
        )
        return
    starts = [[run.summary["run"]["start"] for run in side.runs] for side in (baseline, candidate)]
    if max(starts[0]) < min(starts[1]) or max(starts[1]) < min(starts[0]):
        yield Caution(
            NOTE,
            "All runs of one side came before all of the other: a drift of machine or network in that time would look "
            "like a difference. Take turns.",
        )


def _text(value: object) -> str:
    """In words; one and the same for what is not set, in whatever way."""
    if value in (None, "", [], {}):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str), 80)


def _listed(values: Iterable[str]) -> str:
    found = [value or "unknown or not set" for value in values]
    more = f" and {len(found) - _MOST_LISTED} more" if len(found) > _MOST_LISTED else ""
    return ", ".join(found[:_MOST_LISTED]) + more
