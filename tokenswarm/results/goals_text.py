"""Goals in words, for console and report alike: tables of text, without markup."""

from __future__ import annotations

from typing import Any, Final

from tokenswarm.results import wording
from tokenswarm.results.language import ENGLISH, Language
from tokenswarm.results.wording import count, number, plain, share

ATTAINED: Final = {True: "met", False: "MISSED", None: "not measured"}
_SECOND: Final = 1000.0

Rows = list[list[str]]


def blocks(summary: dict[str, Any], say: Language = ENGLISH) -> list[Rows]:
    """Tables, their heads in the first row; none where no goal was set."""
    return [rows for rows in (_objectives(summary, say), _goodput(summary, say)) if len(rows) > 1]


def _objectives(summary: dict[str, Any], say: Language) -> Rows:
    found = summary.get("slo") or {"objectives": [], "classes": []}
    rows = [[say("Goals"), "", say("value"), say("missed by"), say("of"), say("allowed")]]
    for name, objectives in (
        ("", found["objectives"]),
        *((c["user_class"], c["objectives"]) for c in found["classes"]),
    ):
        for objective in objectives:
            text = plain(f"{name}: {objective['objective']}" if name else objective["objective"], 60)
            figures = [_value(objective, summary, say), share(objective["miss_share"]), count(objective["counted"])]
            rows.append([text, say(ATTAINED[objective["attained"]]), *figures, share(objective["allowed"])])
    return rows


def _value(objective: dict[str, Any], summary: dict[str, Any], say: Language) -> str:
    value, metric = objective["value"], objective["metric"]
    if objective["beyond"]:
        limit = summary["run"]["options"].get("request_timeout")
        known = isinstance(limit, int | float) and metric != "output_tps"
        return f"> {limit:g} s" if known else say("none came")
    if value is None:
        return wording.UNKNOWN
    if metric == "error_rate":
        return share(value)
    return f"{number(value)}/s" if metric == "output_tps" else milliseconds(value)


def milliseconds(value: float) -> str:
    """`412 ms`, `2.31 s`."""
    return f"{number(value)} ms" if value < _SECOND else f"{number(value / _SECOND)} s"


def _goodput(summary: dict[str, Any], say: Language) -> Rows:
    found = summary.get("goodput")
    rows = [[say("Goodput"), say("requests/s"), say("of all due"), say("good"), say("due")]]
    if not found:
        return rows
    for name, part in ((" ".join(found["limits"]), found), *((c["user_class"], c) for c in found["classes"])):
        figures = [number(part["per_s"]), share(part["share"]), count(part["good"]), count(part["due"])]
        rows.append([plain(name, 60), *figures])
    return rows
