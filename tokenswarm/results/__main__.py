"""`tokenswarm report RUN`, and `python -m tokenswarm.results RUN`: a run directory is summarised again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from tokenswarm.errors import RunDirectoryError
from tokenswarm.results import console, report
from tokenswarm.results.language import LANGUAGES

_PURPOSE: Final = "Summarise a run directory again: writes summary.json and report.html, prints the table."


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 with a message if the directory is no run directory or cannot be written to."""
    parser = argparse.ArgumentParser(prog="tokenswarm report", description=_PURPOSE)
    parser.add_argument("run", metavar="RUN", help="the run directory: holds run.json and requests.csv")
    parser.add_argument("--no-html", action="store_true", help="write summary.json only, no report.html")
    parser.add_argument(
        "--lang",
        choices=tuple(LANGUAGES),
        help="language of report and table; else the one that the run was started with",
    )
    asked = parser.parse_args(arguments)
    try:
        written = report.write(asked.run, html=not asked.no_html, language=asked.lang)
    except RunDirectoryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = console.table(written.summary, written.report)
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))
    return 0


if __name__ == "__main__":
    sys.exit(main())
