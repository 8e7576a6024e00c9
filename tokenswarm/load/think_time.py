"""How long users think between two tasks, or two turns of a conversation, as --think-time has it. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tokenswarm.duration import duration

Think = Callable[[random.Random], float]
"""Draws seconds."""


def parse(text: str) -> Think:
    """`2s`, `uniform:1-5s` or `exponential:2s`, by its mean. Raises ValueError, fit for a user."""
    name, colon, rest = text.partition(":")
    if not colon and (fixed := duration(text)) is not None:
        return lambda _: fixed
    if name == "uniform":
        low, high = map(duration, rest.partition("-")[::2])
        if low is not None and high is not None and low <= high:
            return lambda draw: draw.uniform(low, high)
    if name == "exponential" and (mean := duration(rest)):
        return lambda draw: draw.expovariate(1.0 / mean)
    raise ValueError("not a time to think; write 2s, uniform:1-5s or exponential:2s")


def thinks(user_class: Any) -> bool:
    """Whether a user class has a wait time of its own: anything but Locust's default of 0."""
    wait_time = user_class.wait_time
    try:
        return bool(wait_time(None) != 0) if wait_time.__module__ == "locust.user.wait_time" else True
    except Exception:  # a wait time that needs its user is no constant 0
        return True
