"""The command `tokenswarm`: what is done around a load test. The test itself is run by the command `locust`.

Each command imports what it needs when it is called: `report`, `compare` and `simulate` must not load Locust.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from tokenswarm import __version__

_INTERRUPTED: Final = 130
_PIPE_CLOSED: Final = 141


class _Command(NamedTuple):
    run: Callable[[list[str]], int]
    purpose: str


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: that of the command; 2 for a wrong command line; 130 after Ctrl-C, 141 if nobody reads on."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(given)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Else the interpreter would flush into the closed pipe once more at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED


def _run(given: list[str]) -> int:
    # What follows a command is the command's own, --help included, so argparse sees only what comes without one.
    if given and given[0] in _COMMANDS:
        return _COMMANDS[given[0]].run(given[1:])
    parser = _parser()
    if not given:
        parser.print_help(sys.stderr)
        return 2
    asked = parser.parse_args(given)
    return _COMMANDS[asked.command].run([])  # "-- report" is a way to write it, too


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, _COMMANDS))
    listed = "\n".join(f"  {name:{width}}  {command.purpose}" for name, command in _COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="tokenswarm",
        usage="tokenswarm COMMAND [arguments]",
        description=f"{_DESCRIPTION}\n\ncommands:\n{listed}",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", choices=tuple(_COMMANDS), help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"tokenswarm {__version__}")
    return parser


def _options(arguments: list[str]) -> int:
    from tokenswarm import option_page

    return option_page.main(arguments)


def _doctor(arguments: list[str]) -> int:
    from tokenswarm.doctor import command

    return command.main(arguments)


def _simulate(arguments: list[str]) -> int:
    from tokenswarm.simulator.__main__ import main as simulate

    return simulate(arguments)


def _report(arguments: list[str]) -> int:
    from tokenswarm.results.__main__ import main as report

    return report(arguments)


def _merge(arguments: list[str]) -> int:
    from tokenswarm.results.merge.command import main as merge

    return merge(arguments)


def _energy(arguments: list[str]) -> int:
    from tokenswarm.results.energy_command import main as energy

    return energy(arguments)


def _compare(arguments: list[str]) -> int:
    from tokenswarm.results.compare.command import main as compare

    return compare(arguments)


def _sweep(arguments: list[str]) -> int:
    from tokenswarm.results.sweep.command import main as sweep

    return sweep(arguments)


_COMMANDS: Final[Mapping[str, _Command]] = {
    "options": _Command(_options, "what a load test can be told: every option, its default and its variable"),
    "doctor": _Command(_doctor, "check this machine, and the model server if --host names one, before a test"),
    "simulate": _Command(_simulate, "start an LLM server without a model, to try a test on"),
    "report": _Command(_report, "summarise a run directory again: summary.json, report.html and the table"),
    "merge": _Command(_merge, "all that a run left on one timeline, as CSV or Parquet"),
    "energy": _Command(_energy, "joules per token, and what tokens cost"),
    "compare": _Command(_compare, "what changed between runs, how surely, and whether they may be compared"),
    "sweep": _Command(_sweep, "throughput against latency, level by level: the Pareto front, the knee, the cost"),
}

_DESCRIPTION: Final = """\
Load tests for LLM servers. The test itself is run by Locust, with a file that says what users do:

  locust -f locustfiles/chat.py --host http://server:8000
      opens a page at http://127.0.0.1:8089, where users are added by hand
  locust -f locustfiles/chat.py --host http://server:8000 --headless --users 100 --spawn-rate 20 --run-time 60s
      runs by itself, prints the results and writes runs/<time>-<label>/report.html

Without --host the load goes to a simulated server, so that all of it can be tried at once."""

_EPILOG: Final = """\
examples:
  tokenswarm options                               what can be added to such a command line
  tokenswarm doctor                                is this machine fit to measure?
  tokenswarm doctor --host http://server:8000 --users 2000
                                                   and does the server answer, and would 2000 users fit?
  tokenswarm simulate --port 8000 --max-batch 8    a server whose queue grows beyond 8 requests at once
  tokenswarm report runs/20261120T134000Z-chat     the results of a run, again
  tokenswarm merge runs/20261120T134000Z-chat      its timeline.csv: a row a second
  tokenswarm energy runs/20261120T134000Z-chat     what its tokens cost in joules
  tokenswarm compare runs/before runs/after        what changed, with intervals; --fail-if sets the exit status
  tokenswarm sweep runs/20261120T134000Z-chat      how much load the server carries, from a run with --steps

`tokenswarm COMMAND --help` tells more of each command."""
