"""The report's load: what was asked, offered and achieved, over time, in steps, and as rates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tokenswarm.results import steps_text, wording
from tokenswarm.results.charts import latency as latency_chart
from tokenswarm.results.charts import load as charts
from tokenswarm.results.language import Language
from tokenswarm.results.page import escape, facts, figure, section, table
from tokenswarm.results.report.material import Material, marked
from tokenswarm.results.wording import count, number, share


def over_time(material: Material) -> str:
    run, phases, say = material.run, material.phases, material.say
    caption = say("Load as asked, offered and achieved; tokens; requests")
    load = figure("chart-load", charts.over_time(run, phases, say), caption)
    chart = latency_chart.over_time(run, phases, "ttft_ms", "TTFT", say)
    if chart is not None:
        caption = say("TTFT by the time a request started, {n} requests", n=count(chart["of"]))
        if chart["shown"] < chart["of"]:
            drawn = count(chart["shown"])
            caption += say(" ({n} drawn; the lowest and highest of every moment are among them)", n=drawn)
    return section(say("Over time"), load, figure("chart-ttft-time", chart, caption))


def throughput(material: Material) -> str:
    rates, say = material.summary["throughput"], material.say
    rows = []
    for name, label in (
        ("requests_per_s", say("Requests that succeeded")),
        ("inputs_per_s", say("Inputs embedded")),
        ("output_tokens_per_s", output_tokens(material)),
        ("input_tokens_per_s", say("Input tokens")),
        ("total_tokens_per_s", say("Input and output tokens")),
        ("characters_per_s", say("Output characters")),
        ("chunks_per_s", say("Output chunks")),
    ):
        if rates[name] is not None:
            per_user, peak = rates.get(f"{name}_per_user"), rates.get(f"peak_{name}")
            rows.append([label, number(rates[name]), *("" if v is None else number(v) for v in (per_user, peak))])
    heads = ["", say("per second"), say("per second and user"), say("peak second")]
    found = table(heads, rows) if rows and material.summary["requests"]["all"]["due"] else ""
    return section(say("Throughput"), found, facts(_token_facts(material.summary["tokens"], say)))


def output_tokens(material: Material) -> str:
    """What they are called: an estimate is said to be one."""
    return material.say("Output tokens (estimate)" if material.summary["tokens"]["estimated"] else "Output tokens")


def _token_facts(tokens: dict[str, Any], say: Language) -> Iterator[tuple[str, str]]:
    names = {
        "usage": say("the server's usage"),
        "tokenizer": say("a local tokenizer"),
        "chunks": say("chunks counted (an estimate)"),
    }
    sources = (
        say("{source}: {n} requests", source=names.get(name, name), n=count(n)) for name, n in tokens["sources"].items()
    )
    yield say("Tokens told by"), escape(", ".join(sources))
    for name, label in (
        ("output", say("Output tokens")),
        ("input", say("Input tokens")),
        ("characters", say("Output characters")),
    ):
        if (found := tokens[name]) and found["max"] > 0:
            ends = {"low": number(found["min"]), "high": number(found["max"])}
            yield label, say("mean {mean}, {low} to {high} a request", mean=number(found["mean"]), **ends)
    if asked := tokens["asked"]:
        yield say("Length"), lengths(asked, say)
    if found := tokens["prompts"]:
        yield say("Length of prompts"), escape(wording.prompts(found, say))
    if tokens["cached_share"] is not None:
        yield say("Cached input"), share(tokens["cached_share"])
    if found := tokens["prefixes"]:
        yield say("Prefixes"), escape(wording.prefixes(found, say))


def lengths(asked: dict[str, Any], say: Language) -> str:
    """How long replies were asked to be, and came to be."""
    given = {"asked": number(asked["asked_mean"]), "given": number(asked["actual_mean"])}
    return say("{asked} asked, {given} given on average ({share})", **given, share=share(asked["actual_share"]))


def steps(material: Material) -> str:
    """A line for each level; nothing where the load had one level all along."""
    summary, say = material.summary, material.say
    rows = [[marked(text, say) for text in row] for row in steps_text.table(summary, say)]
    left_out = "".join(f"<li>{escape(text)}</li>" for text in steps_text.left_out(summary, say))
    settling = say.again(summary["phases"]["settling"])
    return section(
        say("Steps"),
        table(rows[0], rows[1:]) if rows else "",
        f"<ul>{left_out}</ul>" if left_out else "",
        note=say(
            "The load changed while the run went on; each level by itself, its settling time ({time}) left out.",
            time=settling,
        ),
    )
