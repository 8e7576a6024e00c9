"""The report's goals: what was wanted of the server, and the load that it can carry."""

from __future__ import annotations

from tokenswarm.results import goals_text
from tokenswarm.results.capacity import table as capacity_table
from tokenswarm.results.page import escape, section, table
from tokenswarm.results.report.material import Material


def capacity(material: Material) -> str:
    found = material.run.info.capacity
    if found is None:
        return ""
    said = escape(material.summary["capacity"]["text"])
    return section("Capacity", f"<p>{said}</p>", _text_table(capacity_table(found)))


def goals(material: Material) -> str:
    return section("Goals", "".join(_text_table(rows) for rows in goals_text.blocks(material.summary)))


def _text_table(rows: list[list[str]]) -> str:
    head, *others = [[escape(cell) for cell in row] for row in rows]
    return table(head, others)
