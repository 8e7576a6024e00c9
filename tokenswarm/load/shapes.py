"""Load shapes to import, subclass and put one after another: steps, a ramp, a spike. And the one that --steps installs.

    from tokenswarm.load.shapes import Ramp, Sequence, Spike

    class Day(Sequence):
        parts = (Ramp(users=50, seconds=60, hold=120), Spike(base=50, peak=200, lasting=30))

All are abstract, so that Locust takes none because it was imported. What a shape is made with may as well be set in a
subclass. Times are seconds, and count from when the users are there: no level is cut short by a slow start.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import Any, Final

import locust
from locust.runners import STATE_INIT, STATE_RUNNING, MasterRunner

from tokenswarm.errors import OptionError
from tokenswarm.load import plan
from tokenswarm.load.plan import SPAWN_RATE
from tokenswarm.options.values import Options

_OPPOSED: Final = {"num_users": "--users", "run_time": "--run-time"}
_log = logging.getLogger("tokenswarm")


class Levels(locust.LoadTestShape):
    """Goes through the levels of `plan`, then ends the run. A shape of your own needs no more than that method."""

    abstract = True

    def __init__(self, **settings: Any) -> None:
        """Attributes of this shape, by name. Raises TypeError on others."""
        super().__init__()  # type: ignore[no-untyped-call]
        for name, value in settings.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no {name!r}")
            setattr(self, name, value)
        self._walk: plan.Walk | None = None

    def plan(self) -> plan.Levels:
        """What is to be gone through; asked for at each start."""
        raise NotImplementedError

    def reset_time(self) -> None:
        """As Locust has it: a run begins."""
        super().reset_time()  # type: ignore[no-untyped-call]
        self._walk = plan.Walk(self.plan())

    def tick(self) -> tuple[int, float] | None:
        """As Locust has it: users and spawn rate as they should be now, or None, which ends the run."""
        runner: Any = self.runner
        self._walk = self._walk or plan.Walk(self.plan())
        level = self._walk.tick(time.monotonic(), runner.state == STATE_RUNNING)
        if isinstance(runner, MasterRunner) and runner.state == STATE_INIT:
            runner.shape_last_tick = None  # no worker was there yet: Locust would not ask again for what it has asked
        return None if level is None else (level.users, level.spawn_rate)


class Steps(Levels):
    """Each of these numbers of users for `step_time` seconds."""

    abstract = True
    users: Collection[int] = (1, 2, 4, 8, 16)
    step_time: float = 60.0
    spawn_rate: float = SPAWN_RATE

    def plan(self) -> plan.Levels:
        """As `Levels` has it."""
        return plan.steps(self.users, self.step_time, self.spawn_rate)


class Ramp(Levels):
    """From `start` to `users` in `seconds`, evenly, up or down; then stays there for `hold` seconds."""

    abstract = True
    start: int = 0
    users: int = 100
    seconds: float = 60.0
    hold: float = 60.0

    def plan(self) -> plan.Levels:
        """As `Levels` has it."""
        return plan.ramp(self.start, self.users, self.seconds, self.hold)


class Spike(Levels):
    """`base` users for `before` seconds, `peak` users for `lasting`, and `base` again for `after`."""

    abstract = True
    base: int = 10
    peak: int = 100
    before: float = 60.0
    lasting: float = 30.0
    after: float = 60.0
    spawn_rate: float = SPAWN_RATE

    def plan(self) -> plan.Levels:
        """As `Levels` has it."""
        return plan.spike(self.base, self.peak, self.before, self.lasting, self.after, self.spawn_rate)


class Sequence(Levels):
    """These shapes, one after another."""

    abstract = True
    parts: tuple[Levels, ...] = ()

    def plan(self) -> plan.Levels:
        """As `Levels` has it."""
        return tuple(level for part in self.parts for level in part.plan())


def install(environment: Any, options: Options) -> None:
    """`--steps`, where it was given, becomes the shape of this Locust. Raises OptionError where something else says how
    many users there are, and for a shape that cannot be."""
    own = environment.shape_class
    if isinstance(own, Levels):
        _check_plan(own)
    if not options.steps:
        return
    given = environment.parsed_options
    if own is not None:
        raise OptionError(f"--steps: the locustfile has a load shape of its own, {type(own).__name__}; use only one")
    opposed = [flag for name, flag in _OPPOSED.items() if getattr(given, name, None)]
    if opposed:
        raise OptionError(f"--steps and {' and '.join(opposed)} contradict: the steps say how many, and how long")
    shape = Steps(users=options.steps, step_time=options.step_time, spawn_rate=given.spawn_rate or SPAWN_RATE)
    shape.runner = environment.runner
    environment.shape_class = shape
    environment.available_shape_classes = {**(environment.available_shape_classes or {}), "Steps": shape}
    _log.info(
        "%d steps, to %d users at most, each %g s from when its users are there: %.0f s at least",
        len(options.steps), max(options.steps), options.step_time, plan.shortest(shape.plan()),
    )  # fmt: skip


def _check_plan(shape: Levels) -> None:
    try:
        if plan.joined(shape.plan()):
            return
        why = "there are no users in it"
    except ValueError as error:
        why = str(error)
    raise OptionError(f"the load shape {type(shape).__name__}: {why}")


def check(environment: Any, options: Options) -> None:
    """At the start of a run. Raises OptionError where `--steps` is not what will be done."""
    shape = environment.shape_class
    if options.steps and not (isinstance(shape, Steps) and tuple(shape.users) == options.steps):
        raise OptionError("--steps can be given at Locust's start only, not in its page")
