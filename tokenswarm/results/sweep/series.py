"""Which runs make one curve: those of the same server, model and kind of work. What else differs is said.

Sentences and keys only; the facts are those that `compare` looks at (`results/compare/comparable.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tokenswarm.results.compare.comparable import FACTS, Fact
from tokenswarm.results.language import Language
from tokenswarm.results.sweep.observe import Observed
from tokenswarm.results.wording import UNKNOWN, plain

APART: Final = ("kinds of target", "models", "protocols", "transports", "arrivals", "user classes")
"""Facts that make a curve of its own."""
DOUBTED: Final = (
    "sources of token counts",
    "clocks of arrivals",
    "versions of tokenswarm",
    "machines that made the load",
)
"""Facts that leave a doubt within one curve."""
TARGETS: Final = "targets"
"""They make a curve of its own, too, but for the built-in simulator: it has another port each time."""
OF_THE_LEVEL: Final = frozenset(
    (
        "steps",
        "step_time",
        "warmup",
        "rate_per_user",
        "time_scale",
        "max_in_flight",
        "requests",
        "token_budget",
        "find_capacity",
        "slo",
        "goodput",
        "fail_on",
        "run_dir",
        "label",
        "save_responses",
        "lang",
        "hardware",
        "server_metrics",
        "check",
        "seed",
        "protocol",
        "transport",
        "model",
        "arrivals",
        "dataset_once",
        "stop_timeout",
        "query_model",
    )
)
"""Options that say how much load there is and for how long, or what is kept of it; or of which there is a fact."""
LONGEST: Final = 60

Signature = tuple[tuple[str, str], ...]
"""Names and values of all that makes a curve of its own, and is set."""


def signature(described: Mapping[str, Any]) -> Signature:
    """What a run has in common with the others of its curve."""
    found = [(name, _fact(name).of(dict(described))) for name in APART]
    if not described["run"]["target"]["simulator"]:
        found.append((TARGETS, _fact(TARGETS).of(dict(described))))
    options = sorted(described["run"]["options"].items())
    found += [(name, _told(value)) for name, value in options if name not in OF_THE_LEVEL]
    return tuple((name, value) for name, value in found if value)


def differing(signatures: Sequence[Signature]) -> list[str]:
    """The names of what is not the same in all of them."""
    names = dict.fromkeys(name for one in signatures for name, _ in one)
    return [name for name in names if len({dict(one).get(name, "") for one in signatures}) > 1]


def name(one: Signature, differ: Sequence[str]) -> str:
    """What a curve is called: its values of what differs, as far as they are known. "" where nothing is."""
    known = dict(one)
    texts = (_named(each, known[each]) for each in differ if known.get(each))
    return plain(", ".join(texts), LONGEST)


def cautions(runs: Sequence[Observed], say: Language) -> Iterator[str]:
    """What speaks against holding these runs against each other."""
    signatures = list(dict.fromkeys(signature(run.described) for run in runs))
    for each in differing(signatures):
        values = sorted({dict(one).get(each, "") or UNKNOWN for one in signatures})
        yield say(
            "The runs differ in {what}: {values}. Each has a curve of its own.",
            what=_what(each, say),
            values=plain("; ".join(values), 200),
        )
    for each in DOUBTED:
        values = sorted({_fact(each).of(run.described) or UNKNOWN for run in runs})
        if len(values) > 1:
            yield say(
                "The runs differ in {what}: {values}. The levels may not be comparable.",
                what=_what(each, say),
                values=plain("; ".join(values), 200),
            )


def _fact(wanted: str) -> Fact:
    return next(fact for fact in FACTS if fact.name == wanted)


def _what(name: str, say: Language) -> str:
    known = {*APART, *DOUBTED, TARGETS}
    return say(name) if name in known else say("the option {name}", name=plain(name, 40))


def _named(name: str, value: str) -> str:
    return value if name in (*APART, TARGETS) else f"{name}={value}"


def _told(value: object) -> str:
    if value in (None, "", [], {}, False):
        return ""
    return plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str), 80)
