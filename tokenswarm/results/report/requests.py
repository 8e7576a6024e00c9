"""The report's account of requests: how many ended how, and what went wrong."""

from __future__ import annotations

from typing import Any, Final

from tokenswarm.results import wording
from tokenswarm.results.charts import errors as charts
from tokenswarm.results.language import Language
from tokenswarm.results.page import escape, figure, section, table
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import count, share

UNKNOWN_TIME: Final = wording.UNKNOWN


def counts(material: Material) -> str:
    found, say = material.summary["requests"], material.say
    names = [name for name, n in found["all"].items() if n or name in ("due", "ok", "failed")]
    window = say("Whole run") if material.phases.whole_run else say("Steady window")
    rows = [[window, *(count(found["cohort"][name]) for name in names)]]
    rows.append([say("All"), *(count(found["all"][name]) for name in names)])
    notes = []
    if found["unaccounted"]:
        notes.append(say("{n} more were started and have no row.", n=count(found["unaccounted"])))
    if material.summary["questions"]:
        notes.append(say("{sentence}.", sentence=wording.questions(material.summary["questions"], say)))
    more = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    heads = [f'<abbr title="{escape(say(wording.STATUSES[name]))}">{escape(say(name))}</abbr>' for name in names]
    return section(say("Requests"), table(["", *heads], rows), more)


def errors(material: Material) -> str:
    found, say = material.summary["errors"], material.say
    if not found:
        return ""
    rows = []
    for error in found:
        examples = "<br>".join(
            f"{escape(e['message'])} <small>× {count(e['count'])}</small>" for e in error["examples"]
        )
        when = UNKNOWN_TIME
        if error["first_s"] is not None:
            ends = {"first": wording.seconds(error["first_s"]), "last": wording.seconds(error["last_s"])}
            when = say("{first} to {last}", **ends)
        statuses = ", ".join(str(status) for status in error["http_statuses"])
        meaning = escape(say(wording.ERROR_CLASSES.get(error["class"], "")))
        name = f"<code>{escape(error['class'])}</code><br><small>{meaning}</small>"
        cells = [name, count(error["count"]), share(error["share"]), statuses, when, examples]
        rows.append([*cells, _first(error["first"], material.phases.start, say)])
    chart = charts.over_time(material.run, material.phases, say)
    heads = [say("Class"), say("Requests"), say("Share"), "HTTP", say("When"), say("Messages, most frequent first")]
    heads.append(say("The first: to be found in logs"))
    drawn = figure("chart-errors", chart, say("Errors by class"))
    return section(say("Errors"), drawn, table(heads, rows, "texts"), note=wording.sent_ids(say))


def _first(error: dict[str, Any], origin: float, say: Language) -> str:
    at = utc = UNKNOWN_TIME
    if error["at_s"] is not None:
        at, utc = f"{error['at_s']:.2f}", wording.time_of_day(origin + error["at_s"])
    where = say("at {at} s ({utc} UTC), worker {worker}", at=at, utc=utc, worker=count(error["worker"]))
    status = "" if error["http_status"] is None else f", HTTP {error['http_status']}"
    return f"{escape(where + status)}<br><code>{escape(error['id'], 80)}</code>"
