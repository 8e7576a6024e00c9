"""What a section of the report may draw on, and what a section is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenswarm.results.language import ENGLISH, Language
from tokenswarm.results.phases import Phases
from tokenswarm.results.read import Run
from tokenswarm.results.wording import plain


@dataclass(frozen=True)
class Material:
    """What a section may draw on; `say` puts its words into the report's language."""

    run: Run
    phases: Phases
    summary: dict[str, Any]
    say: Language = ENGLISH


Section = Callable[[Material], str]
"""Markup, or "" where there is nothing to say."""


def title(summary: dict[str, Any]) -> str:
    """The report's title, as text."""
    run = summary["run"]
    return plain(run["label"] or run["run_id"] or "Load test", 120)
