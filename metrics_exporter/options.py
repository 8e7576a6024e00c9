"""The command line, parsed once into one typed object."""

from __future__ import annotations

import argparse
import math
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from metrics_exporter import __version__
from metrics_exporter.access import Passwords

_DESCRIPTION: Final = """\
What the GPUs, the machine and some of its processes do, read several times a second: as a page for Prometheus, as
samples for tokenswarm's reports, and as a CSV file."""

_EPILOG: Final = """\
examples:
  python -m metrics_exporter                                   http://127.0.0.1:9435/metrics, for this machine only
  python -m metrics_exporter --listen 0.0.0.0 --process vllm   for others, with what the processes named vllm use
  python -m metrics_exporter --csv hardware.csv --window 5     one row a value each 5 seconds, Prometheus or not
  python -m metrics_exporter --compat dcgm --port 9400         with the names of NVIDIA's dcgm-exporter as well

It needs no GPU, and no driver: tokenswarm_nvml_up is then 0, and all else is there."""

SLOWEST_SECONDS: Final = 3600.0
MOST_SAMPLES: Final = 3600
"""Windows that are kept at most: with 8 GPUs about 30 MB."""


class OptionError(Exception):
    """Something about the command line is wrong; the message says what, one line each."""


@dataclass(frozen=True, slots=True)
class Options:
    """Everything the exporter was told."""

    listen: str
    port: int
    interval: float
    per_window: int
    history: float
    processes: tuple[str, ...]
    csv: Path | None
    dcgm: bool
    tls: ssl.SSLContext | None
    passwords: Passwords | None
    announce: bool
    exit_with_stdin: bool

    @property
    def window(self) -> float:
        """Seconds of a sample."""
        return self.interval * self.per_window


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="metrics_exporter",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    where = made.add_argument_group("where it listens")
    where.add_argument("--listen", metavar="ADDRESS", default="127.0.0.1", help="default: %(default)s, not for others")
    where.add_argument("--port", type=_port, default=9435, help="default: %(default)s; 0 takes a free one")
    where.add_argument("--tls-cert", metavar="FILE", type=Path, help="serve HTTPS with this PEM certificate (chain)")
    where.add_argument("--tls-key", metavar="FILE", type=Path, help="its key, if that is not in the same file")
    where.add_argument(
        "--basic-auth-file",
        metavar="FILE",
        type=Path,
        help="ask for a name and a password: lines as `htpasswd -nB NAME` prints them",
    )
    what = made.add_argument_group("what is read, and how often")
    what.add_argument(
        "--interval",
        metavar="SECONDS",
        type=_seconds(0.05, 60),
        default=0.2,
        help="between two readings of utilization, power, clocks and CPU (default: %(default)s); drivers renew "
        "utilization about 6 times a second",
    )
    what.add_argument(
        "--window",
        metavar="SECONDS",
        type=_seconds(0.05, SLOWEST_SECONDS),
        default=1.0,
        help="length of a sample, in whole intervals, with mean and maximum of its readings (default: %(default)s); "
        "all else is read this often",
    )
    what.add_argument(
        "--history",
        metavar="SECONDS",
        type=_seconds(1, 86_400),
        default=300.0,
        help="how long samples are kept for those who ask for them (default: %(default)g)",
    )
    what.add_argument(
        "--process", metavar="NAME|PID", action="append", default=[], help="watch processes, too; may be repeated"
    )
    out = made.add_argument_group("what is made of it, besides")
    out.add_argument("--csv", metavar="FILE", type=Path, help="append every sample to this file")
    out.add_argument("--compat", choices=["dcgm"], help="add the names of NVIDIA's dcgm-exporter to the page")
    out.add_argument("--announce", action="store_true", help="print one line of JSON with the url once it listens")
    out.add_argument("--exit-with-stdin", action="store_true", help="end when standard input does")
    return made


def parse(arguments: list[str] | None) -> Options:
    """Raises OptionError; argparse itself ends the program with status 2, or 0 after --help and --version."""
    given = parser().parse_args(arguments)
    problems: list[str] = []
    if given.window < given.interval:
        problems.append(f"--window {given.window:g}: shorter than --interval {given.interval:g}")
    elif given.history / given.window > MOST_SAMPLES:
        problems.append(f"--history {given.history:g}: more than {MOST_SAMPLES} windows of {given.window:g} s")
    if any(not name.strip() for name in given.process):
        problems.append("--process: a name or a number is needed")
    if not given.listen:
        problems.append("--listen: an address is needed; 0.0.0.0 is every one of this machine")
    tls = _tls(given.tls_cert, given.tls_key, problems)
    passwords = _passwords(given.basic_auth_file, problems)
    if problems:
        raise OptionError("\n".join(problems))
    return Options(
        listen=given.listen,
        port=given.port,
        interval=given.interval,
        per_window=max(1, round(given.window / given.interval)),
        history=given.history,
        processes=tuple(dict.fromkeys(given.process)),
        csv=given.csv,
        dcgm=given.compat == "dcgm",
        tls=tls,
        passwords=passwords,
        announce=given.announce,
        exit_with_stdin=given.exit_with_stdin,
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse_seconds(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
        if not (math.isfinite(value) and low <= value <= high):
            raise argparse.ArgumentTypeError(f"{text} is out of range; it must be from {low:g} to {high:g} seconds")
        return value

    return parse_seconds


def _tls(certificate: Path | None, key: Path | None, problems: list[str]) -> ssl.SSLContext | None:
    if certificate is None:
        if key is not None:
            problems.append("--tls-key: give --tls-cert as well")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        problems.append(f"--tls-cert {certificate}{f' --tls-key {key}' if key else ''}: {error}")
        return None
    return context


def _passwords(path: Path | None, problems: list[str]) -> Passwords | None:
    if path is None:
        return None
    try:
        return Passwords(path)
    except OSError as error:
        problems.append(f"--basic-auth-file {path}: {error.strerror}")
    except ValueError as error:
        problems.append(f"--basic-auth-file {path}: {error}")
    return None
