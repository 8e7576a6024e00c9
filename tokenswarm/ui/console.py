"""The live line of headless runs: every few seconds, what the load did in that time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import gevent

if TYPE_CHECKING:
    from tokenswarm.recording.book import Book
    from tokenswarm.recording.messages import Totals

EVERY_SECONDS = 5.0


def line(seconds: float, elapsed: float, users: int, in_flight: int, now: Totals, before: Totals) -> str:
    """Counts since the start, means and rates of the last `seconds`.

    Tokens are chunks × the tokens a chunk had so far, hence the `≈`; a reply that was not streamed counts at its end.
    """

    def mean(total: float, count: int, unit: str) -> str:
        return f"{total / count:,.0f} {unit}" if count else "–"

    per_chunk = now.output_tokens / now.token_chunks if now.token_chunks else 1.0
    whole = now.whole_tokens - before.whole_tokens
    tokens = ((now.chunks - before.chunks) * per_chunk + whole) / seconds
    characters = (now.characters - before.characters) / seconds
    each = max((now.user_seconds - before.user_seconds) / seconds, 1.0)
    minutes, rest = divmod(round(elapsed), 60)
    return (
        f"{minutes:3d}:{rest:02d}  users {users}  in flight {in_flight}  replies {now.ok} / errors {now.errors}"
        f"  TTFT {mean(now.ttft_ms - before.ttft_ms, now.ttft_count - before.ttft_count, 'ms')}"
        f"  latency {mean(now.e2e_ms - before.e2e_ms, now.ok - before.ok, 'ms')}"
        f"  tokens/s ≈ {tokens:,.0f} ({tokens / each:,.1f} a user)"
        f"  chars/s {characters:,.0f} ({characters / each:,.1f} a user)"
    )


class LiveLine:
    """Prints the line until stopped."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._greenlet = gevent.spawn(self._print)

    def stop(self) -> None:
        """No further line."""
        self._greenlet.kill(block=False)

    def _print(self) -> None:
        began = time.monotonic()
        ledger = self._book.ledger
        before = ledger.totals()
        while True:
            gevent.sleep(EVERY_SECONDS)
            now, current = time.monotonic(), ledger.totals()
            users = self._book.environment.runner.user_count
            # Reports come a second at a time: the seconds that they cover, not those that went by here.
            seconds = (current.seconds - before.seconds) / max(1, len(ledger)) or EVERY_SECONDS
            print(line(seconds, now - began, users, ledger.in_flight(), current, before), flush=True)
            before = current
