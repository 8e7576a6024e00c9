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
from tokenswarm.scraping.messages import LOCAL, Scraped, State, Task
from tokenswarm.scraping.pulling import Puller

LAST_SECONDS = 5.0
"""How long the last answers may take, once the run is over."""


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal is for Locust, which drains
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=Task)
    outlet, over = Outlet(), Event()
    local: list[LocalExporter] = []
    threads = []
    for source in task.sources:
        if source.url == LOCAL:
            try:
                local.append(LocalExporter())
            except NoAnswer as why:
                state = State(file=source.file, url=source.url, failures=1)
                outlet.tell(Scraped(file=source.file, problem=f"--hardware {LOCAL}: {why}.", state=state))
                continue
            source = msgspec.structs.replace(source, at=local[-1].url)
        threads.append(Thread(target=Puller(source, task, outlet.tell).run, args=(over,), daemon=True))
        threads[-1].start()
    while sys.stdin.buffer.read(65_536):
        pass
    over.set()
    give_up = time.monotonic() + LAST_SECONDS
    for thread in threads:
        thread.join(max(0, give_up - time.monotonic()))
    for exporter in local:
        exporter.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
