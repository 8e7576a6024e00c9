"""How many chunks a second the simulator sends from one core, what a chunk costs, and how well it keeps its schedule.

    python benchmarks/simulator_rate.py                     1000 streams: as fast as possible, then 50 chunk/s each
    python benchmarks/simulator_rate.py --streams 500 --seconds 10 --log

The simulator has one core to itself and the reader, a bare epoll loop that only counts, another one. The time the
kernel spends on delivering over loopback is spent in the sender's `write`, so it is part of the figure.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass

PREFILL_SECONDS = 2.0
EVENT_END = b"}]}\n\n"
"""Ends the events that carry a choice: role-only, text and finish ones."""


@dataclass(frozen=True)
class Rate:
    steps: float
    late_steps: float
    chunks: float
    cpu_seconds: float
    seconds: float

    def describe(self, name: str) -> str:
        rate, cost = self.chunks / self.seconds, self.cpu_seconds / self.chunks * 1e6
        busy = self.cpu_seconds / self.seconds
        return (
            f"{name:25} {rate:9,.0f} chunks/s   {cost:5.1f} µs CPU a chunk   "
            f"CPU {busy:4.0%}   {self.late_steps:.0f} of {self.steps:.0f} steps over 1 ms late"
        )


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def steps(url: str) -> tuple[int, int]:
    """Steps and late steps so far, from the simulator's metrics page."""
    with urllib.request.urlopen(f"{url}/metrics") as page:
        lines = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines() if not line.startswith("#"))
    return int(float(lines["simulator_steps_total"])), int(float(lines["simulator_late_steps_total"]))


def open_streams(url: str, count: int) -> list[socket.socket]:
    """Connections with a streaming request for an endless reply on each."""
    host, port = url.removeprefix("http://").split(":")
    request = {
        "model": "simulator",
        "messages": [{"role": "user", "content": "count"}],
        "stream": True,
        "max_tokens": 100_000,
        "ignore_eos": True,
    }
    body = json.dumps(request).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    streams = []
    for _ in range(count):
        stream = socket.create_connection((host, int(port)))
        stream.sendall(head + body)
        stream.setblocking(False)
        streams.append(stream)
    return streams


class Reader(threading.Thread):
    """Reads everything, all the time, and counts. An event whose end is cut by a read is missed, which is rare."""

    def __init__(self, streams: list[socket.socket]) -> None:
        super().__init__(daemon=True)
        self.chunks = 0
        self.stopped = False
        self._streams = {stream.fileno(): stream for stream in streams}

    def run(self) -> None:
        poll = select.epoll()
        for descriptor in self._streams:
            poll.register(descriptor, select.EPOLLIN)
        buffer = bytearray(1 << 18)
        view = memoryview(buffer)
        while not self.stopped:
            for descriptor, _ in poll.poll(0.1):
                size = self._streams[descriptor].recv_into(view)
                self.chunks += buffer.count(EVENT_END, 0, size)
        poll.close()


def measure(streams: int, seconds: float, options: list[str], core: int) -> Rate:
    """Start a simulator on `core`, load it, and count for `seconds` once all streams are under way."""
    command = [sys.executable, "-m", "tokenswarm.simulator", "--port", "0", "--announce", "--exit-with-stdin"]
    command += ["--max-batch", str(streams), "--kv-cache-tokens", str(200_000 * streams)]
    # The long prefill lets all connections open before the first token, so that no backlog builds up unread.
    command += ["--prefill-base", str(PREFILL_SECONDS * 1000), "--prefill-per-token", "0", *options]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    ) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        reader = Reader(open_streams(url, streams))
        reader.start()
        time.sleep(PREFILL_SECONDS + 1.0)
        before = (*steps(url), reader.chunks, cpu_seconds(process.pid), time.monotonic())
        time.sleep(seconds)
        after = (*steps(url), reader.chunks, cpu_seconds(process.pid), time.monotonic())
        reader.stopped = True
        process.terminate()
    return Rate(*(late - early for early, late in zip(before, after, strict=True)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000, help="requests at the same time (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement (default: %(default)s)")
    parser.add_argument("--log", action="store_true", help="with a send log")
    parser.add_argument("--options", default="", help="more options for the simulator")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("This needs two cores: one for the simulator, one for the reader.", file=sys.stderr)
        return 1
    os.sched_setaffinity(0, {cores[1]})
    with tempfile.TemporaryDirectory() as folder:
        extra = given.options.split()
        if given.log:
            extra += ["--log", os.path.join(folder, "sends.jsonl")]
        for name, decode_ms in (("as fast as possible", "0"), ("50 a second each", "20")):
            options = ["--decode-base", decode_ms, "--decode-per-seq", "0", "--jitter", "0", *extra]
            rate = measure(given.streams, given.seconds, options, cores[0])
            print(rate.describe(f"{given.streams} × {name}"), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
