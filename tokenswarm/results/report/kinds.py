"""The report's pictures of kinds of requests beside one another: by user class, and by turn of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from tokenswarm.results import page
from tokenswarm.results.charts import spreads
from tokenswarm.results.distribution import Floats
from tokenswarm.results.flow import column
from tokenswarm.results.page import escape
from tokenswarm.results.phases import intended
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import LATENCIES, count, number, plain, share, statistic

SHOWN: Final = ("ttft_ms", "tpot_ms", "e2e_ms")
MOST_CLASSES: Final = 20
MOST_TURNS: Final = 20


def user_classes(material: Material) -> str:
    """Nothing where there is one class."""
    members = material.summary["groups"].get("user_class", ())[:MOST_CLASSES]
    say, cohort = material.say, _cohort(material)
    kinds = []
    for member in members:
        mine = (cohort["user_class"] == member["value"]).to_numpy()
        kinds.append((plain(member["value"], 40), _values(cohort, mine, SHOWN)))
    chart = spreads.side_by_side([f"{LATENCIES[name]}, ms" for name in SHOWN], kinds)
    caption = say("Each user class from p5 to p95; the box is the middle half, the line in it the median")
    return page.section(say("User classes side by side"), page.figure("chart-classes", chart, caption))


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
    cohort = _cohort(material)
    number_of = column(cohort, "turn")
    kinds = [
        (say("turn {turn}", turn=turn["turn"]), _values(cohort, number_of == turn["turn"], ("ttft_ms",)))
        for turn in found[:MOST_TURNS]
    ]
    chart = spreads.side_by_side(["TTFT, ms"], kinds)
    caption = say("TTFT by turn, from p5 to p95; the box is the middle half, the line in it the median")
    table = page.table([escape(head) for head in heads], rows)
    note = say("Does the first token come later the longer the conversation has become? Milliseconds.")
    return page.section(say("Conversations by turn"), table, page.figure("chart-turns", chart, caption), note=note)


def _cohort(material: Material) -> pd.DataFrame:
    return material.run.rows[material.phases.contain(intended(material.run))]


def _values(cohort: pd.DataFrame, mine: np.ndarray, names: Sequence[str]) -> list[Floats]:
    """TTFT of all of them, the others of those that were ok: as everywhere in the report."""
    ok = (cohort["status"] == "ok").to_numpy()
    return [column(cohort, name)[mine if name == "ttft_ms" else mine & ok] for name in names]
