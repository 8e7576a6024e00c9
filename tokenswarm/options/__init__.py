"""Our command-line options: added to Locust's own, kept as raw strings there, parsed once a start into `Options`.

One module a group, each a table of its options; entry.py is what an entry is, values.py the parsed whole, secrets.py
what comes from the environment. Locust sends its options to workers in clear text and shows them in its page: no option
holds a key.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tokenswarm.errors import OptionError
from tokenswarm.options import (
    arrivals,
    cancelling,
    dataset,
    ends,
    goals,
    limits,
    prompts,
    record,
    steps,
    target,
    websocket,
)
from tokenswarm.options.entry import Option, Reader, flag
from tokenswarm.options.secrets import (
    KEY_VARIABLES,
    api_key,
    expand_header,
    proxy_url,
    redact,
    request_headers,
    scraped_sources,
    secret_values,
)
from tokenswarm.options.values import Options
from tokenswarm.protocols import PROTOCOLS
from tokenswarm.protocols.base import WireProtocol
from tokenswarm.protocols.websocket_chat import WebSocketChat
from tokenswarm.variables import names

__all__ = [
    "DEFAULT_STOP_TIMEOUT",
    "KEY_VARIABLES",
    "Options",
    "add_arguments",
    "api_key",
    "expand_header",
    "parse",
    "protocol_of",
    "proxy_url",
    "redact",
    "request_headers",
    "scraped_sources",
    "secret_values",
]

GROUP: Final = "tokenswarm"
_FLAG: Final = re.compile(r"--[a-z][a-z-]*[a-z]")
DEFAULT_STOP_TIMEOUT: Final = 30.0

TABLES: Final = (
    target.OPTIONS,
    limits.OPTIONS,
    websocket.OPTIONS,
    dataset.OPTIONS,
    prompts.OPTIONS,
    arrivals.OPTIONS,
    steps.OPTIONS,
    cancelling.OPTIONS,
    ends.OPTIONS,
    goals.OPTIONS,
    record.OPTIONS,
)
"""In the order in which `tokenswarm options` shows them."""
PROBLEMS: Final = (
    target.problems,
    limits.problems,
    dataset.problems,
    prompts.problems,
    arrivals.problems,
    cancelling.problems,
    steps.problems,
    goals.problems,
)
"""What finds contradictions between options that are good by themselves."""


def add_arguments(parser: Any) -> None:
    """Add our group to Locust's parser (configargparse), and our defaults for three of Locust's own options."""
    group = parser.add_argument_group(GROUP, "LLM load: what is sent, what is recorded, and where")
    for option in (option for table in TABLES for option in table):
        _add(group, option)
    # Locust's: the server may hold what a stop would cut, and its pages are nobody else's business.
    parser.set_defaults(stop_timeout=DEFAULT_STOP_TIMEOUT, web_host="127.0.0.1", master_bind_host="127.0.0.1")


def _add(group: Any, option: Option) -> None:
    settings: dict[str, Any] = {"default": option.default}
    if option.default is False:
        settings["action"] = "store_true"
    else:
        settings["metavar"] = option.metavar
    several = isinstance(option.default, list)
    if several:
        settings["action"] = "append"
    variable = "TOKENSWARM_" + option.name.upper()
    action = group.add_argument(flag(option.name), env_var=variable, help=option.text, **settings)
    # Locust's parser notes these for its web page, but not for arguments in a group.
    action.include_in_web_ui = option.in_page and not several  # the page would split a list at its commas
    action.is_secret = action.is_required = action.is_multiple = False


def parse(
    namespace: argparse.Namespace | Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
    sends: bool = True,
) -> Options:
    """Our options out of Locust's namespace. Raises OptionError with everything that is wrong, a line each.

    `sends`: whether requests are made here; a master needs neither the files nor the variables that these take.
    """
    read = Reader(namespace if isinstance(namespace, Mapping) else vars(namespace), here=sends)
    found = {
        option.field or option.name: option.read(read, option.name)
        for table in TABLES
        if table is not websocket.OPTIONS
        for option in table
    }
    given = {field: value for field, value in found.items() if value is not None}
    options = Options(**given, ws=websocket.shape(read))
    found_wrong = (problem for find in PROBLEMS for problem in find(options))
    problems = [*read.problems, *(problem for problem in found_wrong if read.unread.isdisjoint(_FLAG.findall(problem)))]
    problems += _unknown_variables(options, environ, sends)
    if problems:
        raise OptionError("\n".join(problems))
    return options


def _unknown_variables(options: Options, environ: Mapping[str, str], sends: bool) -> Iterator[str]:
    """What is wrong with values that name variables."""
    for header in options.headers:
        # What a master does not know, its workers may.
        unknown = {} if sends else dict.fromkeys(names(header), "x")
        try:
            expand_header(header, {**unknown, **environ})
        except OptionError as error:
            yield str(error)
    if sends or all(name in environ for name in names(options.proxy or "")):
        try:
            proxy_url(options, environ)
        except OptionError as error:
            yield str(error)


def protocol_of(options: Options) -> WireProtocol:
    """The protocol that the options ask for, as they want it."""
    protocol = PROTOCOLS[options.protocol]
    return WebSocketChat(options.ws) if isinstance(protocol, WebSocketChat) else protocol
