"""Writes what a run means into its directory: summary.json and the self-contained report.html."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenswarm.errors import RunDirectoryError
from tokenswarm.results import page, phases, read, summarise
from tokenswarm.results.report.contents import SECTIONS
from tokenswarm.results.report.material import Material, Section, title

REPORT_FILE: Final = "report.html"


@dataclass(frozen=True)
class Written:
    """Where the results lie; `report` is None if none was asked for."""

    summary: dict[str, Any]
    summary_path: Path
    report: Path | None


def write(run: read.Run | str | Path, *, html: bool = True) -> Written:
    """Summarise a run, or the one of a directory, into its summary.json and, unless `html` is False, report.html.

    Raises RunDirectoryError if there is no run directory, or if it cannot be written to.
    """
    run = run if isinstance(run, read.Run) else read.load(run)
    summary = summarise.summarise(run)
    try:
        summary_path = summarise.write(summary, run.path)
        report = None
        if html:
            report = run.path / REPORT_FILE
            summarise.write_atomically(report, render(run, summary).encode("utf-8"))
    except OSError as error:
        raise RunDirectoryError(f"cannot write into {run.path}: {error.strerror or error}") from error
    return Written(summary, summary_path, report)


def render(run: read.Run, summary: dict[str, Any], parts: Sequence[Section] = SECTIONS) -> str:
    """The report as one HTML text."""
    material = Material(run, phases.find(run), summary)
    return page.whole(f"{title(summary)} – tokenswarm", [part(material) for part in parts])
