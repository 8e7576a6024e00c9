"""$NAME and ${NAME} in an option's value, taken from the environment, so that no secret stands on a command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from tokenswarm.errors import OptionError

_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)\}")


def names(text: str) -> list[str]:
    """The variables that a text names."""
    return [a or b for a, b in _VARIABLE.findall(text)]


def expand(text: str, environ: Mapping[str, str], option: str, quote: Callable[[str], str] = str) -> str:
    """The text with each variable's value, quoted, in its place. Raises OptionError that names `option`."""
    missing = [name for name in names(text) if name not in environ]
    if missing:
        raise OptionError(f"{option}: the environment has no variable {missing[0]}")
    return _VARIABLE.sub(lambda match: quote(environ[match[1] or match[2]]), text)
