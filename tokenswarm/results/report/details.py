"""The report's appendix: what was run, and how to read it."""

from __future__ import annotations

from typing import Final

from tokenswarm.results import wording
from tokenswarm.results.page import escape, facts, section
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import count

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
