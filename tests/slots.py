"""What rows say about a server that serves only so many requests at once."""

from __future__ import annotations

import itertools

Row = dict[str, str]


def check_waits(rows: list[Row], slots: int, overlap: float = 0.05) -> list[Row]:
    """More requests than slots had to wait while others had theirs, and it shows.

    `overlap`: the share of the time in which tokens may come for more of them at once. Returns those of the first
    round, in the order of their first tokens.
    """
    rows = sorted(rows, key=first_token_time)
    first = min(rows, key=last_token_time)
    # When its last token is sent, another thread may have sent the first one of whoever comes next.
    ending = (first_token_time(first) + last_token_time(first)) / 2
    at_once = [row for row in rows if float(row["start_time"]) < ending]
    assert len(at_once) > slots
    for row in at_once[slots:]:
        assert first_token_time(row) > ending
    assert share_of_time_above(slots, rows) < overlap
    return at_once


def first_token_time(row: Row) -> float:
    """When it came, UTC epoch seconds."""
    return float(row["first_token_time"])


def last_token_time(row: Row) -> float:
    """The same of the last one."""
    return float(row["start_time"]) + float(row["last_token_ms"]) / 1e3


def share_of_time_above(limit: int, rows: list[Row]) -> float:
    """The share of the time in which tokens came for more than `limit` requests at once."""
    changes = sorted(change for row in rows for change in ((first_token_time(row), 1), (last_token_time(row), -1)))
    running, above = 0, 0.0
    for (moment, change), (following, _) in itertools.pairwise(changes):
        running += change
        above += following - moment if running > limit else 0.0
    return above / (changes[-1][0] - changes[0][0])
