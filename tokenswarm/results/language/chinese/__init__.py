"""The Chinese of reports: English to Chinese, with the same `{places}`; a module for each part of the suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tokenswarm.results.language.chinese import report

CATALOGUE: Final[Mapping[str, str]] = {**report.TEXTS}
