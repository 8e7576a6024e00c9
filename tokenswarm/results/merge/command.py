"""`tokenswarm merge` and `python analysis/merge.py`: runs, and what was measured beside them, as tables over time."""

from __future__ import annotations

import argparse
import glob
import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pandas as pd

from tokenswarm.errors import AnalysisError, RunDirectoryError
from tokenswarm.results import hardware, read
from tokenswarm.results.files import server_metrics
from tokenswarm.results.merge import foreign, locust_history
from tokenswarm.results.merge import timeline as merge

FILE: Final = "timeline.csv"
_DURATION: Final = re.compile(r"^(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h)?$")
_SECONDS: Final = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_SHORTEST: Final = 0.1

_PURPOSE: Final = """\
Puts all that a run left on one timeline: a row a second with users, requests, tokens, latencies, what the client's
processes, GPUs and machines did, and what the server said of itself. For pandas, a spreadsheet or whatever draws.

RUN is a run directory, or what was given to --csv of any Locust, tokenswarm or not."""

_EPILOG: Final = """\
examples:
  %(prog)s runs/20261120T134000Z-chat
      writes timeline.csv into the run directory
  %(prog)s runs/20261120T134000Z-chat --every 5s --out timeline.parquet
  %(prog)s 'runs/*-chat' --out all.csv
      several runs in one file, with a column `run`
  %(prog)s results/soak --hardware smi.csv --timezone Europe/Berlin
      after `locust … --csv results/soak`, and on the GPU's machine
      `nvidia-smi --query-gpu=timestamp,uuid,utilization.gpu,power.draw --format=csv -l 1 > smi.csv`
  %(prog)s runs/20261120T134000Z-chat --also 'sm_*' --also 'vllm:*_total'

What was not measured is empty, and never 0. docs/analysis.md explains every column."""


@dataclass(frozen=True)
class Merged:
    """A timeline, where it belongs by default, and all that was wrong with what it is made of."""

    name: str
    default: Path
    table: pd.DataFrame
    defects: list[str]


def parser(program: str = "tokenswarm merge") -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=program, description=_PURPOSE, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "runs", metavar="RUN", nargs="+", help="a run directory, Locust's --csv prefix, or a glob of them"
    )
    made.add_argument("--every", metavar="TIME", type=duration, default=1.0, help="length of a row: 5s, 500ms, 1m (1s)")
    made.add_argument(
        "--out", metavar="FILE", type=Path, help=f"a .csv or .parquet file; without it each run gets its {FILE}"
    )
    made.add_argument(
        "--also",
        metavar="PATTERN",
        action="append",
        default=[],
        help="more metrics of hardware and server, by name or with * and ?; '*' for all",
    )
    add_hardware(made)
    return made


def add_hardware(to: argparse.ArgumentParser) -> None:
    """The options about hardware samples from elsewhere."""
    group = to.add_argument_group("hardware that somebody else recorded")
    group.add_argument(
        "--hardware",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="a CSV file with a column of times: nvidia-smi's, the exporter's, your own; may be repeated",
    )
    group.add_argument(
        "--offset",
        metavar="SECONDS",
        type=float,
        default=0.0,
        help="by how much the clock of these files is ahead of the run's; it is taken out of their times",
    )
    group.add_argument(
        "--timezone", metavar="ZONE", type=zone, help="of times that tell none, as nvidia-smi's: Europe/Berlin (UTC)"
    )


def duration(text: str) -> float:
    """Seconds of `5s`, `500ms`, `1m`. Raises ArgumentTypeError."""
    found = _DURATION.match(text.strip())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if seconds < _SHORTEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no time of {_SHORTEST:g} s or more: write 1s, 500ms or 1m")
    return seconds


def zone(text: str) -> tzinfo:
    """A time zone by its name, or as an offset, `+02:00`. Raises ArgumentTypeError."""
    try:
        if re.fullmatch(r"[+-]\d\d:\d\d", text):
            return datetime.fromisoformat(f"2000-01-01T00:00:00{text}").tzinfo or ZoneInfo("UTC")
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time zone that is known here: write Europe/Berlin, Asia/Shanghai or +02:00"
        ) from error


def expand(given: Sequence[str]) -> list[str]:
    """Paths, with globs filled in, for shells that leave it to us. Raises AnalysisError if nothing fits one."""
    found: list[str] = []
    for text in given:
        if Path(text).exists() or not glob.has_magic(text):
            found.append(text)
        elif fits := sorted(glob.glob(text)):
            found.extend(fits)
        else:
            raise AnalysisError(f"{text}: nothing is there by such a name")
    return list(dict.fromkeys(found))


def merged(given: str, asked: argparse.Namespace) -> Merged:
    """The timeline of one run. Raises AnalysisError or RunDirectoryError if there is none to be had."""
    defects: list[str] = []
    wanted = _wanted(asked.also, frozenset(hardware.SHOWN))
    more = [foreign.read(path, defects, wanted, offset=asked.offset, zone=asked.timezone) for path in asked.hardware]
    path = Path(given)
    prefix = locust_history.prefix_of(given)
    if prefix is not None and not path.is_dir():
        history = locust_history.read(prefix, defects)
        locust_history.check_total(prefix, history, defects)
        table = merge.of_locust(history, asked.every, _together(more))
        default = prefix.with_name(f"{prefix.name}_{FILE}")
        name = prefix.name
    else:
        if not path.exists():
            raise RunDirectoryError(
                f"{given}: there is no such run directory, and no {given}{locust_history.HISTORY} of Locust's"
            )
        run = read.load(given)
        defects[:0] = run.defects
        own = hardware.read(run.path, [], wanted) if asked.also else run.hardware[run.hardware["metric"].map(wanted)]
        server = server_metrics.read(run.path, [], _wanted(asked.also, server_metrics.MAIN))
        table = merge.timeline(run, asked.every, _together([own, *more]), server, defects)
        default, name = run.path / FILE, run.name
    defects.extend(_not_in_it(asked.hardware, more, table))
    return Merged(name, default, table, defects)


def _wanted(also: Sequence[str], main: frozenset[str]) -> Any:
    return lambda metric: metric in main or any(fnmatchcase(metric, pattern) for pattern in also)


def _together(samples: list[pd.DataFrame]) -> pd.DataFrame:
    texts = dict.fromkeys(hardware.LAYOUT.text, "category")
    filled = [part for part in samples if len(part)]
    if len(filled) < 2:
        return filled[0] if filled else hardware.LAYOUT.empty()
    plain = [part.astype(dict.fromkeys(texts, "str")) for part in filled]
    return pd.concat(plain, ignore_index=True).astype(texts)


def _not_in_it(paths: list[Path], samples: list[pd.DataFrame], table: pd.DataFrame) -> list[str]:
    """Files none of whose samples are of the run's time: nearly always a clock or a zone."""
    first, last = table["time"].iloc[0], table["time"].iloc[-1]
    said = []
    for path, part in zip(paths, samples, strict=True):
        if len(part) and not part["time"].between(first, last + 1).any():
            theirs = " to ".join(f"{pd.Timestamp(each, unit='s'):%Y-%m-%d %H:%M:%S}" for each in _ends(part["time"]))
            ours = " to ".join(f"{pd.Timestamp(each, unit='s'):%Y-%m-%d %H:%M:%S}" for each in (first, last))
            said.append(
                f"{path}: none of its {len(part):,} samples ({theirs} UTC) is of the run's time ({ours} UTC): "
                "--timezone and --offset set a clock right."
            )
    return said


def _ends(times: pd.Series[Any]) -> tuple[float, float]:
    return float(times.min()), float(times.max())


def save(table: pd.DataFrame, path: Path) -> None:
    """By the ending of the name: CSV or Parquet. Raises AnalysisError."""
    try:
        if path.suffix == ".parquet":
            table.to_parquet(path, index=False)
        else:
            whole = (table["time"] % 1 == 0).all()
            text = table["time"].map("{:.0f}".format if whole else "{:.6f}".format)
            table.assign(time=text).to_csv(path, index=False, float_format="%.12g", lineterminator="\n")
    except OSError as error:
        raise AnalysisError(f"{path} cannot be written: {error.strerror or error}") from error


def check_out(path: Path | None) -> None:
    """Raises AnalysisError for a name that nothing can be written to, before anything is read."""
    if path is None:
        return
    if path.suffix not in (".csv", ".parquet"):
        raise AnalysisError(f"--out {path}: the name must end in .csv or .parquet")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise AnalysisError(
            f"--out {path}: Parquet needs the package pyarrow: pip install pyarrow, or name a .csv file"
        )


def main(arguments: Sequence[str] | None = None, program: str = "tokenswarm merge") -> int:
    """Exit status: 0, or 2 with a message if a run or a file could not be read, or nothing could be written."""
    asked = parser(program).parse_args(arguments)
    done: list[Merged] = []
    status = 0
    try:
        check_out(asked.out)
        runs = expand(asked.runs)
    except AnalysisError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for given in runs:
        try:
            one = merged(given, asked)
            for defect in one.defects:
                print(f"{given}: {defect}", file=sys.stderr)
            if asked.out is None:
                save(one.table, one.default)
                print(told(one.table, one.default, asked.every))
            else:
                done.append(one)
        except (AnalysisError, RunDirectoryError) as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2
    return max(status, _save_together(done, asked.out, asked.every)) if done else status


def _save_together(done: list[Merged], path: Path, every: float) -> int:
    table = done[0].table
    if len(done) > 1:
        table = pd.concat([one.table.assign(run=one.name) for one in done], ignore_index=True)
        table.insert(0, "run", table.pop("run"))
    try:
        save(table, path)
    except AnalysisError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(told(table, path, every))
    return 0


def told(table: pd.DataFrame, path: Path, every: float) -> str:
    """One line about what was written."""
    size = f"{len(table):,} rows of {every:g} s, {len(table.columns)} columns"
    return f"{path}: {size}, from {table['utc'].min()} to {table['utc'].max()}"
