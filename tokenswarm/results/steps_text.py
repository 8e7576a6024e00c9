"""A load that changed while the run went on, in words, for console and report alike: tables of text, without markup."""

from __future__ import annotations

from typing import Any, Final

from tokenswarm.results.goals_text import ATTAINED
from tokenswarm.results.language import ENGLISH, Language
from tokenswarm.results.wording import UNKNOWN, count, number, share, statistic

HEAD: Final = ("Step", "due", "ok", "TTFT p50", "p95", "TPOT p50", "e2e p50", "p95")
RATES: Final = ("requests/s", "tokens/s", "in flight")


def table(summary: dict[str, Any], say: Language = ENGLISH) -> list[list[str]]:
    """A line for each step, heads first; empty where the load had one level all along."""
    steps, windows = summary["phases"]["steps"], summary["windows"]
    if len(steps) < 2:
        return []
    goals = any(window.get("slo") for window in windows)
    goodput = any(window.get("goodput") for window in windows)
    optional = [name for name, there in (("goals", goals), ("goodput", goodput)) if there]
    rows = [[say(name) for name in (*HEAD, *RATES, *optional)]]
    for window in windows:
        if window["step"] is None:
            continue
        ttft, tpot, whole, rates = (window[name] for name in ("ttft_ms", "tpot_ms", "e2e_ms", "throughput"))
        figures = [(ttft, "p50"), (ttft, "p95"), (tpot, "p50"), (whole, "p50"), (whole, "p95")]
        row = [_named(window["users"], summary, say), count(window["requests"]["due"]), count(window["requests"]["ok"])]
        row += [statistic(found, name) for found, name in figures]
        row += [number(rates["requests_per_s"]), number(rates["output_tokens_per_s"])]
        row.append(number(window["concurrency"]["in_flight"]))
        if goals:
            row.append(say(ATTAINED[(window.get("slo") or {}).get("attained")]))
        if goodput:
            row.append(share((window.get("goodput") or {}).get("share")))
        rows.append(row)
    return rows if len(rows) > 1 else []


def left_out(summary: dict[str, Any], say: Language = ENGLISH) -> list[str]:
    """A sentence for each step of which nothing counts."""
    steps, start = summary["phases"]["steps"], summary["run"]["start"]
    return [
        say(
            "{step}, {start} to {end} s: not measured, {why}",
            step=_named(step["users"], summary, say),
            start=number(step["start"] - start),
            end=number(step["end"] - start),
            why=say.again(step["unmeasured"]),
        )
        for step in steps
        if len(steps) > 1 and step["unmeasured"]
    ]


def _named(users: int | None, summary: dict[str, Any], say: Language) -> str:
    load = summary["run"]["load"]
    if users is None:
        return UNKNOWN
    text = say("{n} user" if users == 1 else "{n} users", n=count(users))
    if load["arrivals"] == "closed" or not load["rate_per_user"]:
        return text
    return f"{text}{say(', ')}{number(users * load['rate_per_user'])}/s"
