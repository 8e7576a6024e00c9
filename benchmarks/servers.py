"""The servers that a benchmark loads, each a process on a core of its own with a log of what it sent when.

`simulator` is tokenswarm's own; `sender` (sender.c, compiled here) goes on where the simulator's core is full.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tokenswarm.simulator.sendlog import SendRecord

STEP_MS = 20
OUTPUT_TOKENS = 128
"""The length of every reply, in chunks, where nothing else is said."""
MOST_SECONDS = 3600
"""After which a sender ends whatever happens."""
SOURCE = Path(__file__).with_name("sender.c")


@dataclass
class Server:
    """A server at work; what is set after the block that it lives in says so."""

    url: str
    log: Path
    locust_options: list[str] = field(default_factory=list)
    """What Locust needs to know to reach it."""
    late_steps: int = 0
    """Steps that began over 1 ms late. Known afterwards."""
    cpu_seconds: float = 0.0
    """Known afterwards."""

    def sends(self) -> dict[str, SendRecord]:
        """The send log by request id."""
        decode = msgspec.json.Decoder(SendRecord).decode
        with self.log.open("rb") as lines:
            return {record.id: record for record in map(decode, lines)}


def pin(cores: Collection[int]) -> Any:
    """For a child process: run on these cores only."""
    return lambda: os.sched_setaffinity(0, cores)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _process(command: list[str], core: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server that announces its URL and lives as long as its standard input. Raises RuntimeError."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=pin([core]),
    ) as process:
        assert process.stdout is not None
        try:
            announced = process.stdout.readline()
            if not announced:
                raise RuntimeError("the server did not start: " + " ".join(command))
            yield process, json.loads(announced)["url"]
        finally:
            process.terminate()


@contextmanager
def simulator(streams: int, folder: Path, core: int) -> Iterator[Server]:
    """A simulator that steps every 20 ms, whatever the load, for as long as the block lasts."""
    log = folder / "sends.jsonl"
    command = [sys.executable, "-m", "tokenswarm.simulator", "--port", "0", "--announce", "--exit-with-stdin"]
    command += ["--decode-base", str(STEP_MS), "--decode-per-seq", "0", "--jitter", "0", "--prefill-per-token", "0"]
    command += ["--max-batch", str(streams), "--log", str(log)]
    with _process(command, core) as (process, url):
        server = Server(url, log)
        yield server
        with urllib.request.urlopen(f"{url}/metrics") as page:
            lines = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines() if line[:1] != "#")
        server.late_steps = int(float(lines["simulator_late_steps_total"]))
        server.cpu_seconds = cpu_seconds(process.pid)


@contextmanager
def sender(
    streams: int, folder: Path, core: int, tls: bool = False, groups: int = 0, tokens: int = OUTPUT_TOKENS
) -> Iterator[Server]:
    """A sender for as long as the block lasts; its streams step in so many groups, 0: each by itself. `tokens`: the
    length of every reply, in chunks.

    Raises RuntimeError if it cannot be compiled.
    """
    log = folder / "sends.jsonl"
    numbers = tokens, 1000 // STEP_MS, groups or streams, MOST_SECONDS
    command = [str(compile_sender(folder, tls)), str(log), *map(str, numbers)]
    options: list[str] = []
    if tls:
        authority, certificate = certify(folder)
        command += [str(certificate)]
        options = ["--ca-bundle", str(authority)]
    with _process(command, core) as (process, url):
        server = Server(url, log, options)
        yield server
        server.cpu_seconds = cpu_seconds(process.pid)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        counts: Mapping[str, int] = json.loads(process.stdout.readline())  # its log is whole by then
        server.late_steps = counts["late_steps"]


def compile_sender(folder: Path, tls: bool = False) -> Path:
    """Where the program now lies. Raises RuntimeError with what gcc said."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise RuntimeError("the sender needs a C compiler (on Debian: apt-get install gcc libc6-dev)")
    program = folder / "sender"
    command = [compiler, "-O2", "-std=c11", "-Wall", "-Wextra", str(SOURCE), "-o", str(program)]
    if tls:
        command += ["-DWITH_TLS", "-lssl", "-lcrypto"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        hint = "TLS needs OpenSSL's headers (on Debian: apt-get install libssl-dev)\n" if tls else ""
        raise RuntimeError(f"the sender could not be compiled\n{hint}{done.stderr[-2000:]}")
    return program


def certify(folder: Path) -> tuple[Path, Path]:
    """(certificate of an authority, key and certificate of 127.0.0.1 by it), as files."""
    import trustme  # of the tests' requirements; who measures without TLS need not have it

    authority, own = folder / "authority.pem", folder / "own.pem"
    ca = trustme.CA()
    ca.cert_pem.write_to_path(authority)
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(own)
    return authority, own
