"""`tokenswarm report RUN …`, and `python -m tokenswarm.results RUN …`: run directories are summarised again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from tokenswarm.errors import AnalysisError, RunDirectoryError
from tokenswarm.results import console, report
from tokenswarm.results.language import LANGUAGES
from tokenswarm.results.merge.command import expand

_PURPOSE: Final = "Summarise run directories again: writes summary.json and report.html into each, prints the table."


def parser(program: str = "tokenswarm report") -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=program, description=_PURPOSE)
    made.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="a run directory, which holds run.json and requests.csv; or a glob of them",
    )
    made.add_argument("--no-html", action="store_true", help="write summary.json only, no report.html")
    made.add_argument(
        "--lang", choices=tuple(LANGUAGES), help="language of report and table; else the one the run was started with"
    )
    return made


def main(arguments: Sequence[str] | None = None, program: str = "tokenswarm report") -> int:
    """Exit status: 0, or 2 with a message if a directory is no run directory or cannot be written to."""
    asked = parser(program).parse_args(arguments)
    status = 0
    try:
        runs = expand(asked.runs)
    except AnalysisError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for number, given in enumerate(runs):
        try:
            written = report.write(given, html=not asked.no_html, language=asked.lang)
        except RunDirectoryError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2
            continue
        text = "\n" * (number > 0) + console.table(written.summary, written.report, written.say)
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding))
    return status


if __name__ == "__main__":
    sys.exit(main())
