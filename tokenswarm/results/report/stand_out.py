"""What stands out in a run that the verdict may well call valid: findings of other sections, said up here as well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tokenswarm.results import page
from tokenswarm.results.figures.slowest import CLIENT
from tokenswarm.results.language import Language
from tokenswarm.results.page import escape
from tokenswarm.results.report.by_worker import apart
from tokenswarm.results.report.load import lengths
from tokenswarm.results.report.material import Material
from tokenswarm.results.report.stalls import moments
from tokenswarm.results.wording import count, number

MOST: Final = 5
OF_A_KIND: Final = 2
QUEUED: Final = 1.0
"""Requests that wait at the server on average: from here on latency is its queue's too."""
CUT_SHORT: Final = 0.8
"""Of the tokens asked for: replies that are shorter load the server less than was meant."""
CLIENTS_PART: Final = 0.3
"""Of the slowest requests."""


def stand_out(material: Material) -> str:
    """Nothing where nothing does."""
    say = material.say
    titles = {
        "stalls": say("Stalls"),
        "by-worker": say("By worker"),
        "server": say("The server's own figures"),
        "throughput": say("Throughput"),
        "slowest": say("The slowest requests"),
    }
    found = [*at_once(material.summary, say), *_others(material.summary, say)][:MOST]
    lines = "".join(
        f'<li>{escape(text)} <a href="#{section}">{escape(titles[section])}</a></li>' for section, text in found
    )
    return page.section(say("What stands out"), f"<ul>{lines}</ul>" if lines else "")


def at_once(summary: dict[str, Any], say: Language) -> Iterator[tuple[str, str]]:
    """The section and the sentence of what is worth a look whatever else there is: stalls at one moment, workers that
    stand out."""
    for section, said in (("stalls", moments(summary, say)), ("by-worker", apart(summary, say))):
        yield from ((section, text) for text in said[:OF_A_KIND])


def _others(summary: dict[str, Any], say: Language) -> Iterator[tuple[str, str]]:
    waiting = summary["server"] and summary["server"]["all"]["waiting"]
    if waiting and waiting["mean"] >= QUEUED:
        yield "server", say("{n} requests waited in the server's queue on average.", n=number(waiting["mean"]))
    asked = summary["tokens"]["asked"]
    if asked and asked["actual_share"] < CUT_SHORT:
        yield "throughput", say("Output tokens of a reply: {found}.", found=lengths(asked, say))
    slow = summary["slowest"]["ttft_ms"]
    clients = sum(one["suspect"] == CLIENT for one in slow)
    if slow and clients >= CLIENTS_PART * len(slow):
        yield (
            "slowest",
            say(
                "{n} of the {all} slowest by TTFT owe it to the client itself.", n=count(clients), all=count(len(slow))
            ),
        )
