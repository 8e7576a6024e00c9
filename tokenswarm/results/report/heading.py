"""The report's first screen: what ran, whether it may be believed, and the figures that people came for."""

from __future__ import annotations

from tokenswarm.results import wording
from tokenswarm.results.page import escape, section
from tokenswarm.results.report.material import Material, title
from tokenswarm.results.wording import count, number, plain, share, statistic


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


def _card(name: str, value: str, unit: str, more: list[str], level: str | None) -> str:
    below = " · ".join(f"<span>{escape(part)}</span>" for part in more)
    return (
        f'<div class="card {escape(level or "")}"><div class="name">{escape(name)}</div>'
        f'<div class="value{" long" if len(value) > 7 else ""}">{escape(value)}<small>{escape(unit)}</small></div>'
        f'<div class="more">{below}</div></div>'
    )
