"""How numbers, names and levels are written, the same in the console and the report. No markup: callers escape."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime
from typing import Any, Final

from tokenswarm import ending
from tokenswarm.results.distribution import PERCENTILES, Distribution
from tokenswarm.results.language import ENGLISH, Language

UNKNOWN: Final = "–"
UNSURE: Final = "~"

LATENCIES: Final = {
    "ttft_ms": "TTFT",
    "ttft_sent_ms": "TTFT from sent",
    "ttft_due_ms": "TTFT from due",
    "ttfo_ms": "First answer",
    "tpot_ms": "TPOT",
    "itl_ms": "ITL",
    "e2e_ms": "End to end",
    "queue_ms": "Client late",
    "sent_ms": "Start → sent",
}
IN_FULL: Final = {"TTFT": "time to first token", "TPOT": "time per output token", "ITL": "inter-token latency"}
GROUPS: Final = {"name": "By name", "user_class": "By user class", "remote_addr": "By server"}
STATISTICS: Final = ("mean", *PERCENTILES, "max")
STATUSES: Final = {
    "due": "all that were to be sent",
    "ok": "the whole reply came",
    "failed": "ended in an error",
    "timeout": "passed one of the time limits",
    "cancelled": "its user left",
    "incomplete": "cut by the end of the run",
    "shed": "due, but not sent: no place under --max-in-flight",
}
ERROR_CLASSES: Final = {
    "connect": "no connection: refused or broken",
    "dns": "the name of the host is unknown",
    "tls": "TLS failed",
    "connect_timeout": "no connection within --connect-timeout",
    "first_token_timeout": "no first token within --first-token-timeout",
    "stall_timeout": "nothing came for as long as --stall-timeout",
    "total_timeout": "not over within --request-timeout",
    "http_4xx": "refused by the server",
    "http_5xx": "an error of the server",
    "rate_limited": "HTTP 429",
    "content_policy": "refused for what the prompt or the reply says",
    "truncated": "ended before its end mark",
    "stream_error": "an error inside a reply that began with HTTP 200",
    "malformed": "not what the protocol says",
    "empty": "ended without any output",
    "client": "could not be sent as it is",
}

# C0 and C1 controls, ends of lines, and the marks that turn the direction of text round: none may reach a terminal from
# a server.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")


def plain(text: object, length: int = 300) -> str:
    """Text of unknown origin on one line, without terminal escapes and controls, cut at `length` characters."""
    clean = _CONTROLS.sub(" ", _ANSI.sub("", str(text))).strip()
    return clean if len(clean) <= length else clean[: length - 1] + "…"


def on_chart(text: object, length: int = 50) -> str:
    """The same for a name, a title or a text on a chart, where plotly would take <b> and <a href> for markup."""
    return html.escape(plain(text, length), quote=False)


def number(value: float | None) -> str:
    """Three or four digits that matter: 0.412, 4.12, 41.2, 412, 4,120."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return "0"
    size = abs(value)
    for limit, digits in ((0.9995, 3), (9.995, 2), (99.95, 1)):
        if size < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def count(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def users(value: float | None) -> str:
    """A number of users: whole ones without decimals."""
    return count(value) if value is None or value == round(value) else number(value)


def share(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return "< 0.1 %" if 0 < value < 0.001 else f"{value * 100:.1f} %"


def seconds(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    if value < 120:
        return f"{number(value)} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def instant(epoch: float | None) -> str:
    """UTC, to the second."""
    if epoch is None or not 0 < epoch < 1e11:
        return UNKNOWN
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def time_of_day(epoch: float, precision: str = "milliseconds") -> str:
    """UTC, as HH:MM:SS.mmm, or in another precision of `datetime.isoformat`."""
    if not 0 < epoch < 1e11:
        return UNKNOWN
    return datetime.fromtimestamp(round(epoch, 3), UTC).time().isoformat(precision)


def sent_ids(say: Language = ENGLISH) -> str:
    """Where the ids of requests are found again."""
    return say(
        "Each request took its id along as X-Request-Id: look for that in the server's logs, at its time in UTC."
    )


def statistic(found: Distribution | None, name: str) -> str:
    """One figure of a distribution: `~` before it if too few samples carry it, both bounds where they differ."""
    if found is None or found.get(name) is None:
        return UNKNOWN
    value = number(found[name])
    low = found.get("low", {}).get(name)
    if low is not None and number(low) != value:
        value = f"{number(low)}–{value}"
    return UNSURE + value if name in found["unsure"] else value


def shown_latencies(summary: dict[str, Any]) -> dict[str, Distribution]:
    """The latencies that were measured and say something: start-side waits only where they reach a millisecond."""
    found = {name: summary["latency"].get(name) for name in LATENCIES}
    ttft = found["ttft_ms"]
    for name in ("ttft_due_ms", "ttfo_ms"):
        if found[name] and ttft and all(statistic(found[name], s) == statistic(ttft, s) for s in ("p50", "p99")):
            found[name] = None  # the same as TTFT: nothing waited, nothing was thought
    for name in ("queue_ms", "sent_ms"):
        if (waits := found[name]) and waits["max"] < 1.0:
            found[name] = None
    return {name: distribution for name, distribution in found.items() if distribution}


def group(kind: str, value: str, say: Language = ENGLISH) -> str:
    """What a group of requests is called."""
    return plain(value, 60) or (say("no connection") if kind == "remote_addr" else UNKNOWN)


def questions(found: dict[str, int], say: Language = ENGLISH) -> str:
    """What became of the questions that --retries asked again."""
    lost = found["asked"] - found["answered"]
    rest = say("all of them in the end")
    if lost:
        rest = say("{answered} in the end, {lost} never", answered=count(found["answered"]), lost=count(lost))
    return say(
        "{asked} questions in the whole run, {retries} retries: {at_once} answered without any, {rest}",
        asked=count(found["asked"]),
        retries=count(found["retries"]),
        at_once=count(found["at_once"]),
        rest=rest,
    )


def prompts(found: dict[str, Any], say: Language = ENGLISH) -> str:
    """The lengths of made-up prompts: what was meant, by whose count, and what came of it."""
    by = say("an estimate, without --tokenizer") if found["estimated"] else say("by --tokenizer")
    told = ""
    if found["actual_mean"] is not None:
        told = say("; {tokens} counted by the server", tokens=number(found["actual_mean"]))
    return say("{tokens} tokens meant on average ({by})", tokens=number(found["asked_mean"]), by=by) + told


def prefixes(found: dict[str, Any], say: Language = ENGLISH) -> str:
    """What prompts had in common, and what the server's cache made of it."""
    told = say("the server does not tell what it cached")
    if found["cached_share"] is not None:
        told = say("{share} came out of its cache", share=share(found["cached_share"]))
    return say(
        "{share} of the input tokens were meant to be in common with other prompts; {told}",
        share=share(found["shared_share"]),
        told=told,
    )


def what_ran(summary: dict[str, Any], say: Language = ENGLISH) -> str:
    """The load in a few words: `100 users, closed loop, spawned at 20/s, 60 s`."""
    load = summary["run"]["load"]
    lasted = seconds(summary["run"]["seconds"])
    if summary["capacity"]:
        most = (summary["capacity"]["answer"] or {}).get("most_users")
        if most is None:
            return say("search for capacity, {time}", time=lasted)
        return say("search for capacity up to {n} users, {time}", n=count(most), time=lasted)
    # By their numbers: the loss of a worker ends a step, and what is left of that is no other one.
    levels = list({step["number"]: step["users"] for step in reversed(summary["phases"]["steps"])}.values())
    known = load["users"] is not None
    parts = [say("{n} users", n=count(load["users"])) if known else say("users by hand")]
    if len(levels) > 1:
        ends = {"low": count(min(levels)), "high": count(max(levels))}
        parts = [say("{low} to {high} users in {n} steps", **ends, n=count(len(levels)))]
    arrivals = plain(load["arrivals"], 40)
    parts.append(say("closed loop") if arrivals == "closed" else say("open loop ({arrivals})", arrivals=arrivals))
    asked = summary["throughput"].get("asked_per_s")
    if asked is not None:
        parts.append(say("{rate} tasks/s", rate=users(asked)))
    if load["spawn_rate"]:
        parts.append(say("spawned at {rate}/s", rate=f"{load['spawn_rate']:g}"))
    return say(", ").join([*parts, lasted])


def how_it_ended(summary: dict[str, Any], say: Language = ENGLISH) -> str:
    """What ended the run, as a sentence; empty where that is not known, and where its time was simply over."""
    ended_by = summary["run"]["ended_by"]
    if not ended_by or ended_by == ending.RUN_TIME:
        return ""
    return say("It ended because {why}.", why=say(plain(ending.in_words(ended_by))))
