"""`tokenswarm energy` and `python analysis/energy.py`: what a token costs in joules, and in money."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from tokenswarm.errors import AnalysisError, RunDirectoryError
from tokenswarm.results import hardware, phases, read
from tokenswarm.results.figures import energy
from tokenswarm.results.figures.energy import Wish
from tokenswarm.results.merge import foreign
from tokenswarm.results.merge.command import add_hardware, expand
from tokenswarm.results.wording import plain

_PURPOSE: Final = """\
Joules per token of runs that were made with --hardware: the difference of the GPUs' energy counters over the steady
window, or the integral of their power where they have none. GPU boards only: no host, no switch, no cooling."""

_EPILOG: Final = """\
examples:
  %(prog)s runs/20261120T134000Z-chat
  %(prog)s runs/20261120T134000Z-chat --idle 580
      beside the gross figures those net of 580 W, which all GPUs together use with the model loaded and no load
  %(prog)s runs/20261120T134000Z-chat --gpus GPU-5ae1,GPU-77c0
      only the GPUs that serve the model, by their UUIDs or the beginnings of them
  %(prog)s runs/20261120T134000Z-chat --price-per-gpu-hour 2.5 --gpu-count 4
      what it costs, without samples, too
  %(prog)s 'runs/*' --price-per-gpu-hour 2.5 --json

Unknown is said as such, with the reason: a window of less than 30 s, samples that are missing for more than 2 s, a
counter that began anew. docs/analysis.md has the definitions."""

NO_SAMPLES: Final = (
    "No GPU was sampled: run with --hardware URL, or name a file that was written meanwhile by --hardware FILE. The "
    "cost needs --price-per-gpu-hour and --gpu-count alone."
)
_ROWS: Final = (
    ("energy", "joules", "J"),
    ("mean power", "watts", "W"),
    ("output tokens", "output_tokens", ""),
    ("all tokens", "total_tokens", ""),
    ("per output token", "joules_per_output_token", "J"),
    ("per token, input and output", "joules_per_total_token", "J"),
    ("output tokens per joule", "output_tokens_per_joule", ""),
    ("all tokens per joule", "total_tokens_per_joule", ""),
    ("net energy", "net_joules", "J"),
    ("net, per output token", "net_joules_per_output_token", "J"),
    ("net, per token", "net_joules_per_total_token", "J"),
    ("net, output tokens per joule", "net_output_tokens_per_joule", ""),
    ("cost", "cost", ""),
    ("cost per million output tokens", "cost_per_million_output_tokens", ""),
    ("cost per million tokens", "cost_per_million_total_tokens", ""),
)


def parser(program: str = "tokenswarm energy") -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=program, description=_PURPOSE, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("runs", metavar="RUN", nargs="+", help="a run directory, or a glob of them")
    made.add_argument(
        "--gpus",
        metavar="UUID,…",
        type=lambda text: tuple(filter(None, (each.strip() for each in text.split(",")))),
        default=(),
        help="the GPUs that count, idle ones too: UUIDs, beginnings of them, or names such as gpu1/gpu0 (all)",
    )
    made.add_argument(
        "--idle", metavar="WATTS", type=amount, help="of these GPUs together; else measured before the first request"
    )
    made.add_argument("--price-per-gpu-hour", metavar="PRICE", type=amount, help="in any currency, for the costs")
    made.add_argument("--gpu-count", metavar="N", type=whole, help="GPUs that are paid for (those that count)")
    made.add_argument("--json", action="store_true", help="one JSON object a run and line, instead of tables")
    add_hardware(made)
    return made


def amount(text: str) -> float:
    """For argparse: a finite number of 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 0 or more")
    return number


def whole(text: str) -> int:
    """A number of GPUs. Raises argparse's error for what is none."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1_000_000):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def figures(given: str, asked: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Of one run, and what is wrong with its files. Raises RunDirectoryError and AnalysisError."""
    run = read.load(given)
    defects = list(run.defects)
    samples = run.hardware
    for path in asked.hardware:
        theirs = foreign.read(path, defects, hardware.KEPT.__contains__, offset=asked.offset, zone=asked.timezone)
        texts = dict.fromkeys(hardware.LAYOUT.text, "str")
        # A GPU that is in both is taken from the file that was named.
        ours = samples[~samples["device"].astype("str").isin(theirs["device"].astype("str").unique())]
        samples = pd.concat([ours.astype(texts), theirs.astype(texts)], ignore_index=True)
    wish = Wish(asked.gpus, asked.idle, asked.price_per_gpu_hour, asked.gpu_count)
    return {"run": run.name, **energy.figures(run, phases.find(run), wish, samples)}, defects


def text(told: dict[str, Any]) -> str:
    """The figures of one run, for a terminal."""
    heading = f"{plain(told['run'], 60)}: energy, {told['scope']}"
    if told["gpus"]:
        names = ", ".join(plain(gpu["name"], 60) for gpu in told["gpus"])
        lines = [heading, f"  {len(told['gpus'])} GPUs: {names}"]
    else:
        lines = [heading, f"  {NO_SAMPLES}"]
        if told["all"]["cost"] is None:
            return "\n".join(lines)
    if told["idle_watts"] is not None:
        lines.append(f"  idle: {told['idle_watts']:,.1f} W together, {told['idle_from']}")
    columns = told["windows"] if len(told["windows"]) == 1 else [*told["windows"], told["all"]]
    heads = ["all" if column is told["all"] else _head(column) for column in columns]
    body = [
        [f"{name}, {unit}" if unit else name, *(_cell(column[key]) for column in columns)]
        for name, key, unit in _ROWS
        if any(column[key] is not None for column in columns) or key == "joules"
    ]
    lines += _table(["", *heads], body)
    lines += [f"  {plain(note, 300)}" for note in told["notes"]]
    return "\n".join(lines)


def _head(window: dict[str, Any]) -> str:
    users = "" if window["users"] is None else f", {window['users']} users"
    return f"{window['seconds']:.1f} s{users}"


def _cell(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _table(heads: list[str], body: list[list[str]]) -> list[str]:
    widths = [max(len(row[index]) for row in [heads, *body]) for index in range(len(heads))]
    rows = [
        [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        for row in [heads, *body]
    ]
    return [("  " + "  ".join(row)).rstrip() for row in rows]


def main(arguments: Sequence[str] | None = None, program: str = "tokenswarm energy") -> int:
    """Exit status: 0; 2 with a message if a run or a file could not be read. Unknown energy is an answer, too."""
    asked = parser(program).parse_args(arguments)
    status = 0
    try:
        runs = expand(asked.runs)
    except AnalysisError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for given in runs:
        try:
            told, defects = figures(given, asked)
        except (AnalysisError, RunDirectoryError) as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2
            continue
        for defect in defects:
            print(f"{given}: {defect}", file=sys.stderr)
        print(json.dumps(told, ensure_ascii=False, allow_nan=False) if asked.json else text(told))
    return status
