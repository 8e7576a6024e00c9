"""The report's tables of the slowest requests: what surrounded each, and whom that makes suspect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from tokenswarm.results import page
from tokenswarm.results.figures.slowest import CLIENT, CONNECTION, LENGTH, SERVER
from tokenswarm.results.language import Language
from tokenswarm.results.page import escape
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import UNKNOWN, count, number, sent_ids, time_of_day

Slow = dict[str, Any]
LEVELS: Final = {SERVER: "invalid", CONNECTION: "degraded", CLIENT: "degraded", LENGTH: "note"}


def slowest(material: Material) -> str:
    """Nothing where nothing was measured."""
    say, found = material.say, material.summary["slowest"]
    titles = {
        "ttft_ms": say("By TTFT"),
        "e2e_ms": say("By end to end"),
        "itl_max_ms": say("By the longest gap between chunks"),
    }
    shown = [(kind, title, found[kind]) for kind, title in titles.items() if found[kind]]
    tables = []
    for index, (kind, title, requests) in enumerate(shown):
        heads, rows = _table(requests, kind, material)
        summary = f"<summary><strong>{escape(title)}</strong> {escape(_suspects(requests, say))}</summary>"
        table = page.table(heads, rows, "figures narrow")
        tables.append(f"<details{'' if index else ' open'}>{summary}{table}</details>")
    note = say(
        "Of the requests that the figures above are about. Suspect, half above the median and more, is whoever has the "
        "largest part of that. Server: the server, or the network to it. Connection: until the request was sent. "
        "Client: its own delay, or what it does not know since it read late. Length: the reply is longer than the "
        "median's."
    )
    return page.section(say("The slowest requests"), *tables, note=f"{note} {sent_ids(say)}")


def _suspects(requests: list[Slow], say: Language) -> str:
    names = _names(say)
    counts = Counter(slow["suspect"] for slow in requests)
    told = [f"{names[name]} × {n}" for name, n in counts.most_common() if name is not None]
    return say("suspect: {who}", who=", ".join(told)) if told else say("none is far above the median")


def _names(say: Language) -> dict[str, str]:
    return {SERVER: say("server"), CONNECTION: say("connection"), CLIENT: say("client"), LENGTH: say("length")}


def _table(requests: list[Slow], kind: str, material: Material) -> tuple[list[str], list[list[str]]]:
    say = material.say
    several_steps = len({slow["step"] for slow in requests}) > 1
    new = any(slow["conn_reused"] is False for slow in requests)
    left_out = {"" if several_steps else say("step"), "" if new else say("connection")}
    columns = [
        (head, cell)
        for head, cell in _columns(kind, material.phases.start, say)
        if head not in left_out and any(cell(slow) for slow in requests)
    ]
    heads = [escape(head) for head, _ in columns]
    return heads, [[cell(slow) or UNKNOWN for _, cell in columns] for slow in requests]


def _columns(kind: str, origin: float, say: Language) -> Iterator[tuple[str, Callable[[Slow], str]]]:
    """Heads, and what makes the cells (markup; empty where nothing was measured). A column of nothing is left out.
    `origin`: the run's start."""
    names = _names(say)

    def suspect(slow: Slow) -> str:
        who = slow["suspect"]
        return UNKNOWN if who is None else f'<span class="level {LEVELS[who]}">{escape(names[who])}</span>'

    def connection(slow: Slow) -> str:
        return {True: say("reused"), False: say("new"), None: ""}[slow["conn_reused"]]

    def who(slow: Slow) -> str:
        parts = (slow["user_class"], say("worker {worker}", worker=_whole(slow["worker"])))
        said = " · ".join((*parts, *([] if slow["status"] == "ok" else [say(slow["status"])])))
        return f"{escape(said, 120)}<br><code>{escape(slow['id'], 80)}</code>"

    yield "ms", lambda slow: number(slow[kind])
    yield say("× median"), lambda slow: _number(slow["times_median"])
    yield say("Suspect"), suspect
    yield (
        say("started, s; UTC"),
        lambda slow: f"{slow['at_s']:.2f}<br><small>{time_of_day(origin + slow['at_s'])}</small>",
    )
    if kind != "ttft_ms":
        yield say("TTFT, ms"), lambda slow: _number(slow["ttft_ms"])
    if kind == "e2e_ms":
        yield say("longest gap, ms"), lambda slow: _number(slow["itl_max_ms"])
    yield say("tokens in / out"), lambda slow: f"{count(slow['input_tokens'])} / {count(slow['output_tokens'])}"
    yield say("in flight / of its worker"), lambda slow: f"{count(slow['in_flight'])} / {slow['in_flight_worker']}"
    yield say("started ± 1 s"), lambda slow: count(slow["started_nearby"])
    yield say("waiting at the server"), lambda slow: _whole(slow["server_waiting"])
    yield say("GPUs, %"), lambda slow: _number(slow["gpu_percent"])
    yield say("client late, ms"), lambda slow: _number(slow["queue_ms"])
    yield say("to sent, ms"), lambda slow: number(slow["before_sent_ms"])
    yield say("client lag, ms"), lambda slow: _number(slow["client_lag_ms"])
    yield say("unsure by, ms"), lambda slow: number(slow["bounds_ms"]) if slow["bounds_ms"] else ""
    yield say("worker CPU, %"), lambda slow: _number(slow["cpu_percent"])
    yield say("loop busy, ms"), lambda slow: _number(slow["loop_lag_ms"])
    yield say("connection"), connection
    yield say("step"), lambda slow: _whole(slow["step"])
    yield say("who, and the id of its request"), who


def _number(value: float | None) -> str:
    return "" if value is None else number(value)


def _whole(value: float | None) -> str:
    return "" if value is None else count(value)
