"""Writes what a run means into its directory: summary.json and the self-contained report.html."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenswarm.errors import RunDirectoryError
from tokenswarm.results import page, phases, read, summarise
from tokenswarm.results.language import ENGLISH, LANGUAGES, Language
from tokenswarm.results.report.contents import FIRST_SCREEN, SECTIONS
from tokenswarm.results.report.definitions import linked
from tokenswarm.results.report.material import Material, Section, title

REPORT_FILE: Final = "report.html"


@dataclass(frozen=True)
class Written:
    """Where the results lie; `report` is None if none was asked for. `say`: its language."""

    summary: dict[str, Any]
    summary_path: Path
    report: Path | None
    say: Language = ENGLISH


def write(run: read.Run | str | Path, *, html: bool = True, language: str | None = None) -> Written:
    """Summarise a run, or the one of a directory, into its summary.json and, unless `html` is False, report.html.

    `language`: of LANGUAGES; None: the one that the run was started with.

    Raises RunDirectoryError if there is no run directory, or if it cannot be written to.
    """
    run = run if isinstance(run, read.Run) else read.load(run)
    summary = summarise.summarise(run)
    say = language_of(run, language)
    try:
        summary_path = summarise.write(summary, run.path)
        report = None
        if html:
            report = run.path / REPORT_FILE
            summarise.write_atomically(report, render(run, summary, say).encode("utf-8"))
    except OSError as error:
        raise RunDirectoryError(f"cannot write into {run.path}: {error.strerror or error}") from error
    return Written(summary, summary_path, report, say)


def language_of(run: read.Run, asked: str | None = None) -> Language:
    """The one that is asked for; else the one that the run was started with."""
    return LANGUAGES.get(asked or str(run.info.options.get("lang")), ENGLISH)


def render(run: read.Run, summary: dict[str, Any], say: Language = ENGLISH, parts: Sequence[Section] = SECTIONS) -> str:
    """The report as one HTML text."""
    material = Material(run, phases.find(run), summary, say)
    first = [part(material) for part in parts if part in FIRST_SCREEN]
    rest = [page.named(part(material), part.__name__.replace("_", "-")) for part in parts if part not in FIRST_SCREEN]
    body = [linked(markup, say) for markup in (*first, page.contents(rest, say), *rest)]
    return page.whole(f"{title(summary, say)} – tokenswarm", body, say)
