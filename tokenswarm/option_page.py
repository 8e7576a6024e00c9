"""`tokenswarm options`: the options of a load test for people, read off the parser that Locust will really use.

`locust --help` cannot show them: a locustfile adds them, and Locust prints its help before it reads one.
"""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, Final

from locust.argument_parser import get_empty_argument_parser, setup_parser_arguments

from tokenswarm import options

_INDENT: Final = 27
_LOCUST_OPTIONS: Final[Mapping[str, str]] = {
    "locustfile": "what the users do",
    "host": "the model server, http:// or https://; left out: the embedded simulator",
    "num_users": "how many users at the same time",
    "spawn_rate": "how many of them start in a second: 100 users at 1 take 100 s",
    "run_time": "when to stop: 60s, 20m, 1h30m",
    "headless": "no web page: start at once, print the results, exit",
    "stop_timeout": "seconds that a stop waits for requests in flight before it cuts them; at most --request-timeout",
    "web_host": "address of the web page: this machine only, where Locust alone would listen on all its addresses",
    "web_port": "port of the web page",
}
"""Locust's own, the most useful: its help for them is long, and wrong about the defaults that we change."""

_INTRODUCTION: Final = """\
Each option can be given on the command line, in its environment variable (a switch's takes true or false), or in \
locust.conf in the working directory, without its dashes: model = my-model. The command line wins over the \
environment, and that over the file."""

_KEY: Final = """\
{first} in the environment, or {others}, is sent as "Authorization: Bearer ...". No option takes a key: Locust shows \
options in its page. A --header may name a variable instead: --header 'api-key: $MY_KEY'."""


def run_parser(prog: str) -> Any:
    """Locust's own parser with our options, as a run has it, config files and environment included."""
    parser = get_empty_argument_parser()
    setup_parser_arguments(parser)
    options.add_arguments(parser)
    parser.prog = prog
    return parser


def main(arguments: list[str]) -> int:
    """Print the page. Exit status 0, or 2 (by argparse) if it was given anything."""
    about = "Print the options of a load test, their defaults and environment variables."
    argparse.ArgumentParser(prog="tokenswarm options", description=about).parse_args(arguments)
    print(page(min(shutil.get_terminal_size().columns, 120)))
    return 0


def page(width: int) -> str:
    """All of it, in lines of at most `width` characters where words allow."""
    parser = run_parser("tokenswarm options")
    theirs = get_empty_argument_parser()
    setup_parser_arguments(theirs)
    known = {action.dest for action in theirs._actions}
    parts = [textwrap.fill(_INTRODUCTION, width)]
    for group in parser._action_groups:
        ours = [action for action in group._group_actions if action.dest not in known]
        if ours:
            listed = "\n".join(entry(action, str(action.help), width) for action in ours)
            parts.append(f"{group.description or group.title}\n\n{listed}")
    chosen = entries(parser, _LOCUST_OPTIONS, width)
    parts.append(f"Locust's own, the most useful (`locust --help` has them all)\n\n{chosen}")
    first, *others = options.KEY_VARIABLES
    parts.append("API key\n\n" + _filled(_KEY.format(first=first, others=" or ".join(others)), width, 2))
    return "\n\n".join(parts)


def entries(parser: Any, names: Iterable[str], width: int) -> str:
    """Some options of the parser, by the names of their values. Raises KeyError if it has no such option."""
    by_name = {action.dest: action for action in parser._actions}
    return "\n".join(
        entry(by_name[name], _LOCUST_OPTIONS.get(name) or str(by_name[name].help), width) for name in names
    )


def entry(action: argparse.Action, text: str, width: int) -> str:
    """One option: flags, what it does, then its default and its variable."""
    flags = ", ".join(action.option_strings)
    if action.nargs != 0 and action.metavar:
        flags += f" {action.metavar}"
    body = _filled(text, width, _INDENT) + "\n" + _filled(_origin(action), width, _INDENT)
    head = f"  {flags}"
    # Flags that reach into the text's column get a line of their own.
    return f"{head}{body[len(head) :]}" if len(head) <= _INDENT - 2 else f"{head}\n{body}"


def _origin(action: argparse.Action) -> str:
    default = "off" if action.default is False else action.default
    shown = "" if default in (None, "", []) else f"default: {default}; "
    return f"[{shown}{getattr(action, 'env_var', None) or 'command line only'}]"


def _filled(text: str, width: int, indent: int) -> str:
    space = " " * indent
    return textwrap.fill(
        text, width, initial_indent=space, subsequent_indent=space, break_long_words=False, break_on_hyphens=False
    )
