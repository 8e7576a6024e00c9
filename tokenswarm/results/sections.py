"""The sections of the report, each a function of what is known about the run that returns markup, or "" for nothing.

A richer report adds functions to `SECTIONS`; nothing else needs to know of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from tokenswarm.results import (
    charts,
    client_section,
    goals_text,
    groups_section,
    hardware_section,
    steps_section,
    wording,
    workers_section,
)
from tokenswarm.results.capacity import table as capacity_table
from tokenswarm.results.flow import column
from tokenswarm.results.page import escape, facts, figure, section, table
from tokenswarm.results.phases import Phases, intended
from tokenswarm.results.read import Run
from tokenswarm.results.wording import STATISTICS, count, number, plain, share, statistic


@dataclass(frozen=True)
class Material:
    """What a section may draw on."""

    run: Run
    phases: Phases
    summary: dict[str, Any]


Section = Callable[[Material], str]


def title(summary: dict[str, Any]) -> str:
    """The report's title, as text."""
    run = summary["run"]
    return plain(run["label"] or run["run_id"] or "Load test", 120)


def heading(material: Material) -> str:
    run = material.summary["run"]
    target = run["target"]
    models = ", ".join(plain(model, 80) for model in run["models"]) or "model unknown"
    where = plain(target["host"] or "target unknown")
    lines = [
        '<header><div class="kicker">tokenswarm load test</div>',
        f"<h1>{escape(title(material.summary))}</h1>",
        f'<p class="lead">{escape(models)} at <code>{escape(where)}</code></p>',
        f'<p class="lead">{escape(wording.what_ran(material.summary))} · {wording.instant(run["start"])}</p>',
    ]
    if ended := wording.how_it_ended(material.summary):
        lines.append(f'<p class="lead">{escape(ended)}</p>')
    lines.append("</header>")
    if target["simulator"]:
        lines.append(
            '<div class="simulator" role="alert"><strong>SIMULATOR</strong> These figures are about '
            "tokenswarm's built-in simulator. No real model server was measured.</div>"
        )
    return "\n".join(lines)


def verdict(material: Material) -> str:
    found = material.summary["verdict"]
    pills = "".join(
        f'<span class="pill {escape(level)}">{escape(metric)}</span>' for metric, level in found["metrics"].items()
    )
    reasons = "".join(
        f'<li><span class="level {escape(reason["level"])}">{escape(reason["level"])}</span>'
        f'<span>{escape(reason["text"])}</span><span class="advice">{escape(reason["advice"])}</span></li>'
        for reason in found["reasons"]
    )
    level = escape(found["level"])
    listed = f'<ul class="reasons">{reasons}</ul>' if reasons else ""
    return (
        f'<div class="verdict {level}"><h2><span>Verdict: <span class="level {level}">{level}</span></span>'
        f'<span class="pills">{pills}</span></h2>{listed}</div>'
    )


def defects(material: Material) -> str:
    items = "".join(f"<li>{escape(defect)}</li>" for defect in material.summary["defects"])
    return section("Defects of the run directory", f"<ul>{items}</ul>" if items else "")


def cards(material: Material) -> str:
    summary = material.summary
    rates, load, levels = summary["throughput"], summary["concurrency"], summary["verdict"]["metrics"]
    cohort = summary["requests"]["cohort"]
    estimate = " (estimate)" if summary["tokens"]["estimated"] else ""
    shown = []
    for name, metric in (("ttft_ms", "ttft"), ("tpot_ms", "tpot"), ("itl_ms", "itl"), ("e2e_ms", "e2e")):
        if found := summary["latency"].get(name):
            more = [f"p95 {statistic(found, 'p95')}", f"p99 {statistic(found, 'p99')}"]
            shown.append(
                _card(f"{wording.LATENCIES[name]} p50", statistic(found, "p50"), "ms", more, levels.get(metric))
            )
    if (tokens := rates["output_tokens_per_s"]) is not None:
        per_user, peak = rates["output_tokens_per_s_per_user"], rates["peak_output_tokens_per_s"]
        more = [f"{number(per_user)} per user", f"peak {number(peak)}"]
        shown.append(_card("Output tokens" + estimate, number(tokens), "/s", more, levels.get("throughput")))
    if cohort["due"]:
        more = [f"{count(cohort['ok'])} of {count(cohort['due'])} due"]
        shown.append(_card("Requests, ok", number(rates["requests_per_s"]), "/s", more, levels.get("throughput")))
    if load["in_flight"] is not None:
        more = [f"of {wording.users(load['users'])} users", share(load["share"])] if load["users"] else ["on average"]
        shown.append(_card("In flight", number(load["in_flight"]), "", more, levels.get("concurrency")))
    return f'<div class="cards">{"".join(shown)}</div>' if shown else ""


def latency(material: Material) -> str:
    shown = wording.shown_latencies(material.summary)
    columns = (*STATISTICS[:1], "std", "min", *STATISTICS[1:])
    rows = [
        [escape(wording.LATENCIES[name]), *(_statistic(found, column) for column in columns), count(found["count"])]
        for name, found in shown.items()
    ]
    window = "the whole run" if material.phases.whole_run else "the steady window"
    note = f"Milliseconds, requests due in {window} ({wording.seconds(material.phases.seconds)})."
    if "unsure" in "".join(cell for row in rows for cell in row):
        note += " Grey figures marked ~ have too few requests behind them to be relied on."
    return section("Latency", table(["", *columns, "count"], rows) if rows else "", note=note)


def distributions(material: Material) -> str:
    cohort = material.run.rows[material.phases.contain(intended(material.run))]
    ok = cohort[cohort["status"] == "ok"]
    drawn = []
    for name, rows, colour in (("ttft_ms", cohort, charts.BLUE), ("tpot_ms", ok, charts.TEAL)):
        label = wording.LATENCIES[name]
        chart = charts.distribution(column(rows, name), material.summary["latency"][name], label, colour)
        drawn.append(figure(f"chart-{name}", chart, f"{label} of {count(int(rows[name].notna().sum()))} requests"))
    inside = "".join(drawn)
    return section("Distributions", f'<div class="pair">{inside}</div>' if inside else "")


def over_time(material: Material) -> str:
    run, phases = material.run, material.phases
    load = figure("chart-load", charts.over_time(run, phases), "Load as asked, offered and achieved; tokens; requests")
    chart = charts.latency_over_time(run, phases, "ttft_ms", "TTFT")
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


def steps(material: Material) -> str:
    return steps_section.section(material.summary)


def groups(material: Material) -> str:
    return groups_section.section(material.summary["groups"])


def capacity(material: Material) -> str:
    found = material.run.info.capacity
    if found is None:
        return ""
    said = escape(material.summary["capacity"]["text"])
    return section("Capacity", f"<p>{said}</p>", _text_table(capacity_table(found)))


def goals(material: Material) -> str:
    return section("Goals", "".join(_text_table(rows) for rows in goals_text.blocks(material.summary)))


def _text_table(rows: list[list[str]]) -> str:
    head, *others = [[escape(cell) for cell in row] for row in rows]
    return table(head, others)


def hardware(material: Material) -> str:
    return hardware_section.section(material.run.hardware, material.summary["hardware"], material.phases)


def requests(material: Material) -> str:
    found = material.summary["requests"]
    names = [name for name, n in found["all"].items() if n or name in ("due", "ok", "failed")]
    window = "Whole run" if material.phases.whole_run else "Steady window"
    rows = [[window, *(count(found["cohort"][name]) for name in names)]]
    rows.append(["All", *(count(found["all"][name]) for name in names)])
    more = ""
    if found["unaccounted"]:
        more = f'<p class="note">{count(found["unaccounted"])} more were started and have no row.</p>'
    if material.summary["questions"]:
        more += f'<p class="note">{escape(wording.questions(material.summary["questions"]))}.</p>'
    return section("Requests", table(["", *names], rows), more)


def errors(material: Material) -> str:
    found = material.summary["errors"]
    if not found:
        return ""
    rows = []
    for error in found:
        examples = "<br>".join(
            f"{escape(e['message'])} <small>× {count(e['count'])}</small>" for e in error["examples"]
        )
        when = UNKNOWN_TIME
        if error["first_s"] is not None:
            when = f"{wording.seconds(error['first_s'])} to {wording.seconds(error['last_s'])}"
        statuses = ", ".join(str(status) for status in error["http_statuses"])
        name = f"<code>{escape(error['class'])}</code>"
        rows.append([name, count(error["count"]), share(error["share"]), statuses, when, examples])
    chart = charts.errors_over_time(material.run, material.phases)
    heads = ["Class", "Requests", "Share", "HTTP", "When", "Messages, most frequent first"]
    return section("Errors", figure("chart-errors", chart, "Errors by class"), table(heads, rows, "texts"))


def client(material: Material) -> str:
    return client_section.section(material.run, material.phases, material.summary["client"])


def workers(material: Material) -> str:
    return workers_section.section(material.summary["run"]["workers"])


def details(material: Material) -> str:
    run = material.summary["run"]
    target, load = run["target"], run["load"]
    versions = ", ".join(f"{name} {version}" for name, version in run["suite"].items())
    classes = ", ".join(f"{c['name']}{' (thinks)' if c['think_time'] else ''}" for c in run["user_classes"])
    options = " ".join(
        f"<code>{escape(f'{name}={value}')}</code>" for name, value in run["options"].items() if value not in (None, "")
    )
    pairs = [
        ("Run", escape(run["run_id"])),
        ("Target", escape(target["host"] or "")),
        ("Models", escape(", ".join(map(str, run["models"])))),
        ("Protocol", escape(", ".join(map(str, run["protocols"])))),
        ("Transport", escape(target["transport"] or "")),
        ("Arrivals", escape(load["arrivals"])),
        ("Users asked", count(load["users"]) if load["users"] is not None else ""),
        ("User classes", escape(classes)),
        ("Started", escape(wording.instant(run["start"]))),
        ("Ended", escape(wording.instant(run["end"]) + ("" if run["ended"] else ", not properly"))),
        ("Settling time", escape(material.phases.settling)),
        ("Seed", "" if run["seed"] is None else escape(run["seed"])),
        ("Host", escape(", ".join(f"{name} {value}" for name, value in run["host"].items()))),
        ("Versions", escape(versions)),
        ("Command", f"<code>{escape(' '.join(run['command']))}</code>" if run["command"] else ""),
        ("Options", options),
    ]
    return section("What was run", facts(pairs))


def reading(material: Material) -> str:
    return section("How to read it", facts((name, escape(text)) for name, text in DEFINITIONS.items()))


UNKNOWN_TIME: Final = wording.UNKNOWN

DEFINITIONS: Final = {
    "TTFT": "Time to first token: from the request's start to the arrival of the first chunk with output (text, "
    "reasoning or a tool call). Of every request whose first token came. Two figures are bounds of one truth.",
    "TTFT from sent": "The same from the last byte of the request being sent: the server's own share.",
    "TTFT from due": "The same from when the load plan wanted the request: includes the client's delay.",
    "TPOT": "Time per output token after the first: (last token − first token) / (tokens − tokens in the first chunk).",
    "ITL": "Inter-token latency: gaps between arrivals of successive output chunks, of all requests together.",
    "End to end": "From the request's start to its end. Of successful requests.",
    "Steady window": "From the target load plus a settling time to the next change of load or the stop. Requests count "
    "that were due in it, whenever they ended.",
    "Percentiles": "Exact, of all rows (type 7); ITL from merged histograms, within 0.5 %.",
    "Throughput": "Tokens count in the second in which their chunk arrived, requests when they ended.",
    "In flight": "Requests between sent and end, on average over the window.",
    "Verdict": "Whether the measurement may be believed: valid, degraded or invalid. It does not judge the server.",
}


def _card(name: str, value: str, unit: str, more: list[str], level: str | None) -> str:
    below = " · ".join(f"<span>{escape(part)}</span>" for part in more)
    return (
        f'<div class="card {escape(level or "")}"><div class="name">{escape(name)}</div>'
        f'<div class="value{" long" if len(value) > 7 else ""}">{escape(value)}<small>{escape(unit)}</small></div>'
        f'<div class="more">{below}</div></div>'
    )


def _statistic(found: dict[str, Any] | None, name: str) -> str:
    text = escape(statistic(found, name))
    return f'<span class="unsure" title="too few requests">{text}</span>' if text.startswith(wording.UNSURE) else text


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


SECTIONS: Final[tuple[Section, ...]] = (
    heading,
    verdict,
    cards,
    defects,
    capacity,
    goals,
    latency,
    distributions,
    over_time,
    throughput,
    steps,
    groups,
    requests,
    errors,
    hardware,
    client,
    workers,
    details,
    reading,
)
