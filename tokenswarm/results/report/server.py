"""The report's section on what the model server says of itself, beside what was measured from here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tokenswarm.results.figures.server_names import SIMULATOR
from tokenswarm.results.page import escape, section, table
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import UNKNOWN, count, number, plain, share


def server(material: Material) -> str:
    """Nothing where its page was not read, or is of a kind that is not known."""
    found, say = material.summary["server"], material.say
    if found is None:
        return ""
    columns = found["sources"] if len(found["sources"]) == 1 else [*found["sources"], found["all"]]
    rows = [row for row in _rows(columns, found["ours"], material) if set(row[1:]) != {UNKNOWN, ""}]
    heads = [""]
    for one in columns:
        name = one.get("source")
        kind = say("built-in simulator") if one.get("server") == SIMULATOR else one.get("server")
        heads.append(escape(plain(f"{kind}, {name}", 60)) if name else say("all together"))
    heads.append(say("measured from here"))
    gone = sum(one["unanswered"] for one in found["sources"])
    note = say(
        "From the server's own page, between the last pages before the window's edges; ours of the same seconds."
    )
    missed = "" if not gone else " " + say("{n} times in the run the page did not answer.", n=count(gone))
    return section(say("The server's own figures"), table(heads, rows), note=note + missed)


def _rows(columns: list[dict[str, Any]], ours: dict[str, Any], material: Material) -> Iterator[list[str]]:
    """A line a figure: what each page says, and what was measured here."""
    say = material.say
    in_flight = number(material.summary["concurrency"]["in_flight"])
    yield [say("Requests running, mean (highest)"), *(_level(one["running"]) for one in columns), ""]
    yield [say("Requests waiting, mean (highest)"), *(_level(one["waiting"]) for one in columns), ""]
    yield [say("Both, mean"), *(number(_both(one)) for one in columns), in_flight]
    yield [say("KV cache in use, mean (highest)"), *(_shares(one.get("kv_cache")) for one in columns), ""]
    yield [say("Preemptions"), *(count(one["preemptions"]) for one in columns), ""]
    cached = material.summary["tokens"]["cached_share"]
    here = "" if cached is None else share(cached)
    yield [say("Prompt tokens out of the prefix cache"), *(share(one["prefix_hit_share"]) for one in columns), here]
    yield [say("Drafted tokens accepted"), *(share(one["acceptance_share"]) for one in columns), ""]
    yield [say("TTFT, mean, ms"), *(number(one["ttft_ms"]) for one in columns), number(ours["ttft_ms"])]
    yield [say("First tokens"), *(count(one["ttft_count"]) for one in columns), count(ours["ttft_count"])]
    yield [say("Output tokens"), *(count(one["output_tokens"]) for one in columns), count(ours["output_tokens"])]
    yield [say("Input tokens"), *(count(one["input_tokens"]) for one in columns), count(ours["input_tokens"])]


def _both(one: dict[str, Any]) -> float | None:
    running, waiting = one["running"], one["waiting"]
    return None if running is None or waiting is None else running["mean"] + waiting["mean"]


def _level(found: dict[str, float] | None) -> str:
    if found is None:
        return UNKNOWN
    return f"{number(found['mean'])} ({count(found['max'])})" if "max" in found else number(found["mean"])


def _shares(found: dict[str, float] | None) -> str:
    return UNKNOWN if found is None else f"{share(found['mean'])} ({share(found['max'])})"
