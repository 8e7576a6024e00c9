"""The report's section on requests told apart: by name, by user class, by server."""

from __future__ import annotations

from typing import Final

from tokenswarm.results import page, wording
from tokenswarm.results.page import escape
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import count, statistic

HEADS: Final = ("due", "ok", "failed, timeout", "TTFT p50", "p95", "p99", "TPOT p50", "e2e p50", "p95", "output tokens")


def groups(material: Material) -> str:
    """Nothing where all requests are of one kind."""
    tables, say = [], material.say
    for kind in wording.GROUPS:
        members = material.summary["groups"].get(kind)
        if not members:
            continue
        rows = [
            [
                escape(wording.group(kind, member["value"], say)),
                *(count(member[name]) for name in ("due", "ok", "failed")),
                *(escape(statistic(member["ttft_ms"], name)) for name in ("p50", "p95", "p99")),
                escape(statistic(member["tpot_ms"], "p50")),
                *(escape(statistic(member["e2e_ms"], name)) for name in ("p50", "p95")),
                count(member["output_tokens"]),
            ]
            for member in members
        ]
        tables.append(page.table([say(head) for head in (wording.GROUPS[kind], *HEADS)], rows))
    return page.section(say("Told apart"), *tables, note=say("Milliseconds. The same requests as above."))
