"""The report's account of requests: how many ended how, and what went wrong."""

from __future__ import annotations

from typing import Final

from tokenswarm.results import wording
from tokenswarm.results.charts import errors as charts
from tokenswarm.results.page import escape, figure, section, table
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import count, share

UNKNOWN_TIME: Final = wording.UNKNOWN


def counts(material: Material) -> str:
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
    chart = charts.over_time(material.run, material.phases)
    heads = ["Class", "Requests", "Share", "HTTP", "When", "Messages, most frequent first"]
    return section("Errors", figure("chart-errors", chart, "Errors by class"), table(heads, rows, "texts"))
