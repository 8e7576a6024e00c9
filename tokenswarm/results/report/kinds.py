"""The report's pictures of kinds of requests beside one another: by user class, and by turn of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tokenswarm.results import page
from tokenswarm.results.charts import spreads
from tokenswarm.results.distribution import Floats
from tokenswarm.results.flow import column
from tokenswarm.results.page import escape
from tokenswarm.results.phases import Mask, intended
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import LATENCIES, count, number, plain, share, statistic

SHOWN: Final = ("ttft_ms", "tpot_ms", "e2e_ms")
MOST_CLASSES: Final = 20
MOST_TURNS: Final = 20


def user_classes(material: Material) -> str:
    """Nothing where there is one class."""
    members = material.summary["groups"].get("user_class", ())[:MOST_CLASSES]
    if not members:
        return ""
    say, of_run = material.say, material.run.rows["user_class"]
    values = _Values(material, SHOWN)
    kinds = [(plain(member["value"], 40), values.of((of_run == member["value"]).to_numpy())) for member in members]
    chart = spreads.side_by_side([f"{say(LATENCIES[name])}, ms" for name in SHOWN], kinds)
    caption = say("Each user class from p5 to p95; the box is the middle half, the line in it the median")
    return page.section(say("User classes side by side"), page.figure("chart-classes", chart, caption, wide=True))


def turns(material: Material) -> str:
    """Nothing where no conversation had a second turn."""
    found, say = material.summary["turns"], material.say
    if not found:
        return ""
    rows = [
        [
            str(turn["turn"]),
            count(turn["due"]),
            count(turn["ok"]),
            number(turn["input_tokens"]),
            share(turn["cached_share"]),
            *(escape(statistic(turn["ttft_ms"], name)) for name in ("p50", "p95")),
        ]
        for turn in found
    ]
    heads = (say("Turn"), say("due"), say("ok"), say("input tokens, mean"), say("of it cached"), "TTFT p50", "p95")
    number_of, values = column(material.run.rows, "turn"), _Values(material, SHOWN[:1])
    kinds = [
        (say("turn {turn}", turn=turn["turn"]), values.of(number_of == turn["turn"])) for turn in found[:MOST_TURNS]
    ]
    chart = spreads.side_by_side(["TTFT, ms"], kinds)
    caption = say("TTFT by turn, from p5 to p95; the box is the middle half, the line in it the median")
    table = page.table([escape(head) for head in heads], rows)
    note = say("Does the first token come later the longer the conversation has become? Milliseconds.")
    return page.section(say("Conversations by turn"), table, page.figure("chart-turns", chart, caption), note=note)


class _Values:
    """Latencies of the cohort: TTFT of all of it, the others of those that were ok, as everywhere in the report."""

    def __init__(self, material: Material, names: Sequence[str]) -> None:
        rows = material.run.rows
        cohort = material.phases.contain(intended(material.run))
        ok = (rows["status"] == "ok").to_numpy()
        self._columns = [(column(rows, name), cohort if name == "ttft_ms" else cohort & ok) for name in names]

    def of(self, mine: Mask) -> list[Floats]:
        """Those of some rows, by a mask over all of the run."""
        return [values[mine & counts] for values, counts in self._columns]
