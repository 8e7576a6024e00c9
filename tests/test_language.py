"""The languages of reports: every text that the code says has an entry, and no entry is of a text that nobody says."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import tokenswarm
from tokenswarm import ending, rules
from tokenswarm.load import words
from tokenswarm.results import goals_text, hardware, steps_text, wording
from tokenswarm.results.charts import client as client_chart
from tokenswarm.results.figures import capacity
from tokenswarm.results.language import LANGUAGES, chinese
from tokenswarm.results.report import definitions, groups, heading
from tokenswarm.results.sweep import page, series, table
from tokenswarm.results.sweep.charts import AXES
from tokenswarm.results.sweep.wording import NO_KNEE

PACKAGE = Path(tokenswarm.__file__).parent
SAYING = (PACKAGE / "results", PACKAGE / "load" / "words.py", PACKAGE / "verdict.py")
PLACE = re.compile(r"\{(\w+)\}")
CHINESE = LANGUAGES["zh"]


def sources(*roots: Path) -> Iterator[Path]:
    for root in roots:
        yield from [root] if root.is_file() else (p for p in root.rglob("*.py") if "language" not in p.parts)


def spoken(tree: ast.AST) -> Iterator[str]:
    """Literals that are given to `say(…)` or `….say(…)`, on either side of an `if … else …` too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            for side in [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]:
                if name == "say" and isinstance(side, ast.Constant):
                    yield str(side.value)


def tables() -> Iterator[str]:
    """Texts that stand in tables, and are said when they are looked up."""
    yield from (
        wording.UNKNOWN,
        *wording.LATENCIES.values(),
        *wording.GROUPS.values(),
        *wording.STATISTICS,
        "std",
        "min",
    )
    yield from (*wording.STATUSES, *wording.STATUSES.values(), *wording.ERROR_CLASSES.values())
    yield from (*wording.IN_FULL.values(), *capacity.HEADS)
    yield from (*ending.WORDS.values(), *words.KINDS.values(), *words.DECISIONS.values(), *words.WHY.values())
    yield from (*goals_text.ATTAINED.values(), *steps_text.HEAD, *steps_text.RATES, "goals", "goodput", *groups.HEADS)
    yield from (text for shown in hardware.SHOWN.values() for text in (shown.label, shown.unit))
    yield from (
        *client_chart.CLIENT_GAUGES.values(),
        *heading.METRICS.values(),
        *heading.MEANINGS,
        *heading.MEANINGS.values(),
    )
    yield from ("note", "ramp", "steady", "drain", "closed", "kernel", "user", "finished", "late", "lost", "running")
    yield from ("hostname", "cpus", "platform")
    yield from (text for rule in rules.RULES for text in (rule.says, rule.advice))
    yield from (*page.DEFINITIONS, *page.DEFINITIONS.values(), *(caption for _, caption in page.CHARTS.values()))
    yield from (*page.HEADS, *table.ENERGY.values(), *NO_KNEE.values(), *AXES.values())
    yield from (*series.APART, *series.DOUBTED, series.TARGETS)
    for each in definitions.DEFINITIONS:
        yield from (*each.names, each.text, each.formula, each.of, each.others)


def said() -> set[str]:
    found = {text for path in sources(*SAYING) for text in spoken(ast.parse(path.read_text("utf-8")))}
    return {
        text for text in found | set(tables()) if re.search(r"[A-Za-z][A-Za-z]|e2e|[,.;()] ?$", PLACE.sub("", text))
    }


def filled() -> set[str]:
    """Every text of the package with `{}` where something is put in (once, if two things are), constant texts too."""
    found = set()
    for path in sources(PACKAGE):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
                found.add(text.replace("{}{}", "{}"))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_every_text_that_is_said_is_there_in_chinese() -> None:
    assert not sorted(said() - set(chinese.CATALOGUE))


def test_nothing_is_there_in_chinese_that_nobody_says() -> None:
    assert not sorted(set(chinese.CATALOGUE) - said())


def test_what_summaries_say_in_english_is_still_what_they_say() -> None:
    known = filled()
    assert not [text for text in chinese.RECORDED if PLACE.sub("{}", text) not in known]


def test_a_translation_has_the_places_of_its_text() -> None:
    for text, translated in [*chinese.CATALOGUE.items(), *chinese.RECORDED.items()]:
        assert sorted(PLACE.findall(text)) == sorted(PLACE.findall(translated)), text
        assert translated.strip(), text


def test_a_text_has_one_translation() -> None:
    modules = [module for name, module in vars(chinese).items() if name != "recorded" and hasattr(module, "TEXTS")]
    entries = Counter(text for module in modules for text in module.TEXTS)
    assert set(entries) == set(chinese.CATALOGUE)
    assert not [text for text, times in entries.items() if times > 1]
