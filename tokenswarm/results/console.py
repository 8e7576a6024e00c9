"""The summary as a plain, aligned table for a terminal. Text from servers is stripped of control characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tokenswarm.results import goals_text, steps_text, wording
from tokenswarm.results.figures import capacity
from tokenswarm.results.language import ENGLISH, Language
from tokenswarm.results.report.heading import METRICS, in_words
from tokenswarm.results.report.stand_out import at_once
from tokenswarm.results.wording import count, number, plain, share, statistic

WIDTH: Final = 100
ROWS: Final = ("ttft_ms", "ttft_due_ms", "tpot_ms", "itl_ms", "e2e_ms")
MOST_GROUPS: Final = 10
COLUMNS: Final = ("mean", "p50", "p90", "p95", "p99", "max")


def table(summary: dict[str, Any], report: Path | None = None, say: Language = ENGLISH) -> str:
    """The whole summary as lines of text, without a line end at the last. `report`: where report.html lies, if any."""
    blocks = [
        _title(summary, say),
        _verdict(summary, say),
        _stand_out(summary, say),
        _capacity(summary, say),
        _requests(summary, say),
        _latency(summary, say),
        _throughput(summary, say),
        _energy(summary, say),
        _steps(summary, say),
        *_groups(summary, say),
        *(aligned(block) if len(block) > 1 else block[0] for block in goals_text.blocks(summary, say)),
        _errors(summary, say),
        [f"{say('Report')}  {report}"] if report else [],
    ]
    return "\n\n".join("\n".join(line.rstrip() for line in block) for block in blocks if block)


def width(text: str) -> int:
    """Columns of a terminal that the text takes: two for wide East Asian characters, none for combining ones."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines: the first column to the left, the others to the right."""
    columns = [max(width(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first + " " * (columns[0] - width(first))]
        cells += [" " * (wide - width(cell)) + cell for cell, wide in zip(others, columns[1:], strict=True)]
        lines.append("  ".join(cells))
    return lines


def _title(summary: dict[str, Any], say: Language) -> list[str]:
    run = summary["run"]
    target = run["target"]
    models = ", ".join(plain(model, 60) for model in run["models"]) or say("model unknown")
    lines = [
        f"{plain(run['run_id'])}: {plain(target['host'] or say('target unknown'))}, {models}",
        wording.what_ran(summary, say),
        *filter(None, [wording.how_it_ended(summary, say)]),
    ]
    if target["simulator"]:
        lines += simulator_warning(say)
    return lines


def simulator_warning(say: Language = ENGLISH) -> list[str]:
    """Which nobody can miss: no real server was measured."""
    told = say("SIMULATOR: these figures are about tokenswarm's built-in simulator. No real model server was measured.")
    bar = "!" * width(told)
    return [bar, told, bar]


def _verdict(summary: dict[str, Any], say: Language) -> list[str]:
    verdict = summary["verdict"]
    lines = [say("Verdict: {level}", level=say(verdict["level"]).upper())]
    names = METRICS if say is not ENGLISH else {}
    metrics = verdict["metrics"].items()
    worse = [f"{say(names.get(metric, metric))} {say(level)}" for metric, level in metrics if level != "valid"]
    if worse and len(worse) < len(metrics):
        lines[0] += say(" ({more})", more=say(", ").join(worse))
    for reason in verdict["reasons"]:
        text, advice = in_words(reason, say)
        told = say("{said}. {why}", said=plain(text), why=plain(advice))
        lines += wrapped(told, _margin(say(reason["level"])))
    for defect in summary["defects"]:
        lines += wrapped(plain(say.again(defect)), _margin(say("defect")))
    return lines


def _stand_out(summary: dict[str, Any], say: Language) -> list[str]:
    """The first of each kind; the report has them all."""
    first = dict(reversed(list(at_once(summary, say))))
    head = say("Stands out: ")
    return [line for text in reversed(first.values()) for line in wrapped(plain(text, 500), head)]


def _capacity(summary: dict[str, Any], say: Language) -> list[str]:
    found = summary["capacity"]
    if not found:
        return []
    searched = msgspec.convert(found, capacity.Capacity)
    lines = wrapped(capacity.in_words(searched, say), say("Capacity: ")) + aligned(capacity.table(searched, say))
    if not searched.headline:
        return lines
    if searched.passed:
        return [*lines, say("Everything below is of the level that passed.")]
    return [*lines, say("Everything below is of all levels that were tried, since none passed.")]


def _requests(summary: dict[str, Any], say: Language) -> list[str]:
    requests = summary["requests"]
    names = [name for name, n in requests["all"].items() if n or name in ("due", "ok", "failed")]
    window = say("whole run") if summary["phases"]["whole_run"] else say("steady")
    rows = [[say("Requests"), *map(say, names)]]
    rows.append([f"{window} ({wording.seconds(summary['phases']['seconds'])})", *_counts(requests["cohort"], names)])
    rows.append([say("all"), *_counts(requests["all"], names)])
    lines = aligned(rows)
    if requests["unaccounted"]:
        lines.append(say("{n} more were started and have no row.", n=count(requests["unaccounted"])))
    if summary["questions"]:
        lines.append(wording.questions(summary["questions"], say))
    return lines


def _counts(counts: dict[str, int], names: Sequence[str]) -> list[str]:
    return [count(counts[name]) for name in names]


def _latency(summary: dict[str, Any], say: Language) -> list[str]:
    shown = wording.shown_latencies(summary)
    rows = [[say("Latency in ms"), *map(say, COLUMNS), say("count")]]
    for name in ROWS:
        if name in shown:
            figures = [statistic(shown[name], column) for column in COLUMNS]
            rows.append([say(wording.LATENCIES[name]), *figures, count(shown[name]["count"])])
    if len(rows) == 1:
        return [say("Latency: nothing was measured")]
    lines = aligned(rows)
    if any(cell.startswith(wording.UNSURE) for row in rows for cell in row):
        lines.append(say("~ too few requests for this percentile"))
    return lines


def _steps(summary: dict[str, Any], say: Language) -> list[str]:
    rows = steps_text.table(summary, say)
    return [*(aligned(rows) if rows else []), *steps_text.left_out(summary, say)]


def _groups(summary: dict[str, Any], say: Language) -> list[list[str]]:
    blocks = []
    for kind in wording.GROUPS:
        groups = summary["groups"].get(kind)
        if not groups:
            continue
        rows = [[say(head) for head in (wording.GROUPS[kind], *steps_text.HEAD[1:])]]
        for group in groups[:MOST_GROUPS]:
            ttft, tpot, whole = group["ttft_ms"], group["tpot_ms"], group["e2e_ms"]
            figures = [(ttft, "p50"), (ttft, "p95"), (tpot, "p50"), (whole, "p50"), (whole, "p95")]
            counts = [count(group["due"]), count(group["ok"])]
            name = plain(wording.group(kind, group["value"], say), 36)
            rows.append([name, *counts, *(statistic(found, name) for found, name in figures)])
        lines = aligned(rows)
        if len(groups) > MOST_GROUPS:
            lines.append(say("and {n} more in the report", n=len(groups) - MOST_GROUPS))
        blocks.append(lines)
    return blocks


def _throughput(summary: dict[str, Any], say: Language) -> list[str]:
    rates, load = summary["throughput"], summary["concurrency"]
    estimated = summary["tokens"]["estimated"]
    rows = [[say("Throughput"), say("per s"), say("per s and user"), say("peak second")]]
    for name, label in (
        ("requests_per_s", say("requests (ok)")),
        ("inputs_per_s", say("inputs embedded")),
        ("output_tokens_per_s", say("output tokens (estimate)" if estimated else "output tokens")),
        ("input_tokens_per_s", say("input tokens")),
        ("total_tokens_per_s", say("all tokens")),
        ("characters_per_s", say("characters")),
        ("chunks_per_s", say("chunks")),
    ):
        if rates[name] is not None:
            per_user = rates.get(f"{name}_per_user")
            peak = rates.get(f"peak_{name}")
            rows.append([label, *("" if v is None else number(v) for v in (rates[name], per_user, peak))])
    lines = aligned(rows)
    if load["in_flight"] is not None:
        told = say("Concurrency: {n} requests in flight on average", n=number(load["in_flight"]))
        if load["users"] is not None:
            told += say(" of {n} users ({share})", n=wording.users(load["users"]), share=share(load["share"]))
        lines.append(told)
    tokens = summary["tokens"]
    if tokens["prompts"]:
        lines += wrapped(wording.prompts(tokens["prompts"], say), say("Prompts: "))
    if tokens["prefixes"]:
        lines += wrapped(wording.prefixes(tokens["prefixes"], say), say("Prefixes: "))
    return lines


def _energy(summary: dict[str, Any], say: Language) -> list[str]:
    found = summary["energy"]
    if found is None:
        return []
    used, cards = found["all"], count(len(found["gpus"]))
    per_token, net = used["joules_per_output_token"], used["net_joules_per_output_token"]
    if per_token is None:
        why = plain(found["notes"][0], 300) if found["notes"] else say("no output token came")
        text = say("unknown. {why}", why=why)
    else:
        told = [say("{joules} J per output token", joules=number(per_token))]
        told += [] if net is None else [say("{joules} J net of idle", joules=number(net))]
        text = "; ".join([*told, say("{watts} W on average", watts=number(used["watts"]))])
    return wrapped(text, say("Energy (GPU boards only, GPUs: {n}): ", n=cards))


def _errors(summary: dict[str, Any], say: Language) -> list[str]:
    if not summary["errors"]:
        return []
    rows = [[say("Errors of the whole run"), say("requests"), say("share"), ""]]
    lines = aligned(
        rows + [[plain(e["class"], 40), count(e["count"]), share(e["share"]), ""] for e in summary["errors"]]
    )
    for index, error in enumerate(summary["errors"], 1):
        if error["examples"]:
            lines[index] += plain(error["examples"][0]["message"], WIDTH - 40)
    return lines


def _margin(word: str) -> str:
    return "  " + word + " " * max(1, 9 - width(word))


# What a line may end behind: a word, and each wide character, with the marks that close a part of a sentence.
_PIECE: Final = re.compile(r" *(?:[\u2e80-\uffef]|[^ \u2e80-\uffef]+)[，。；：、）]*")


def wrapped(text: str, head: str) -> list[str]:
    """Lines of no more than WIDTH columns, `head` before the first and as much room before the others."""
    lines, line = [], ""
    for piece in _PIECE.findall(text):
        if line and width(line) + width(piece) > WIDTH - width(head):
            lines.append(line)
            line = ""
        line += piece if line else piece.lstrip()
    return [(head if index == 0 else " " * width(head)) + text for index, text in enumerate([*lines, line])]
