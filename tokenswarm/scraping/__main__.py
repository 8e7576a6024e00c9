"""`python -m tokenswarm.scraping`: the first line of standard input is a Task; its end is ours."""

from __future__ import annotations

import os
import signal
import sys
import time
from threading import Event, Lock, Thread

import msgspec

from tokenswarm.scraping.asking import NoAnswer
from tokenswarm.scraping.local_exporter import LocalExporter
from tokenswarm.scraping.messages import LOCAL, Scraped, Source, State, Task
from tokenswarm.scraping.pulling import Puller

LAST_SECONDS = 5.0
"""How long the last answers may take, once the run is over."""
LAST_WORD_SECONDS = 1.0
"""How long it may take to say that an exporter of ours has not come up until then."""


class Outlet:
    """Standard output, a message a line. Where nobody reads any more there is nothing left to do."""

    def __init__(self) -> None:
        self._lock = Lock()

    def tell(self, message: Scraped) -> None:
        """Write one message."""
        with self._lock:
            try:
                sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
                sys.stdout.buffer.flush()
            except OSError:
                os._exit(1)


def main() -> int:
    """Ask everybody, each in a thread of its own, until standard input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # those are for Locust, which drains; its end is ours
        signal.signal(number, signal.SIG_IGN)
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=Task)
    outlet, over = Outlet(), Event()
    local = LocalExporter() if any(source.url == LOCAL for source in task.sources) else None
    threads = [Thread(target=_ask, args=(source, task, local, outlet, over), daemon=True) for source in task.sources]
    for thread in threads:
        thread.start()
    while sys.stdin.buffer.read(65_536):
        pass
    over.set()
    _join(threads, LAST_SECONDS)
    if local is not None:
        local.stop()
    _join(threads, LAST_WORD_SECONDS)
    return 0


def _join(threads: list[Thread], seconds: float) -> None:
    give_up = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0, give_up - time.monotonic()))


def _ask(source: Source, task: Task, local: LocalExporter | None, outlet: Outlet, over: Event) -> None:
    """In a thread of its own: one source, be it an exporter of our own that takes its time to come up."""
    if local is not None and source.url == LOCAL:
        try:
            source = msgspec.structs.replace(source, at=local.url())
        except NoAnswer as why:
            state = State(file=source.file, url=source.url, failures=1)
            outlet.tell(Scraped(file=source.file, problem=f"--hardware {LOCAL}: {why}.", state=state))
            return
    Puller(source, task, outlet.tell).run(over)


if __name__ == "__main__":
    sys.exit(main())
