"""The report's section on what a latency may hang on: lengths, requests in flight, the cache."""

from __future__ import annotations

from typing import Any

from tokenswarm.results import wording
from tokenswarm.results.charts import against as charts
from tokenswarm.results.figures import against as relations
from tokenswarm.results.language import Language
from tokenswarm.results.page import figure, section
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import count, number


def against(material: Material) -> str:
    """A chart for each relation that summary.json has figures of."""
    say = material.say
    drawn = []
    for pairs in relations.every(material.run, material.phases):
        found, relation = material.summary["against"][pairs.relation.name], pairs.relation
        if found is None:
            continue
        x, y = _x(relation.x, say), say(wording.LATENCIES[relation.y])
        chart = charts.scatter(pairs, found["bins"], x, f"{y}, ms", say)
        said = [say("{y} against {x}: {n} requests.", y=y, x=x, n=count(found["rows"]))]
        if relation.whole_run:
            said = [say("{y} against {x}: {n} requests of the whole run.", y=y, x=x, n=count(found["rows"]))]
        said += _said(found, say, x)
        drawn.append(figure(f"chart-{relation.name}", chart, " ".join(said)))
    inside = "".join(drawn)
    note = say(
        "What goes together need not be cause and effect: long prompts may come from other users, at other times."
    )
    return section(say("Latency against …"), f'<div class="pair">{inside}</div>' if inside else "", note=note)


def _x(name: str, say: Language) -> str:
    return {
        "input_tokens": say("input tokens"),
        "output_tokens": say("output tokens"),
        "cached_share": say("cached share of the input, %"),
        "in_flight": say("requests in flight when it was sent"),
    }[name]


def _said(found: dict[str, Any], say: Language, x: str) -> list[str]:
    """What the chart shows, in figures: the first bin and the last, and the slope where it is surely not 0."""
    first, last = found["bins"][0], found["bins"][-1]
    said = [
        say(
            "Median {first} ms at {from_x}, {last} ms at {to_x}.",
            first=number(first["p50"]),
            from_x=_span(first),
            last=number(last["p50"]),
            to_x=_span(last),
        )
    ]
    slope = found["slope"]
    if slope is not None and (slope["low"] > 0 or slope["high"] < 0):
        said.append(
            say(
                "On the whole {ms} ms for each {per} {x} more ({low} to {high}; Theil–Sen, 95 %).",
                ms=_signed(slope["ms"]),
                per=count(slope["per"]),
                x=x,
                low=_signed(slope["low"]),
                high=_signed(slope["high"]),
            )
        )
    return said


def _signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else number(value)


def _span(one: dict[str, Any]) -> str:
    low, high = count(one["from"]), count(one["to"])
    return low if low == high else f"{low}–{high}"
