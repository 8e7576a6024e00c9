"""Options of one user class alone: its attribute `options`, read as the command line is, over what that says for all.

class Rag(ChatUser):
    options = {"input_tokens": "normal:4000,500", "output_tokens": 64, "ignore_eos": True}
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any, Final

from tokenswarm.errors import OptionError
from tokenswarm.options import dataset, goals, parse, prompts
from tokenswarm.options.values import Options

_FOR_ALL: Final = frozenset({"seed", "fail_on", "find_capacity"})
"""In those groups, but about the whole run."""
_OPTIONS: Final = tuple(
    option
    for table in (dataset.OPTIONS, prompts.OPTIONS, goals.OPTIONS)
    for option in table
    if option.name not in _FOR_ALL
)
PER_CLASS: Final = tuple(option.name for option in _OPTIONS)
_SWITCHES: Final = frozenset(option.name for option in _OPTIONS if option.default is False)


def own_options(user_class: type) -> dict[str, str | bool]:
    """What the class sets, by option, as the command line would have it; "" where it unsets what that says."""
    given = getattr(user_class, "options", None) or {}
    return {
        str(name): value if isinstance(value, bool) else "" if value is None else str(value)
        for name, value in given.items()
    }


def parse_classes(
    user_classes: list[type],
    namespace: argparse.Namespace | Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
    sends: bool = True,
) -> dict[str, Options]:
    """The options of each class that has some of its own, by its name. Raises OptionError with all that is wrong, the
    class's name before each line."""
    raw = dict(namespace if isinstance(namespace, Mapping) else vars(namespace))
    found: dict[str, Options] = {}
    wrong: list[str] = []
    for user_class in user_classes:
        name = user_class.__name__
        if not isinstance(getattr(user_class, "options", {}), Mapping):
            wrong.append(f'{name}.options is no dictionary; write options = {{"output_tokens": 64}}')
            continue
        own = own_options(user_class)
        foreign = [option for option in own if option not in PER_CLASS]
        unknown = [f"{name}.options has {option!r}, {_why_not(option, raw)}" for option in foreign]
        wrong += unknown
        wrong += [
            f"{name}.options: {option} is a switch; write True or False"
            for option in _SWITCHES & own.keys()
            if not isinstance(own[option], bool)
        ]
        if not own or unknown:
            continue
        try:
            found[name] = parse({**raw, **own}, environ, sends)
        except OptionError as error:
            wrong += [f"{name}.options: {line}" for line in str(error).split("\n")]
    if wrong:
        raise OptionError("\n".join(wrong))
    return found


def _why_not(option: str, raw: Mapping[str, Any]) -> str:
    known = f"; a class may have {', '.join(PER_CLASS)}"
    if option in raw:
        return f"which is for the whole run and not for one class{known}"
    if option.replace("-", "_") in PER_CLASS:
        return f"which is written {option.replace('-', '_')!r} there"
    return f"which is no option{known}"
