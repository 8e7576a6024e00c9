"""Of the report."""

from __future__ import annotations

from typing import Final

TEXTS: Final = {
    "Latency": "延迟",
}
