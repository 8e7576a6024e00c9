"""How changes, intervals and findings are put into words, the same on console and page. No markup: callers escape."""

from __future__ import annotations

from typing import Final

from tokenswarm.results import wording
from tokenswarm.results.compare.differences import SAME, UNSURE, Change, Comparison, Difference, Effect
from tokenswarm.results.compare.estimate import Figure
from tokenswarm.results.wording import number

_ENDLESS: Final = 1e7
MINUS: Final = "−"


def figure(difference: Difference, found: Figure) -> str:
    """One side's value: `~` before it if too few rows carry it."""
    if found.value is None:
        return wording.UNKNOWN
    if difference.unit == "":
        return f"{found.value * 100:.2f} %"
    unsure = wording.UNSURE if found.rows < found.needed else ""
    return unsure + number(found.value)


def between(difference: Difference, found: Figure) -> str:
    """How far the runs of one side lie apart; "" with one run."""
    if found.between is None:
        return ""
    return f"±{found.between * 100:.2g} {'pp' if difference.unit == '' else '%'}"


def change(difference: Difference) -> str:
    """`+18 % [11, 26]`, or without its interval where there is none."""
    if difference.headline is None:
        return wording.UNKNOWN
    return told(difference.headline, _unit(difference))


def told(found: Change, unit: str) -> str:
    """A change in %, pp or ms."""
    factor = 1.0 if unit == "ms" else 100.0
    digits = _digits(found, factor)
    text = f"{signed(found.estimate * factor, digits)} {unit}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{_end(found.low * factor, digits)}, {_end(found.high * factor, digits)}]"


def line(difference: Difference) -> str:
    """`TTFT p95 +18 % [11, 26], worse`: the metric and what these runs show of it."""
    said = finding(difference)
    return f"{difference.title}{' ' if said[0] in '+0' + MINUS else ': '}{said}"


def finding(difference: Difference) -> str:
    """The same without the metric's name."""
    found = difference.headline
    if found is None:
        sides = {"baseline": difference.baseline, "candidate": difference.candidate}
        missing = [role for role, one in sides.items() if one.value is None]
        return f"not measured in {' and '.join(missing)}" if missing else "the baseline is 0: there is no change in %"
    if difference.outcome == UNSURE:
        return too_few(difference)
    if difference.outcome == SAME and found.low is not None and found.high is not None:
        digits, unit = _digits(found, 100.0), _unit(difference)
        low, high = (f"{signed(end * 100, digits)} {unit}" for end in (found.low, found.high))
        return f"no difference that these runs can show ({low} to {high})"
    return f"{change(difference)}, {difference.outcome}"


def too_few(difference: Difference) -> str:
    """Why nothing can be said: rows that are missing, or time."""
    rows = min(difference.baseline.rows, difference.candidate.rows)
    needed = difference.baseline.needed
    if rows < needed:
        return f"too few requests to tell: {rows:,} of the {needed:,} that each side needs"
    return "measured too shortly for an interval"


def effect(found: Effect) -> str:
    share = found.candidate_longer * 100
    return f"{found.title}: longer in the candidate for {share:.0f} of 100 pairs of requests ({found.size} effect)"


def limits(comparison: Comparison) -> str:
    """What goodput is held to; "" where it is not compared."""
    held_to = " ".join(comparison.goodput)
    return held_to and f"Goodput: requests due that kept to {held_to}, a second, and their share of all that count."


def intervals(comparison: Comparison) -> str:
    """What making many comparisons at once does."""
    level = comparison.confidence
    chance = comparison.intervals * (1 - level)
    return (
        f"{comparison.intervals} intervals, each at {level * 100:g} % by itself: with nothing changed, about "
        f"{chance:.1f} of them would still show a difference by chance. Metrics of one run go together: they are not "
        f"{comparison.intervals} independent proofs."
    )


def signed(value: float, digits: int) -> str:
    text = f"{abs(value):,.{digits}f}"
    return f"{'+' if value >= 0 else MINUS}{text}" if float(text.replace(",", "")) else text


def _unit(difference: Difference) -> str:
    return "pp" if difference.unit == "" else "%"


def _digits(found: Change, factor: float) -> int:
    """Decimals such that the widest number of the three has two digits that matter."""
    ends = [abs(end) * factor for end in (found.estimate, found.low, found.high) if end is not None]
    widest = max((end for end in ends if end < _ENDLESS), default=_ENDLESS)
    return 0 if widest >= 10 else 1 if widest >= 1 else 2


def _end(value: float, digits: int) -> str:
    return "∞" if value > _ENDLESS else signed(value, digits).removeprefix("+")
