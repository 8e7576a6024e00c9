"""The schedule of steps in real time, with a clock that the test turns."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import cast

import pytest

from tokenswarm.simulator import pacing
from tokenswarm.simulator.engine import NS_PER_MS, Engine, Latency, Sequence
from tokenswarm.simulator.pacing import EngineLoop, KernelTimer, LoopTimer, Timer

START_NS = 1_000_000_000
STEP_NS = 20 * NS_PER_MS


class Clock:
    """Stands for CLOCK_MONOTONIC and for the timer: `fire` turns the clock to the due time, or later."""

    def __init__(self) -> None:
        self.now_ns = START_NS
        self.due_ns: list[int] = []
        self.callback: Callable[[], None] = lambda: None

    def arm(self, due_ns: int) -> None:
        self.due_ns.append(due_ns)

    def close(self) -> None:
        pass

    def fire(self, late_ns: int = 0) -> None:
        self.now_ns = max(self.now_ns, self.due_ns[-1] + late_ns)
        self.callback()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()

    def timer(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> Timer:
        clock.callback = callback
        return clock

    monkeypatch.setattr(pacing, "system_timer", timer)
    monkeypatch.setattr(time, "monotonic_ns", lambda: clock.now_ns)
    return clock


def engine_loop(emit: Callable[[int, bool], None] = lambda n, last: None) -> EngineLoop:
    loop = EngineLoop(Engine(Latency(20, 0, 20, 0, 0)), cast(asyncio.AbstractEventLoop, None))
    loop.submit(Sequence(1, 1000, emit), START_NS)
    return loop


def test_small_delays_do_not_add_up(clock: Clock) -> None:
    def slow(tokens: int, last: bool) -> None:
        clock.now_ns += 15 * NS_PER_MS

    loop = engine_loop(slow)
    for _ in range(50):
        clock.fire(late_ns=NS_PER_MS // 2)
    assert clock.due_ns == [START_NS + step * STEP_NS for step in range(1, 52)]
    assert loop.late_steps == 0


def test_a_step_that_was_missed_is_not_made_up_for(clock: Clock) -> None:
    loop = engine_loop()
    clock.fire()
    clock.fire(late_ns=5 * NS_PER_MS)
    assert clock.due_ns[-1] == START_NS + 3 * STEP_NS
    clock.fire(late_ns=500 * NS_PER_MS)
    assert clock.due_ns[-1] == clock.now_ns + STEP_NS
    assert (loop.steps, loop.late_steps) == (3, 2)


@pytest.mark.parametrize("kind", [KernelTimer, LoopTimer])
def test_timers_never_fire_early_and_fire_at_once_when_due(kind: type[KernelTimer] | type[LoopTimer]) -> None:
    async def run() -> list[int]:
        loop = asyncio.get_running_loop()
        fired: asyncio.Queue[int] = asyncio.Queue()
        timer = kind(loop, lambda: fired.put_nowait(time.monotonic_ns()))
        early = []
        for wait_ms in (3, 0, -5, 7):
            due_ns = time.monotonic_ns() + wait_ms * NS_PER_MS
            timer.arm(due_ns)
            early.append(due_ns - await asyncio.wait_for(fired.get(), 5))
        timer.close()
        return early

    tolerance_ns = NS_PER_MS if kind is LoopTimer else 0
    assert all(early <= tolerance_ns for early in asyncio.run(run()))


def test_real_steps_come_at_their_rate() -> None:
    async def run() -> list[int]:
        done = asyncio.Event()
        times = []

        def emit(tokens: int, last: bool) -> None:
            times.append(time.monotonic_ns())
            if last:
                done.set()

        loop = EngineLoop(Engine(Latency(0, 0, 2.5, 0, 0)), asyncio.get_running_loop())
        loop.submit(Sequence(1, 101, emit), time.monotonic_ns())
        await done.wait()
        loop.close()
        return times

    times = asyncio.run(run())
    assert all(after > before for before, after in itertools.pairwise(times))
    assert (times[-1] - times[0]) / NS_PER_MS > 245, "no faster than told; how much slower depends on the machine"
