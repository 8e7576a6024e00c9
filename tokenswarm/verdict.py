"""Whether a run's numbers may be believed: the one function that applies the rules (`rules.py`) to measured values.

Not here: how the values are measured (`results/figures/evidence.py`), and whether the server is any good (a slow server
measured well is a valid run).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from tokenswarm.rules import METRICS, RULES, Rule

VALID: Final = "valid"
NOTE: Final = "note"
DEGRADED: Final = "degraded"
INVALID: Final = "invalid"
_SEVERITY: Final[Mapping[str, int]] = {VALID: 0, NOTE: 0, DEGRADED: 1, INVALID: 2}


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A value for the rule of that name. `absolute` is what the rule's floor is compared with (None: no floor)."""

    rule: str
    value: float
    absolute: float | None = None
    subject: str = ""


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that fired: its number, the threshold it crossed, and what to do about it. `absolute` and `subject` are as
    measured: what it takes to say `text` and `advice` again."""

    level: str
    rule: str
    metrics: tuple[str, ...]
    value: float
    threshold: float
    text: str
    advice: str
    absolute: float | None = None
    subject: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`level` is the worst of `metrics`, which holds the level of each metric that was measured or condemned."""

    level: str
    metrics: dict[str, str]
    reasons: tuple[Reason, ...]


def judge(measured: Iterable[Measured], metrics: Iterable[str] = METRICS, rules: Iterable[Rule] = RULES) -> Verdict:
    """The verdict on the metrics that were measured. Raises KeyError for a value whose rule does not exist."""
    table = {rule.name: rule for rule in rules}
    order = {name: index for index, name in enumerate(table)}
    reasons = [reason for item in measured if (reason := _apply(table[item.rule], item)) is not None]
    reasons.sort(key=lambda reason: (-_SEVERITY[reason.level], reason.level == NOTE, order[reason.rule]))
    levels = dict.fromkeys(metrics, VALID)
    for reason in reasons:
        if _SEVERITY[reason.level]:
            for metric in reason.metrics:
                levels[metric] = worst(levels.get(metric, VALID), reason.level)
    return Verdict(level=worst(*levels.values()), metrics=levels, reasons=tuple(reasons))


def worst(*levels: str) -> str:
    """The most severe of the levels; `valid` if there is none. A note is no worse than `valid`."""
    found = max(levels, key=_SEVERITY.__getitem__, default=VALID)
    return VALID if found == NOTE else found


def _apply(rule: Rule, item: Measured) -> Reason | None:
    if item.absolute is not None and item.absolute <= rule.floor:
        return None
    for level, threshold in ((INVALID, rule.invalid), (DEGRADED, rule.degraded), (NOTE, rule.note)):
        if threshold is None:
            continue
        if item.value < threshold if rule.low_is_bad else item.value >= threshold:
            text, advice = in_words(rule, item, level, threshold)
            return Reason(
                level=level,
                rule=rule.name,
                metrics=rule.metrics,
                value=item.value,
                threshold=threshold,
                text=text[0].upper() + text[1:],
                advice=advice,
                absolute=item.absolute,
                subject=item.subject,
            )
    return None


def in_words(
    rule: Rule, item: Measured, level: str, threshold: float, say: Callable[..., str] = str.format
) -> tuple[str, str]:
    """What was found, and what to do about it. `say` fills the places of a text, in whatever language."""
    value = _beside(item.value, threshold, rule.unit)
    absolute = "" if item.absolute is None else _quantity(item.absolute, "ms")
    if absolute and "{absolute}" not in rule.says:
        value += say(" ({more})", more=absolute)
    text = say(rule.says, value=value, subject=item.subject, absolute=absolute)
    if level != NOTE and rule.unit != "count":
        limit = {"level": say(level), "limit": _quantity(threshold, rule.unit)}
        text += say("; {level} below {limit}", **limit) if rule.low_is_bad else say("; {level} from {limit}", **limit)
    return text, say(rule.advice, subject=item.subject)


def _beside(value: float, threshold: float, unit: str) -> str:
    """The value with as many digits as it takes to tell it from the threshold."""
    texts = (_quantity(value, unit, digits) for digits in (3, 4, 5))
    told_apart = (text for text in texts if value == threshold or text != _quantity(threshold, unit))
    return next(told_apart, _quantity(value, unit, 6))


def _quantity(value: float, unit: str, digits: int = 3) -> str:
    if unit == "share":
        return f"{value * 100:.{digits}g} %"
    if unit == "ms":
        return f"{value:.{digits}g} ms" if value < 1000 else f"{value:,.0f} ms"
    return f"{value:,.0f}"
