"""The report's load: what was asked, offered and achieved, over time, in steps, and as rates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tokenswarm.results import steps_text, wording
from tokenswarm.results.charts import latency as latency_chart
from tokenswarm.results.charts import load as charts
from tokenswarm.results.page import escape, facts, figure, section, table
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import count, number, share


def over_time(material: Material) -> str:
    run, phases = material.run, material.phases
    load = figure("chart-load", charts.over_time(run, phases), "Load as asked, offered and achieved; tokens; requests")
    chart = latency_chart.over_time(run, phases, "ttft_ms", "TTFT")
    caption = ""
    if chart is not None:
        caption = f"TTFT by the time a request started, {count(chart['of'])} requests"
        if chart["shown"] < chart["of"]:
            caption += f" ({count(chart['shown'])} drawn; the lowest and highest of every moment are among them)"
    return section("Over time", load, figure("chart-ttft-time", chart, caption))


def throughput(material: Material) -> str:
    rates = material.summary["throughput"]
    estimate = " (estimate)" if material.summary["tokens"]["estimated"] else ""
    rows = []
    for name, label in (
        ("requests_per_s", "Requests that succeeded"),
        ("inputs_per_s", "Inputs embedded"),
        ("output_tokens_per_s", f"Output tokens{estimate}"),
        ("input_tokens_per_s", "Input tokens"),
        ("total_tokens_per_s", "Input and output tokens"),
        ("characters_per_s", "Output characters"),
        ("chunks_per_s", "Output chunks"),
    ):
        if rates[name] is not None:
            per_user, peak = rates.get(f"{name}_per_user"), rates.get(f"peak_{name}")
            rows.append([label, number(rates[name]), *("" if v is None else number(v) for v in (per_user, peak))])
    found = table(["", "per second", "per second and user", "peak second"], rows) if rows else ""
    return section("Throughput", found if material.summary["requests"]["all"]["due"] else "", _tokens(material.summary))


def _tokens(summary: dict[str, Any]) -> str:
    tokens = summary["tokens"]
    return facts(_token_facts(tokens))


def _token_facts(tokens: dict[str, Any]) -> Iterator[tuple[str, str]]:
    names = {"usage": "the server's usage", "tokenizer": "a local tokenizer", "chunks": "chunks counted (an estimate)"}
    sources = (f"{names.get(name, name)}: {count(n)} requests" for name, n in tokens["sources"].items())
    yield "Tokens told by", escape(", ".join(sources))
    for name, label in (("output", "Output tokens"), ("input", "Input tokens"), ("characters", "Output characters")):
        if (found := tokens[name]) and found["max"] > 0:
            yield label, f"mean {number(found['mean'])}, {number(found['min'])} to {number(found['max'])} a request"
    if asked := tokens["asked"]:
        mean = f"{number(asked['asked_mean'])} asked, {number(asked['actual_mean'])} given on average"
        yield "Length", f"{mean} ({share(asked['actual_share'])})"
    if found := tokens["prompts"]:
        yield "Length of prompts", escape(wording.prompts(found))
    if tokens["cached_share"] is not None:
        yield "Cached input", share(tokens["cached_share"])
    if found := tokens["prefixes"]:
        yield "Prefixes", escape(wording.prefixes(found))


def steps(material: Material) -> str:
    """A line for each level; nothing where the load had one level all along."""
    summary = material.summary
    rows = [[_cell(text) for text in row] for row in steps_text.table(summary)]
    left_out = "".join(f"<li>{escape(text)}</li>" for text in steps_text.left_out(summary))
    settling = summary["phases"]["settling"]
    return section(
        "Steps",
        table(rows[0], rows[1:]) if rows else "",
        f"<ul>{left_out}</ul>" if left_out else "",
        note=f"The load changed while the run went on; each level by itself, its settling time ({settling}) left out.",
    )


def _cell(text: str) -> str:
    shown = escape(text)
    return f'<span class="unsure" title="too few requests">{shown}</span>' if text.startswith(wording.UNSURE) else shown
