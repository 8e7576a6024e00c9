"""`tokenswarm doctor`: takes the command line of a run, and checks what that run would meet."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any, Final

from tokenswarm import option_page
from tokenswarm import options as opts
from tokenswarm.doctor import clocks, machine, server
from tokenswarm.doctor.finding import Finding, Level, wants_colour
from tokenswarm.errors import OptionError
from tokenswarm.transport.origin import Origins, function_origins, parse_origins

_USAGE: Final = "tokenswarm doctor [--host URL] [--users N] [options of a run]"
_HELP: Final = """\
usage: {usage}

Check, before a test, whether this machine can measure and, with --host, whether the model server answers. It takes
the options of a run (`tokenswarm options` has them all), so that a command line can be tried by writing
`tokenswarm doctor` in place of `locust`. The server gets a list of models to tell and two small requests, no load.

{options}

  -h, --help                show this help and exit

Each check prints a line: ok, warn (a run works, but its numbers may suffer) or fail, and what to do.
Exit status: 0 nothing failed, 1 something failed, 2 the command line is wrong.

examples:
  tokenswarm doctor
  tokenswarm doctor --host http://server:8000 --users 2000
  LLM_API_KEY=... tokenswarm doctor --host https://api.example.com --model my-model"""
_SHOWN: Final = (
    "host",
    "num_users",
    "protocol",
    "query_model",
    "model",
    "insecure",
    "ca_bundle",
    "header",
    "extra_body",
    "no_stream",
)


def main(arguments: list[str]) -> int:
    """Print a line a check, as each is done. Exit status: 0, 1 if something failed, 2 for a wrong command line."""
    if "-h" in arguments or "--help" in arguments:
        print(_help())
        return 0
    parser = option_page.run_parser("tokenswarm doctor")
    given = parser.parse_args(arguments)
    try:
        origins, options = _understand(given)
    except OptionError as error:
        print(f"tokenswarm doctor: {error}", file=sys.stderr)
        return 2
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")  # a terminal that knows no µ still gets every line
    colour = wants_colour(sys.stdout)
    counts = dict.fromkeys(Level, 0)
    for finding in findings(origins, options, given.num_users):
        counts[finding.level] += 1
        print(finding.line(colour), flush=True)
    failed, warned = counts[Level.FAIL], counts[Level.WARN]
    verdict = "Not ready" if failed else "Ready"
    print(f"\n{verdict}: {counts[Level.OK]} ok, {warned} to look at, {failed} failed.")
    return 1 if failed else 0


def findings(origins: Origins | None, options: opts.Options, users: int | None) -> Iterator[Finding]:
    """Every check, in the order in which they are shown; each is carried out when it is asked for."""
    yield machine.python()
    yield machine.libraries()
    yield machine.open_files(users)
    yield from machine.processors()
    yield from machine.network(users)
    yield clocks.kernel_stamps()
    yield clocks.source()
    yield clocks.reading()
    yield clocks.stability()
    if origins is None:
        yield server.none_named()
    else:
        for origin in origins.each:
            yield from server.target(origin, options)


def _understand(given: Any) -> tuple[Origins | None, opts.Options]:
    addresses = [name for name in given.user_classes if "/" in name or ":" in name]
    if addresses:
        raise OptionError(f"{addresses[0]!r}: write the server's address as --host {addresses[0]}")
    origins = parse_origins(given.host) if given.host else None
    options = opts.parse(given, os.environ)
    if options.query_model is not None:
        origins = function_origins(options.query_model)
    opts.api_key()
    return origins, options


def _help() -> str:
    width = min(shutil.get_terminal_size().columns, 120)
    parser = option_page.run_parser("tokenswarm doctor")
    return _HELP.format(usage=_USAGE, options=option_page.entries(parser, _SHOWN, width))
