"""The Chinese of reports: English to Chinese, with the same `{places}`; a module for each part of the suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tokenswarm.results.language.chinese import (
    against,
    charts,
    console,
    definitions,
    recorded,
    report,
    requests,
    sweep,
    verdict,
)

CATALOGUE: Final[Mapping[str, str]] = {
    **report.TEXTS,
    **console.TEXTS,
    **charts.TEXTS,
    **definitions.TEXTS,
    **verdict.TEXTS,
    **against.TEXTS,
    **requests.TEXTS,
    **sweep.TEXTS,
}
"""Of the report."""
RECORDED: Final[Mapping[str, str]] = {**recorded.TEXTS, **against.RECORDED, **sweep.RECORDED}
"""Of sentences in summary.json, which has them in English, their places filled."""
