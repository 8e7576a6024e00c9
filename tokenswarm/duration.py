"""Durations as people write them."""

from __future__ import annotations

import re
from typing import Final

_DURATION: Final = re.compile(r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s?)?")


def duration(given: str) -> float | None:
    """Seconds of `30`, `30s`, `2m`, `1h30m`; None if it is no time."""
    match = _DURATION.fullmatch(given)
    if not given or not match:
        return None
    parts = [float(part or 0) for part in match.groups()]
    return sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=True))
