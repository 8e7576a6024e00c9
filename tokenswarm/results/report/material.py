"""What a section of the report may draw on, and what a section is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenswarm.results.language import ENGLISH, Language
from tokenswarm.results.page import escape
from tokenswarm.results.phases import Phases
from tokenswarm.results.read import Run
from tokenswarm.results.wording import UNSURE, plain


@dataclass(frozen=True)
class Material:
    """What a section may draw on; `say` puts its words into the report's language."""

    run: Run
    phases: Phases
    summary: dict[str, Any]
    say: Language = ENGLISH


Section = Callable[[Material], str]
"""Markup, or "" where there is nothing to say."""


def marked(text: str, say: Language) -> str:
    """A figure as markup, grey if too few requests carry it."""
    shown = escape(text)
    if not text.startswith(UNSURE):
        return shown
    return f'<span class="unsure" title="{escape(say("too few requests"))}">{shown}</span>'


def title(summary: dict[str, Any], say: Language = ENGLISH) -> str:
    """The report's title, as text."""
    run = summary["run"]
    return plain(run["label"] or run["run_id"] or say("Load test"), 120)
