"""Options on what a run should reach, and what its exit status says."""

from __future__ import annotations

from typing import Final

from tokenswarm.options.entry import Option, one_of

_FAIL_ON = ("degraded", "invalid", "errors")

OPTIONS: Final = (
    Option(
        "fail_on",
        "|".join(_FAIL_ON),
        "exit with status 3 if the run's verdict or its errors are this bad",
        one_of(*_FAIL_ON),
    ),
)
