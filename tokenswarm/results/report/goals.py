"""The report's goals: what was wanted of the server, and the load that it can carry."""

from __future__ import annotations

from tokenswarm.results import goals_text
from tokenswarm.results.figures.capacity import in_words
from tokenswarm.results.figures.capacity import table as capacity_table
from tokenswarm.results.page import escape, section, table
from tokenswarm.results.report.material import Material


def capacity(material: Material) -> str:
    found = material.run.info.capacity
    if found is None:
        return ""
    said = escape(in_words(found, material.say))
    return section(material.say("Capacity"), f"<p>{said}</p>", _text_table(capacity_table(found, material.say)))


def goals(material: Material) -> str:
    blocks = goals_text.blocks(material.summary, material.say)
    return section(material.say("Goals"), "".join(map(_text_table, blocks)))


def _text_table(rows: list[list[str]]) -> str:
    head, *others = [[escape(cell) for cell in row] for row in rows]
    return table(head, others)
