"""The master's end of the scraping process: what it finds goes into the run's book. The asking is not done here, beside
the load: a page of a thousand metrics takes longer to read than a token may be late.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import Any, Final

import gevent
import msgspec

from tokenswarm.recording.book import Book
from tokenswarm.scraping.messages import Scraped, Source, State, Task

FINISH_SECONDS: Final = 8.0


class Scraping:
    """Begins when it is made; `finish` waits for the last answers."""

    def __init__(self, book: Book, sources: list[Source]) -> None:
        self._book = book
        options = book.options
        task = Task(anchor=book.started, sources=sources, insecure=options.insecure, ca_bundle=options.ca_bundle)
        for source in sources:
            book.scraped(Scraped(file=source.file, state=State(file=source.file, url=source.url)))
        process: Any = subprocess.Popen(
            [sys.executable, "-m", "tokenswarm.scraping"],
            stdin=subprocess.PIPE,  # its end of input is the end of the run, however we end
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._process = process
        self._finishing = False
        process.stdin.write(msgspec.json.encode(task) + b"\n")
        process.stdin.flush()
        self._reader = gevent.spawn(self._read)

    def finish(self) -> None:
        """The run is over: take what still comes, for a bounded time. Idempotent."""
        self._finishing = True
        with suppress(OSError):
            self._process.stdin.close()
        self._reader.join(FINISH_SECONDS)
        self._reader.kill()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def _read(self) -> None:
        decode = msgspec.json.Decoder(Scraped).decode
        for line in self._process.stdout:
            self._book.scraped(decode(line))
        if not self._finishing:
            files = " and ".join(sorted({state.file for state in self._book.sources}))
            self._book.problem(f"The process that fills {files} has ended: nothing more comes into it.")
