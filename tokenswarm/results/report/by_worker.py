"""The report's figures by worker, and in words which of them stands out."""

from __future__ import annotations

from typing import Any

from tokenswarm.results import page
from tokenswarm.results.figures.by_worker import FEWEST
from tokenswarm.results.language import Language
from tokenswarm.results.page import escape
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import LATENCIES, count, number, plain, statistic

MOST_SAID = 8


def by_worker(material: Material) -> str:
    """Nothing where there was one worker."""
    summary, say = material.summary, material.say
    members = summary["groups"].get("worker")
    if not members:
        return ""
    different = {difference["worker"] for difference in summary["workers_apart"]}
    rows = [_row(member, int(member["value"]) in different) for member in members]
    heads = [say("Worker"), say("due"), say("ok"), say("failed, timeout"), "TTFT p50", "p95", "TPOT p50", "p95"]
    heads += [say("End to end p50"), "p95", say("tokens/s")]
    said = apart(summary, say)
    if not said and sum(member["ok"] >= FEWEST for member in members) < 2:
        said = [say("Too few requests of each worker to tell them apart.")]
    said = said or [say("No worker stands out by its median TTFT or TPOT.")]
    text = "".join(f"<p>{escape(sentence)}</p>" for sentence in said)
    note = say(
        "Milliseconds. All workers load the same server in the same way: one that stands out has a slow host, or a "
        "network path of its own. Told apart are medians of one user class whose 95 % intervals do not overlap, and "
        "that are 10 % and 1 ms apart."
    )
    return page.section(say("By worker"), text, page.table([escape(head) for head in heads], rows), note=note)


def _row(member: dict[str, Any], different: bool) -> list[str]:
    name = escape(member["value"])
    return [
        f'<span class="level degraded">{name}</span>' if different else name,
        *(count(member[key]) for key in ("due", "ok", "failed")),
        *(
            escape(statistic(member[key], percentile))
            for key in ("ttft_ms", "tpot_ms", "e2e_ms")
            for percentile in ("p50", "p95")
        ),
        number(member["output_tokens_per_s"]),
    ]


def apart(summary: dict[str, Any], say: Language) -> list[str]:
    """A sentence for each worker and figure that stands out."""
    return [_told(difference, summary["run"], say) for difference in summary["workers_apart"][:MOST_SAID]]


def _told(difference: dict[str, Any], run: dict[str, Any], say: Language) -> str:
    hosts = {worker["index"]: worker["hostname"] for worker in run["workers"]}
    several = len({user["name"] for user in run["user_classes"]}) > 1
    told = {
        "worker": difference["worker"],
        "host": plain(hosts.get(difference["worker"]) or "–", 60),
        "figure": say(LATENCIES[difference["figure"]]),
        "median": number(difference["median"]),
        "others": number(difference["others"]),
        "change": f"{difference['share'] * 100:+.0f} %",
        "requests": count(difference["requests"]),
    }
    if several:
        return say(
            "Worker {worker} ({host}): median {figure} {median} ms, {others} ms on the others ({change}), of "
            "{requests} requests of {user}.",
            **told, user=plain(difference["user_class"], 60),
        )  # fmt: skip
    return say(
        "Worker {worker} ({host}): median {figure} {median} ms, {others} ms on the others ({change}), of {requests} "
        "requests.",
        **told,
    )
