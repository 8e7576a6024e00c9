"""A capacity search in words: for the console while it goes on, and for its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tokenswarm.record import one_line

Say = Callable[..., str]
"""Fills the `{places}` of a text with what it is given by name, in whatever language."""

KINDS: Final = {"coarse": "step up", "bisect": "halve", "confirm": "confirm", "above": "above the answer"}
DECISIONS: Final = {
    "pass": "passes",
    "fine": "looks fine",
    "fail": "FAILS",
    "undecided": "undecided",
    "client limit": "client limit",
}
WHY: Final = {
    "found": "",
    "nothing passes": "Even the lowest level that was tried does not keep the goals.",
    "not reached": "Up to the most users that were allowed, nothing failed: raise --users.",
    "client limit": "Above that our own client was the limit, not the server: spread the load over more workers.",
    "undecided": "Above that no level was clearly good or bad.",
    "contradictory": "Levels that had failed passed later, or the other way: the server is not the same all the time.",
    "time": "The run time was over before the search was: give it a longer --run-time.",
    "stuck": "The users of the next level never came: look for a worker that was lost.",
    "stopped": "The search was stopped before it was over.",
}
"""Why the search ended there."""


def load(users: float | None, rate: float | None, say: Say = str.format) -> str:
    """`30 users`, or `12.5 requests/s` in the open loop."""
    if rate is not None:
        return say("{rate} requests/s", rate=f"{rate:.4g}")
    return "?" if users is None else say("{n} user" if users == 1 else "{n} users", n=f"{users:,.0f}")


def answer_line(answer: Mapping[str, Any], say: Say = str.format) -> str:
    """The answer in one or two sentences."""
    passed, failed = answer.get("users"), answer.get("failed_users")
    parts = []
    if passed is not None:
        at = load(passed, answer.get("rate"), say)
        sure = answer.get("confirmed")
        parts.append(say("{load} keep the goals" if sure else "{load} keep the goals (not confirmed)", load=at))
    if failed is not None:
        at, binding = load(failed, answer.get("failed_rate"), say), one_line(answer.get("binding") or "")
        if binding == "queue":
            parts.append(say("{load} miss, where the queue grows without end", load=at))
        else:
            parts.append(say("{load} miss {goal}", load=at, goal=binding) if binding else say("{load} miss", load=at))
    said = say(", ").join(parts) or say("No level was tried to its end")
    why = WHY.get(str(answer.get("why")), "")
    return say("{said}. {why}", said=said, why=why and say(why)).strip()


def probe_line(probe: Mapping[str, Any]) -> str:
    """One level as a line: users, what was found, and how far the goals were kept."""
    objectives = "; ".join(
        f"{one_line(each['objective'])} missed by {each['misses']:,} of {each['requests']:,}"
        for each in probe["objectives"]
    )
    found = DECISIONS.get(str(probe["decision"]), "?")
    queue = ", the queue grows" if probe["binding"] == "queue" else ""
    kind = KINDS.get(str(probe["kind"]), "?")
    return f"{probe['number']}. {load(probe['users'], probe.get('rate'))} ({kind}): {found}{queue}; {objectives}"
