"""The summary as a plain, aligned table for a terminal. Text from servers is stripped of control characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tokenswarm.results import capacity, goals_text, steps_text, wording
from tokenswarm.results.wording import count, number, plain, share, statistic

WIDTH: Final = 100
SIMULATOR: Final = (
    "SIMULATOR: these figures are about tokenswarm's built-in simulator. No real model server was measured."
)
ROWS: Final = ("ttft_ms", "ttft_due_ms", "tpot_ms", "itl_ms", "e2e_ms")
MOST_GROUPS: Final = 10
COLUMNS: Final = ("mean", "p50", "p90", "p95", "p99", "max")


def table(summary: dict[str, Any], report: Path | None = None) -> str:
    """The whole summary as lines of text, without a line end at the last. `report`: where report.html lies, if any."""
    blocks = [
        _title(summary),
        _verdict(summary),
        _capacity(summary),
        _requests(summary),
        _latency(summary),
        _throughput(summary),
        _steps(summary),
        *_groups(summary),
        *(aligned(block) if len(block) > 1 else block[0] for block in goals_text.blocks(summary)),
        _errors(summary),
        [f"Report  {report}"] if report else [],
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


def _title(summary: dict[str, Any]) -> list[str]:
    run = summary["run"]
    target = run["target"]
    models = ", ".join(plain(model, 60) for model in run["models"]) or "model unknown"
    lines = [
        f"{plain(run['run_id'])}: {plain(target['host'] or 'target unknown')}, {models}",
        wording.what_ran(summary),
        *filter(None, [wording.how_it_ended(summary)]),
    ]
    if target["simulator"]:
        bar = "!" * width(SIMULATOR)
        lines += [bar, SIMULATOR, bar]
    return lines


def _verdict(summary: dict[str, Any]) -> list[str]:
    verdict = summary["verdict"]
    lines = [f"Verdict: {verdict['level'].upper()}"]
    worse = [f"{metric} {level}" for metric, level in verdict["metrics"].items() if level != "valid"]
    if worse and len(worse) < len(verdict["metrics"]):
        lines[0] += f" ({', '.join(worse)})"
    for reason in verdict["reasons"]:
        lines += _wrapped(f"{plain(reason['text'])}. {plain(reason['advice'])}", f"  {reason['level']:<9}")
    for defect in summary["defects"]:
        lines += _wrapped(plain(defect), f"  {'defect':<9}")
    return lines


def _capacity(summary: dict[str, Any]) -> list[str]:
    found = summary["capacity"]
    if not found:
        return []
    searched = msgspec.convert(found, capacity.Capacity)
    lines = _wrapped(found["text"], "Capacity: ") + aligned(capacity.table(searched))
    if not searched.headline:
        return lines
    of = "the level that passed" if searched.passed else "all levels that were tried, since none passed"
    return [*lines, f"Everything below is of {of}."]


def _requests(summary: dict[str, Any]) -> list[str]:
    requests = summary["requests"]
    names = [name for name, n in requests["all"].items() if n or name in ("due", "ok", "failed")]
    window = "whole run" if summary["phases"]["whole_run"] else "steady"
    rows = [["Requests", *names]]
    rows.append([f"{window} ({wording.seconds(summary['phases']['seconds'])})", *_counts(requests["cohort"], names)])
    rows.append(["all", *_counts(requests["all"], names)])
    lines = aligned(rows)
    if requests["unaccounted"]:
        lines.append(f"{count(requests['unaccounted'])} more were started and have no row")
    if summary["questions"]:
        lines.append(wording.questions(summary["questions"]))
    return lines


def _counts(counts: dict[str, int], names: Sequence[str]) -> list[str]:
    return [count(counts[name]) for name in names]


def _latency(summary: dict[str, Any]) -> list[str]:
    shown = wording.shown_latencies(summary)
    rows = [["Latency in ms", *COLUMNS, "count"]]
    for name in ROWS:
        if name in shown:
            figures = [statistic(shown[name], column) for column in COLUMNS]
            rows.append([wording.LATENCIES[name], *figures, count(shown[name]["count"])])
    if len(rows) == 1:
        return ["Latency: nothing was measured"]
    lines = aligned(rows)
    if any(cell.startswith(wording.UNSURE) for row in rows for cell in row):
        lines.append(f"{wording.UNSURE} too few requests for this percentile")
    return lines


def _steps(summary: dict[str, Any]) -> list[str]:
    rows = steps_text.table(summary)
    return [*(aligned(rows) if rows else []), *steps_text.left_out(summary)]


def _groups(summary: dict[str, Any]) -> list[list[str]]:
    blocks = []
    for kind in wording.GROUPS:
        groups = summary["groups"].get(kind)
        if not groups:
            continue
        rows = [[wording.GROUPS[kind], "due", "ok", "TTFT p50", "p95", "TPOT p50", "e2e p50", "p95"]]
        for group in groups[:MOST_GROUPS]:
            ttft, tpot, whole = group["ttft_ms"], group["tpot_ms"], group["e2e_ms"]
            figures = [(ttft, "p50"), (ttft, "p95"), (tpot, "p50"), (whole, "p50"), (whole, "p95")]
            counts = [count(group["due"]), count(group["ok"])]
            name = plain(wording.group(kind, group["value"]), 36)
            rows.append([name, *counts, *(statistic(found, name) for found, name in figures)])
        lines = aligned(rows)
        if len(groups) > MOST_GROUPS:
            lines.append(f"and {len(groups) - MOST_GROUPS} more in the report")
        blocks.append(lines)
    return blocks


def _throughput(summary: dict[str, Any]) -> list[str]:
    rates, load = summary["throughput"], summary["concurrency"]
    estimate = " (estimate)" if summary["tokens"]["estimated"] else ""
    rows = [["Throughput", "per s", "per s and user", "peak second"]]
    for name, label in (
        ("requests_per_s", "requests (ok)"),
        ("inputs_per_s", "inputs embedded"),
        ("output_tokens_per_s", f"output tokens{estimate}"),
        ("input_tokens_per_s", "input tokens"),
        ("total_tokens_per_s", "all tokens"),
        ("characters_per_s", "characters"),
        ("chunks_per_s", "chunks"),
    ):
        if rates[name] is not None:
            per_user = rates.get(f"{name}_per_user")
            peak = rates.get(f"peak_{name}")
            rows.append([label, *("" if v is None else number(v) for v in (rates[name], per_user, peak))])
    lines = aligned(rows)
    if load["in_flight"] is not None:
        asked = "" if load["users"] is None else f" of {wording.users(load['users'])} users ({share(load['share'])})"
        lines.append(f"Concurrency: {number(load['in_flight'])} requests in flight on average{asked}")
    tokens = summary["tokens"]
    if tokens["prompts"]:
        lines += _wrapped(wording.prompts(tokens["prompts"]), "Prompts: ")
    if tokens["prefixes"]:
        lines += _wrapped(wording.prefixes(tokens["prefixes"]), "Prefixes: ")
    return lines


def _errors(summary: dict[str, Any]) -> list[str]:
    if not summary["errors"]:
        return []
    rows = [["Errors of the whole run", "count", "share", ""]]
    lines = aligned(
        rows + [[plain(e["class"], 40), count(e["count"]), share(e["share"]), ""] for e in summary["errors"]]
    )
    for index, error in enumerate(summary["errors"], 1):
        if error["examples"]:
            lines[index] += plain(error["examples"][0]["message"], WIDTH - 40)
    return lines


def _wrapped(text: str, head: str) -> list[str]:
    lines, line = [], ""
    for word in text.split(" "):
        if line and width(line) + 1 + width(word) > WIDTH - len(head):
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [(head if index == 0 else " " * len(head)) + text for index, text in enumerate([*lines, line])]
