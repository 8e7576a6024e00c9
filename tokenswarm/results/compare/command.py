"""`tokenswarm compare`: reads the command line, prints, writes the page, and sets the exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from tokenswarm.errors import OptionError, RunDirectoryError
from tokenswarm.results.compare import console, differences, gate, page, sides, wording
from tokenswarm.results.compare.differences import Comparison
from tokenswarm.results.compare.gate import Gate, Judged
from tokenswarm.results.compare.sides import Side
from tokenswarm.slo import GOODPUT_EXAMPLE, parse_goodput

PAGE: Final = "compare.html"
EXIT_REFUSED: Final = 2
EXIT_FAILED: Final = 3

_PURPOSE: Final = "What changed between runs, how surely, and whether they may be compared at all."
_EPILOG: Final = """\
examples:
  tokenswarm compare runs/old runs/new               the first run against each of the others
  tokenswarm compare --baseline 'runs/*-old' --candidate 'runs/*-new'
                                                     repeated runs of two sides, each side taken together
  tokenswarm compare runs/old runs/new --fail-if "ttft_p95 +10%" --fail-if "output_tokens_per_s -5%"
                                                     exit status 3 if either is certainly worse than that

exit status: 0; 2 if the command line is wrong or a side cannot be read; 3 if --fail-if was missed.
docs/compare.md explains the method."""


def parser() -> argparse.ArgumentParser:
    """What the command line may hold."""
    made = argparse.ArgumentParser(
        prog="tokenswarm compare",
        description=_PURPOSE,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("runs", metavar="RUN", nargs="*", help="run directories or wildcards: the baseline, then others")
    made.add_argument("--baseline", metavar="RUN", nargs="+", action="extend", help="repeated runs of the old side")
    made.add_argument("--candidate", metavar="RUN", nargs="+", action="extend", help="repeated runs of the new side")
    made.add_argument(
        "--fail-if",
        metavar="LIMIT",
        action="append",
        default=[],
        help='exit with 3 if a metric got worse by more: "ttft_p95 +10%%", "ttft_p95 +20ms", "requests_per_s -5%%", '
        '"error_rate +1pp"; several',
    )
    made.add_argument(
        "--fail-when",
        choices=gate.WHEN,
        default=gate.CERTAIN,
        help="certain (default): the whole interval is beyond the limit; likely: the estimate is, and the interval "
        "excludes no change; possible: any of the interval is",
    )
    made.add_argument(
        "--goodput",
        metavar="LIMITS",
        help=f'hold the requests of all runs to these, in place of the runs\' own: "{GOODPUT_EXAMPLE}"',
    )
    made.add_argument("--confidence", metavar="PERCENT", type=_percent, default=95.0, help="of each interval (95)")
    made.add_argument("--seed", metavar="N", type=_natural, default=0, help="of the intervals' random draws (0)")
    made.add_argument("--out", metavar="FILE", type=Path, help=f"the page ({PAGE} in the first candidate's directory)")
    made.add_argument("--no-html", action="store_true", help="no page")
    made.add_argument("--json", metavar="FILE", help="all figures as JSON into this file; - prints them, and no table")
    return made


@dataclass(frozen=True)
class Read:
    """The sides that could be read; `unread` says what is wrong with candidates that could not."""

    baseline: Side
    candidates: tuple[Side, ...]
    gates: tuple[Gate, ...]
    unread: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 2 with a message if the command line is wrong or a side cannot be read, 3 if a limit failed."""
    asked = parse(arguments)
    try:
        found = read(asked)
    except (OptionError, RunDirectoryError) as error:
        return refused(str(error))
    return tell(asked, found)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Ends the process with status 2 and a message if it is wrong."""
    made = parser()
    asked = made.parse_args(arguments)
    if asked.runs and (asked.baseline or asked.candidate):
        made.error("name runs one after another, or by --baseline and --candidate, not both")
    if not asked.runs and not (asked.baseline and asked.candidate):
        made.error("name two runs or more, or both --baseline and --candidate")
    return asked


def read(asked: argparse.Namespace) -> Read:
    """Raises OptionError for a wrong limit of either kind or a file in no directory, RunDirectoryError if no two sides
    are left to compare."""
    if asked.out is not None and not asked.no_html:
        check_directory(asked.out)
    if asked.json not in (None, "-"):
        check_directory(Path(asked.json), "--json")
    gates = gate.parse_all(asked.fail_if)
    limits = () if asked.goodput is None else parse_goodput(asked.goodput)
    if asked.runs:
        paths = sides.directories(asked.runs)
        if len(paths) < 2:
            raise RunDirectoryError(f"only {paths[0]} is named: name a second run to compare it with")
        of_baseline, of_candidates = paths[:1], [[path] for path in paths[1:]]
    else:
        of_baseline, of_candidates = sides.directories(asked.baseline), [sides.directories(asked.candidate)]
    baseline = sides.side("baseline", of_baseline, limits)
    candidates, unread = [], []
    for paths in of_candidates:
        try:
            candidates.append(sides.side("candidate", paths, limits))
        except RunDirectoryError as error:
            unread.append(str(error))
    if not candidates:
        raise RunDirectoryError("\n".join(unread))
    return Read(baseline, tuple(candidates), tuple(gates), tuple(unread))


def check_directory(path: Path, option: str = "--out") -> None:
    """Raises OptionError if there is no directory for this file."""
    if not path.parent.exists():
        raise OptionError(f"{option} {path}: there is no directory {path.parent}: make it, or name another file")


def tell(asked: argparse.Namespace, found: Read) -> int:
    """Compare, print, write the page, and return the exit status; what cannot be written is said on stderr."""
    also = [one.metric.name for one in found.gates]
    compared = [
        differences.compare(found.baseline, side, also=also, confidence=asked.confidence / 100, seed=asked.seed)
        for side in found.candidates
    ]
    judged = [[gate.judge(one, comparison, asked.fail_when) for one in found.gates] for comparison in compared]
    every = [one for several in judged for one in several]
    _say(as_json(compared, judged) if asked.json == "-" else text(compared, judged))
    wrong = [*found.unread]
    try:
        if asked.json not in (None, "-"):
            page.write(Path(asked.json), as_json(compared, judged) + "\n")
        if not asked.no_html:
            path = asked.out or found.candidates[0].runs[0].path / PAGE
            page.write(path, page.render([found.baseline, *found.candidates], compared, every))
            if asked.json != "-":
                _say(f"\nPage  {path}")
    except RunDirectoryError as error:
        wrong.append(str(error))
    for problem in wrong:
        refused(problem)
    if any(one.fails for one in every):
        return EXIT_FAILED
    return EXIT_REFUSED if wrong else 0


def text(compared: Sequence[Comparison], judged: Sequence[Sequence[Judged]]) -> str:
    """All comparisons for a terminal, below one another."""
    rule = "\n\n" + "─" * 60 + "\n\n"
    return rule.join(console.text(one, gates) for one, gates in zip(compared, judged, strict=True))


def as_json(compared: Sequence[Comparison], judged: Sequence[Sequence[Judged]]) -> str:
    """The comparisons, each with its `limits`, and each difference with what is said of it."""
    found = []
    for one, gates in zip(compared, judged, strict=True):
        plain = msgspec.to_builtins(one)
        for difference, told in zip(one.differences, plain["differences"], strict=True):
            told["said"] = wording.line(difference)
        found.append(plain | {"limits": msgspec.to_builtins(gates)})
    return msgspec.json.format(msgspec.json.encode({"schema": 1, "comparisons": found}), indent=1).decode()


def _say(said: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    print(said.encode(encoding, "replace").decode(encoding))


def refused(said: str) -> int:
    """Say it on stderr; returns the exit status."""
    for line in said.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return EXIT_REFUSED


def _percent(given: str) -> float:
    value = float(given)
    if not 50 <= value < 100:
        raise argparse.ArgumentTypeError(f"{given} is no percentage from 50 to below 100")
    return value


def _natural(given: str) -> int:
    value = int(given)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{given} is below 0")
    return value
