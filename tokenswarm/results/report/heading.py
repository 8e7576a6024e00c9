"""The report's first screen: what ran, whether it may be believed, and the figures that people came for."""

from __future__ import annotations

from typing import Any, Final

from tokenswarm import rules
from tokenswarm.results import wording
from tokenswarm.results.language import ENGLISH, Language
from tokenswarm.results.page import escape, section
from tokenswarm.results.report.load import output_tokens
from tokenswarm.results.report.material import Material, title
from tokenswarm.results.wording import count, number, plain, share, statistic
from tokenswarm.verdict import Measured, in_words

MEANINGS: Final = {
    "valid": "the figures can be relied on",
    "degraded": "use the figures with care",
    "invalid": "do not rely on the figures",
}
"""What a verdict means for whoever reads on."""
MARKS: Final = {"valid": "✓", "degraded": "!", "invalid": "✕"}
METRICS: Final = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "itl": "ITL",
    "e2e": "End to end",
    "throughput": "Throughput",
    "concurrency": "Concurrency",
}
"""By what the verdict calls them."""


def heading(material: Material) -> str:
    run, say = material.summary["run"], material.say
    target = run["target"]
    models = ", ".join(plain(model, 80) for model in run["models"]) or say("model unknown")
    where = plain(target["host"] or say("target unknown"))
    began = wording.instant(run["start"])
    lines = [
        f'<header><p class="kicker">{escape(say("tokenswarm load test"))} · {began}</p>',
        f"<h1>{escape(title(material.summary, say))}</h1>",
        f'<p class="lead"><strong>{escape(models)}</strong> <code>{escape(where)}</code></p>',
        f'<p class="lead">{escape(wording.what_ran(material.summary, say))}</p>',
    ]
    if ended := wording.how_it_ended(material.summary, say):
        lines.append(f'<p class="lead">{escape(ended)}</p>')
    lines.append("</header>")
    if target["simulator"]:
        told = say("These figures are about tokenswarm's built-in simulator. No real model server was measured.")
        lines.append(
            f'<div class="simulator" role="note"><strong>{escape(say("SIMULATOR"))}</strong> {escape(told)}</div>'
        )
    return "\n".join(lines)


def verdict(material: Material) -> str:
    """In one line; why is told below the figures, so that those are in sight."""
    found, say = material.summary["verdict"], material.say
    level = found["level"]
    pills = "".join(_pill(metric, each, say) for metric, each in found["metrics"].items())
    return (
        f'<div class="verdict {escape(level)}"><h2>{escape(say("Verdict:"))} '
        f'<span class="level {escape(level)}">{MARKS.get(level, "")} {escape(say(level))}</span></h2>'
        f'<p class="meaning">{escape(say(MEANINGS.get(level, "")))}</p>'
        f'<p class="pills">{pills}</p></div>'
    )


def _pill(metric: str, level: str, say: Language) -> str:
    said = MARKS.get(level, "") if level == "valid" else say(level)
    name = say(METRICS.get(metric, metric))
    return f'<span class="pill {escape(level)}">{escape(name)} <span>{escape(said)}</span></span>'


def reasons(material: Material) -> str:
    """What the verdict rests on, and what to do about it; nothing where no rule fired."""
    say = material.say
    listed = "".join(_reason(reason, say) for reason in material.summary["verdict"]["reasons"])
    return section(say("Why this verdict"), f'<ul class="reasons">{listed}</ul>' if listed else "")


def said_again(reason: dict[str, Any], say: Language) -> tuple[str, str]:
    """Text and advice of a reason of summary.json, in this language."""
    if say is ENGLISH:
        return reason["text"], reason["advice"]
    rule, subject = rules.BY_NAME[reason["rule"]], say.again(reason["subject"])
    measured = Measured(rule=rule.name, value=reason["value"], absolute=reason["absolute"], subject=subject)
    return in_words(rule, measured, reason["level"], reason["threshold"], say)


def _reason(reason: dict[str, Any], say: Language) -> str:
    text, advice = said_again(reason, say)
    return (
        f'<li><span class="level {escape(reason["level"])}">{escape(say(reason["level"]))}</span>'
        f'<span>{escape(text)}</span><span class="advice">{escape(advice)}</span></li>'
    )


def defects(material: Material) -> str:
    items = "".join(f"<li>{escape(material.say.again(defect))}</li>" for defect in material.summary["defects"])
    return section(material.say("Defects of the run directory"), f"<ul>{items}</ul>" if items else "")


def cards(material: Material) -> str:
    """The figures that people came for."""
    shown = [*_latencies(material), *_rates(material), *_goals(material)]
    return f'<div class="cards">{"".join(shown)}</div>' if shown else ""


def _latencies(material: Material) -> list[str]:
    summary, say, shown = material.summary, material.say, []
    for name, metric in (("ttft_ms", "ttft"), ("tpot_ms", "tpot"), ("itl_ms", "itl"), ("e2e_ms", "e2e")):
        if found := summary["latency"].get(name):
            more = [f"p95 {statistic(found, 'p95')}", f"p99 {statistic(found, 'p99')}"]
            level = summary["verdict"]["metrics"].get(metric)
            shown.append(_card(f"{say(METRICS[metric])} p50", statistic(found, "p50"), "ms", more, level, say))
    return shown


def _rates(material: Material) -> list[str]:
    summary, say, shown = material.summary, material.say, []
    rates, load, levels = summary["throughput"], summary["concurrency"], summary["verdict"]["metrics"]
    cohort, level = summary["requests"]["cohort"], levels.get("throughput")
    if (tokens := rates["output_tokens_per_s"]) is not None:
        per_user, peak = number(rates["output_tokens_per_s_per_user"]), number(rates["peak_output_tokens_per_s"])
        more = [say("{n} per user", n=per_user), say("peak {n}", n=peak)]
        shown.append(_card(output_tokens(material), number(tokens), "/s", more, level, say))
    if cohort["due"]:
        more = [say("{ok} of {due} due", ok=count(cohort["ok"]), due=count(cohort["due"]))]
        shown.append(_card(say("Requests, ok"), number(rates["requests_per_s"]), "/s", more, level, say))
    if load["in_flight"] is not None:
        more = [say("on average")]
        if load["users"]:
            more = [say("of {n} users", n=wording.users(load["users"])), share(load["share"])]
        level = levels.get("concurrency")
        shown.append(_card(say("In flight"), number(load["in_flight"]), "", more, level, say))
    return shown


def _goals(material: Material) -> list[str]:
    found, say = material.summary.get("slo"), material.say
    if not found:
        return []
    every = [*found["objectives"], *(each for part in found["classes"] for each in part["objectives"])]
    met = sum(each["attained"] is True for each in every)
    missed = sum(each["attained"] is False for each in every)
    more = [say("met")] if not missed else [say("{n} missed", n=count(missed))]
    return [_card(say("Goals"), f"{met} / {len(every)}", "", more, "invalid" if missed else None, say, missed == 0)]


def _card(
    name: str, value: str, unit: str, more: list[str], level: str | None, say: Language, sound: bool = True
) -> str:
    """`sound`: `level` is the verdict's, and said where it is not valid; else it is the figure that is bad."""
    below = " · ".join(f"<span>{escape(part)}</span>" for part in more)
    if level in ("degraded", "invalid") and sound:
        below += f' · <span class="level {level}">{escape(say(level))}</span>'
    return (
        f'<div class="card {escape(level or "")}"><div class="name">{escape(name)}</div>'
        f'<div class="value{" long" if len(value) > 7 else ""}">{escape(value)}<small>{escape(unit)}</small></div>'
        f'<div class="more">{below}</div></div>'
    )
