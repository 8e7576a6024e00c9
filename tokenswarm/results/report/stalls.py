"""The report's section on stalls: replies that stood still in mid-stream, and what they have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tokenswarm.results import page
from tokenswarm.results.charts import stalls as charts
from tokenswarm.results.language import Language
from tokenswarm.results.page import escape
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import count, number, sent_ids, share, time_of_day


def stalls(material: Material) -> str:
    """One sentence where there was none; nothing where no gap between chunks is known."""
    found, say = material.summary["stalls"], material.say
    if found is None:
        return ""
    said = "".join(f"<p>{escape(text)}</p>" for text in _sentences(found, say))
    chart = charts.over_time(found["each"], material.phases, say)
    caption = say("When each stall ended, and how long it was")
    if found["requests"] > len(found["each"]):
        caption = say("When each of the {count} longest stalls ended, and how long it was", count=len(found["each"]))
    drawn = page.figure("chart-stalls", chart, caption)
    note = say(
        "A stall: nothing of a reply came for longer than {limit} s, that is a second, or ten times the median gap "
        "where that is more. Each request counts once, by its longest gap, over the whole run. When it ended is known "
        "to the second at best; where it is known less well, a line shows between when.",
        limit=number(found["threshold_ms"] / 1e3),
    )
    lines = "".join(f"<li>{escape(line)}</li>" for line in moments(material.summary, say))
    listed = f"<ul>{lines}</ul>" if lines else ""
    return page.section(say("Stalls"), said, listed, drawn, note=f"{note} {sent_ids(say)}")


def _sentences(found: dict[str, Any], say: Language) -> Iterator[str]:
    longest = {"longest": number(found["longest_ms"] / 1e3), "id": found["longest_id"]}
    if not found["requests"]:
        yield say("No reply that went on had stood still. The longest gap was {longest} s, of {id}.", **longest)
    else:
        yield say(
            "{requests} of {streamed} streamed replies stood still ({share}), for {longest} s at most: {id}.",
            requests=count(found["requests"]), streamed=count(found["streamed"]), share=share(found["share"]),
            **longest,
        )  # fmt: skip
    if found["silent"]:
        yield say(
            "{count} replies fell silent and never went on: their requests failed, or were given up or cut.",
            count=count(found["silent"]),
        )
    if (worker := found["one_worker"]) is not None:
        yield say(
            "All of them are worker {worker}'s, which chance would hardly bring about: look at its host, and at the "
            "network between it and the server.",
            worker=worker,
        )


def moments(summary: dict[str, Any], say: Language) -> list[str]:
    """A line for each moment at which several ended, the one with the most first."""
    found, start = summary["stalls"], summary["run"]["start"]
    why = {
        "server": say("At least half of all replies at once: the server paused, or what all share on the way to it."),
        "worker": say("Those of one worker, while others' went on: look at its host, and its way to the server."),
        "unknown": say("Others stood still too, but it is not known when: whose fault it was cannot be told."),
        None: say("Some of many, while others went on: requests that the server put off, most likely."),
    }
    return [
        say(
            "Up to {at} s ({utc} UTC), {requests} of {streaming} replies in progress stood still for {median} s "
            "(median; the longest {longest} s), on workers {workers}. {why}",
            at=f"{moment['at_s']:.1f}",
            utc=time_of_day(start + moment["at_s"], "seconds"),
            requests=count(moment["requests"]),
            streaming=count(moment["streaming"]),
            median=number(moment["median_ms"] / 1e3),
            longest=number(moment["longest_ms"] / 1e3),
            workers=", ".join(str(worker) for worker in moment["workers"]),
            why=why[moment["suspect"]],
        )
        for moment in (found["moments"] if found else [])
    ]
