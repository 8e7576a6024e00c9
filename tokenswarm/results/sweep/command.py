"""`tokenswarm sweep`: reads the command line and the runs, prints a table, writes the page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TextIO

from tokenswarm.errors import AnalysisError, OptionError, RunDirectoryError
from tokenswarm.results.compare import metrics, sides
from tokenswarm.results.compare.command import check_directory
from tokenswarm.results.compare.metrics import Metric
from tokenswarm.results.compare.page import write
from tokenswarm.results.energy_command import amount, whole
from tokenswarm.results.figures import energy
from tokenswarm.results.language import LANGUAGES, Language
from tokenswarm.results.sweep import console, curve, levels, observe, page, records, table
from tokenswarm.results.sweep.cautions import cautions
from tokenswarm.results.sweep.curve import Sweep
from tokenswarm.results.sweep.observe import Observed, Wish
from tokenswarm.results.wording import plain
from tokenswarm.slo import GOODPUT_EXAMPLE, SLO_EXAMPLE, parse_goodput, parse_slo

PAGE: Final = "sweep.html"
EXIT_REFUSED: Final = 2
LATENCY: Final = "ttft_p95"
TEXT, MARKDOWN, CSV, JSON = FORMATS = ("text", "markdown", "csv", "json")

_PURPOSE: Final = """\
How much load a server carries, and what that costs: throughput against latency, a point for each load level of one
run (--steps, --find-capacity, edits in the web page) or of several, with the Pareto front and the knee."""
_EPILOG: Final = """\
examples:
  tokenswarm sweep runs/20261120T134000Z-chat        a run with --steps: its levels
  tokenswarm sweep 'runs/*-chat' --latency tpot_p50  several runs; those at the same load are taken together
  tokenswarm sweep 'runs/*' --slo "ttft_p95<500ms"   the level with the most throughput that keeps to it
  tokenswarm sweep 'runs/*' --price-per-gpu-hour 2.5 --format markdown

exit status: 0; 2 if the command line is wrong, or a run or the page cannot be read or written.
docs/sweep.md explains the figures."""


@dataclass(frozen=True)
class Asked:
    """The command line, checked."""

    runs: tuple[str, ...]
    latency: Metric
    wish: Wish
    trust: str
    format: str
    out: Path | None
    html: bool
    language: str


def parser(program: str = "tokenswarm sweep") -> argparse.ArgumentParser:
    """What the command line may hold."""
    made = argparse.ArgumentParser(
        prog=program,
        description=_PURPOSE,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("runs", metavar="RUN", nargs="+", help="run directories or wildcards")
    made.add_argument(
        "--latency", metavar="NAME", default=LATENCY, help=f"of the front and the knee: {LATENCY}, tpot_p50, e2e_p99 …"
    )
    made.add_argument(
        "--slo",
        metavar="GOALS",
        default="",
        help=f'for all runs, instead of theirs: "{SLO_EXAMPLE}"'.replace("%", "%%"),
    )
    made.add_argument(
        "--goodput",
        metavar="LIMITS",
        default="",
        help=f'on each request, instead of the runs\' own: "{GOODPUT_EXAMPLE}"',
    )
    made.add_argument(
        "--trust",
        choices=levels.TRUST,
        default=levels.VALID_ONLY,
        help="levels that may be on the front, the knee or an answer: valid ones (default); degraded ones, too; all, "
        "even where the client was the limit",
    )
    made.add_argument(
        "--gpus",
        metavar="UUID,…",
        type=lambda text: tuple(filter(None, (each.strip() for each in text.split(",")))),
        default=(),
        help="the GPUs that count for energy and cost, idle ones too (all)",
    )
    made.add_argument("--idle", metavar="WATTS", type=amount, help="of these GPUs together, for energy net of it")
    made.add_argument("--price-per-gpu-hour", metavar="PRICE", type=amount, help="in any currency, for the costs")
    made.add_argument(
        "--gpu-count", metavar="N", type=whole, help="GPUs that are paid for (those that count), for the costs"
    )
    made.add_argument("--format", choices=FORMATS, default=TEXT, help="of what is printed (text)")
    made.add_argument("--out", metavar="FILE", type=Path, help=f"the page ({PAGE} in the first run's directory)")
    made.add_argument("--no-html", action="store_true", help="no page")
    made.add_argument("--lang", choices=tuple(LANGUAGES), default="en", help="of table and page (en)")
    return made


def main(arguments: Sequence[str] | None = None, program: str = "tokenswarm sweep") -> int:
    """Exit status: 0, or 2 with a message if the command line is wrong, or a run or the page cannot be read or
    written; what can be shown is."""
    try:
        asked = parse(arguments, program)
        return tell(asked, swept(asked, *read(asked)))
    except (AnalysisError, OptionError, RunDirectoryError) as error:
        return refused(str(error))


def parse(arguments: Sequence[str] | None = None, program: str = "tokenswarm sweep") -> Asked:
    """The command line. Ends the process with status 2 where argparse finds it wrong; raises OptionError for goals and
    latencies that there are not."""
    given = parser(program).parse_args(arguments)
    latency = _latency(given.latency)
    if given.slo:
        parse_slo(given.slo)
    if given.goodput:
        parse_goodput(given.goodput)
    used = energy.Wish(given.gpus, given.idle, given.price_per_gpu_hour, given.gpu_count)
    wish = Wish(given.slo, given.goodput, used)
    html = not given.no_html
    if html and given.out is not None:
        check_directory(given.out)
    return Asked(tuple(given.runs), latency, wish, given.trust, given.format, given.out, html, given.lang)


def read(asked: Asked) -> tuple[list[Observed], list[str]]:
    """The runs, and what is wrong with those that are left out; a copy is a note of the run that it repeats. Raises
    RunDirectoryError if none is left."""
    runs: list[Observed] = []
    unread: list[str] = []
    seen: set[Path] = set()
    for path in sides.directories(asked.runs):
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        try:
            run = observe.observe(path, asked.wish)
        except RunDirectoryError as error:
            unread.append(str(error))
            continue
        known = [(one.name, one.start) for one in runs]
        if (run.name, run.start) not in known:
            runs.append(run)
            continue
        at = known.index((run.name, run.start))
        runs[at] = replace(runs[at], notes=(*runs[at].notes, f"{path} holds the same run: it counts once."))
    if not runs:
        raise RunDirectoryError("\n".join(unread))
    return runs, unread


def swept(asked: Asked, runs: Sequence[Observed], unread: Sequence[str] = ()) -> Sweep:
    """The sweep that was asked for."""
    price = asked.wish.energy.price_per_gpu_hour
    return curve.sweep(runs, asked.latency, trust=asked.trust, price=price, unread=unread)


def tell(asked: Asked, found: Sweep) -> int:
    """Print, write the page, and return the exit status; what is wrong is said on stderr."""
    say = LANGUAGES[asked.language]
    _say(_shown(asked.format, found, say))
    if asked.format in (MARKDOWN, CSV):  # what is to be pasted is all that stands on stdout
        for caution in cautions(found, say):
            print(f"note: {plain(caution, 1000)}", file=sys.stderr)
    wrong = list(found.unread)
    if asked.html:
        path = asked.out or found.runs[0].path / PAGE
        try:
            write(path, page.render(found, say))
            print(f"\nPage  {path}" if asked.format == TEXT else f"Page  {path}", file=_beside(asked.format))
        except RunDirectoryError as error:
            wrong.append(str(error))
    for problem in wrong:
        refused(problem)
    return EXIT_REFUSED if wrong else 0


def refused(said: str) -> int:
    """Say it on stderr; returns the exit status."""
    for line in said.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return EXIT_REFUSED


def _shown(form: str, found: Sweep, say: Language) -> str:
    if form in (CSV, JSON):
        return records.as_csv(found) if form == CSV else records.as_json(found)
    return console.text(found, say) if form == TEXT else table.markdown(found, say)


def _beside(form: str) -> TextIO:
    return sys.stdout if form == TEXT else sys.stderr


def _say(said: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    print(said.encode(encoding, "replace").decode(encoding))


def _latency(name: str) -> Metric:
    metric = metrics.known(name)
    if metric.kind not in (metrics.QUANTILE, metrics.MEAN):
        raise OptionError(f"--latency {name} is no latency: take one as {LATENCY}, tpot_p50 or e2e_mean")
    return metric
