"""compare.html: sides, warnings, changes with their intervals, and the charts of all sides in one. One offline file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenswarm.errors import RunDirectoryError
from tokenswarm.results import page, summarise
from tokenswarm.results import wording as results_wording
from tokenswarm.results.compare import charts, metrics, wording
from tokenswarm.results.compare.comparable import WARNING
from tokenswarm.results.compare.differences import BETTER, UNMEASURED, UNSURE, WORSE, Comparison, Difference
from tokenswarm.results.compare.gate import PASSED, Judged
from tokenswarm.results.compare.sides import Observed, Side
from tokenswarm.results.page import escape, facts, figure, section, table

_LEVELS = {BETTER: "valid", WORSE: "invalid"}
_DRAWN = ("ttft", "tpot", "itl", "e2e")


def write(path: Path, text: str) -> None:
    """Raises RunDirectoryError if the page cannot be written there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        summarise.write_atomically(path, text.encode("utf-8"))
    except OSError as error:
        raise RunDirectoryError(f"cannot write {path}: {error.strerror or error}") from error


def render(sides: Sequence[Side], comparisons: Sequence[Comparison], judged: Sequence[Judged] = ()) -> str:
    """The whole page. `sides`: the baseline, then the candidate of each comparison."""
    parts = [_heading(sides), _gates(judged)]
    for comparison in comparisons:
        against = f": {comparison.candidate.name}" if len(comparisons) > 1 else ""
        parts += [_cautions(comparison, against), _differences(comparison, against), _effects(comparison, against)]
    parts += [_charts(sides, comparisons), _runs(sides), _reading()]
    return page.whole(f"{' against '.join(side.name for side in sides[1::-1])} – tokenswarm", parts)


def _heading(sides: Sequence[Side]) -> str:
    lines = ['<header><div class="kicker">tokenswarm comparison</div>']
    lines.append(f"<h1>{escape(' and '.join(side.name for side in sides[1:]), 240)}</h1>")
    lines.append(f'<p class="lead">against {escape(sides[0].name)}</p></header>')
    if any(run.summary["run"]["target"]["simulator"] for side in sides for run in side.runs):
        lines.append(
            '<div class="simulator" role="alert"><strong>SIMULATOR</strong> At least one of these runs loaded '
            "tokenswarm's built-in simulator, not a model server.</div>"
        )
    return "\n".join(lines)


def _gates(judged: Sequence[Judged]) -> str:
    if not judged:
        return ""
    failed = any(one.fails for one in judged)
    several = len({one.candidate for one in judged}) > 1
    level = "invalid" if failed else "valid"
    items = "".join(
        f'<li><span class="level {_level(one)}">{"failed" if one.fails else escape(one.outcome)}</span>'
        f"<span><code>{escape(one.gate)}</code> {escape(one.said)}{escape(f' ({one.candidate})') if several else ''}"
        "</span></li>"
        for one in judged
    )
    title = f'<h2><span>Limits: <span class="level {level}">{"failed" if failed else "kept"}</span></span></h2>'
    return f'<div class="verdict {level}">{title}<ul class="reasons">{items}</ul></div>'


def _level(judged: Judged) -> str:
    return "invalid" if judged.fails else "valid" if judged.outcome == PASSED else "degraded"


def _cautions(comparison: Comparison, against: str) -> str:
    items = "".join(
        f'<li><span class="level {"degraded" if caution.level == WARNING else "note"}">{escape(caution.level)}</span>'
        f"<span>{escape(caution.text)}</span></li>"
        for caution in comparison.cautions
    )
    return section(f"May they be compared?{against}", f'<ul class="reasons">{items}</ul>' if items else "")


def _differences(comparison: Comparison, against: str) -> str:
    repeated = any(len(side.directories) > 1 for side in (comparison.baseline, comparison.candidate))
    heads = ["", "baseline", "runs", "candidate", "runs"] if repeated else ["", "baseline", "candidate"]
    heads += ["change and interval", "finding"]
    rows = []
    for one in comparison.differences:
        cells = [escape(f"{one.title}{f', {one.unit}' if one.unit == 'ms' else ''}")]
        for side in (one.baseline, one.candidate):
            cells.append(escape(wording.figure(one, side)))
            cells += [escape(wording.between(one, side))] if repeated else []
        rows.append([*cells, _change(one), _outcome(one)])
    note = f"{wording.limits(comparison)} {wording.intervals(comparison)} ~: too few requests to rely on.".lstrip()
    if repeated:
        note += " runs: standard deviation between the runs of that side."
    return section(f"Changes{against}", table(heads, rows), note=note)


def _change(difference: Difference) -> str:
    text = escape(wording.change(difference))
    return f'<span class="unsure">{text}</span>' if difference.outcome == UNSURE else text


def _outcome(difference: Difference) -> str:
    if difference.outcome in (UNSURE, UNMEASURED):
        why = wording.finding(difference)
        return f'<span class="unsure" title="{escape(why)}">{escape(difference.outcome)}</span>'
    return f'<span class="level {_LEVELS.get(difference.outcome, "note")}">{escape(difference.outcome)}</span>'


def _effects(comparison: Comparison, against: str) -> str:
    rows = [[escape(one.title), f"{one.candidate_longer * 100:.1f} %", escape(one.size)] for one in comparison.effects]
    note = (
        "How often a request of the candidate, drawn at random, takes longer than one of the baseline: 50 % is no "
        "effect (Vargha and Delaney's A, with their words for its size). A percentile tells how far it moved, this how "
        "much of the whole moved."
    )
    heads = ["", "candidate longer", "effect"]
    return section(f"Effect sizes{against}", table(heads, rows) if rows else "", note=note)


def _charts(sides: Sequence[Side], comparisons: Sequence[Comparison]) -> str:
    drawn = [figure("chart-changes", charts.changes(comparisons), "Changes, with their intervals")]
    for name in _DRAWN:
        caption = f"{metrics.title_of(name)}: share of {'gaps' if name == metrics.ITL else 'requests'} below"
        drawn.append(figure(f"chart-{name}", charts.shares_below(sides, name), caption))
    for name, title, caption in (
        ("ttft", "TTFT, ms", "TTFT over time, median of each stretch"),
        ("e2e", "end to end, ms", "End to end over time, median of each stretch"),
        ("output_tokens_per_s", "output tokens/s", "Output tokens a second"),
    ):
        drawn.append(figure(f"chart-{name}-time", charts.over_time(sides, name, title), caption))
    changes, *others = drawn
    inside = "".join(others)
    return section("Charts", changes, f'<div class="pair">{inside}</div>' if inside else "")


def _runs(sides: Sequence[Side]) -> str:
    heads = ["Run", "side", "target", "model", "load", "started", "verdict", "due", "ok"]
    rows = [_run(side, run) for side in sides for run in side.runs]
    return section("The runs", table(heads, rows, "texts"))


def _run(side: Side, run: Observed) -> list[str]:
    described, cohort = run.summary["run"], run.summary["requests"]["cohort"]
    level = escape(run.summary["verdict"]["level"])
    return [
        f"<code>{escape(run.path)}</code>",
        escape(side.role),
        escape(described["target"]["host"] or results_wording.UNKNOWN),
        escape(", ".join(map(str, described["models"])) or results_wording.UNKNOWN, 120),
        escape(results_wording.what_ran(run.summary)),
        results_wording.instant(described["start"]),
        f'<span class="level {level}">{level}</span>',
        results_wording.count(cohort["due"]),
        results_wording.count(cohort["ok"]),
    ]


def _reading() -> str:
    return section("How to read it", facts((name, escape(text)) for name, text in DEFINITIONS.items()))


DEFINITIONS = {
    "Change": "Candidate against baseline on the same statistic of the requests due in the steady windows. Repeated "
    "runs of a side are taken together; a percentile is one of all their requests, never a mean of percentiles.",
    "Interval": "Where the true change lies, as far as these runs can tell. Requests that were close in time count "
    "together, since they are alike; with repeated runs, what varies from run to run is in it.",
    "Better, worse": "The whole interval lies on one side of no change. It says that there is a change, not that it "
    "matters: its size is the figure before it.",
    "No difference shown": "The interval holds 0. Larger changes than its ends are ruled out, smaller ones are not.",
    "Too few": "The percentile has too few requests behind it on one side, or the run was too short.",
}
