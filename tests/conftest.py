"""Fixtures that several files share."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from caller import Authority, Caller
from simulator_process import Running, simulator

from tokenswarm.transport import receiver
from tokenswarm.transport.clock import StampKeeper
from tokenswarm.transport.portable import PortableTransport

SLOW = (
    "test_analysis",
    "test_benchmarks",
    "test_cancelling",
    "test_capacity_runs",
    "test_compare_command",
    "test_dataset_runs",
    "test_documentation",
    "test_endings",
    "test_every_protocol",
    "test_hostile_servers",
    "test_llama_cpp",
    "test_locustfiles",
    "test_odd_users",
    "test_open_loop",
    "test_run_ends",
    "test_scraping",
    "test_steps",
    "test_synthetic_runs",
    "test_verdict_faults",
    "test_web_ui",
    "test_workers",
)
"""Beginnings of files whose tests are mostly whole runs, of several seconds each: marked slow, all of them."""
LONGEST = ("test_capacity_runs", "test_open_loop", "test_steps", "test_workers")
"""Of those, the ones in which a single test takes half a minute or more."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow ones first, and of these the longest, so that no long one is the last to end."""
    for item in items:
        if item.path.stem.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, not item.path.stem.startswith(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def stamping() -> Iterator[None]:
    """The kernel stamps arrivals from the first test on, whoever else asks it to."""
    keeper = StampKeeper()
    yield
    keeper.close()


@pytest.fixture(scope="session")
def quick_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A simulator that answers within milliseconds, one for each test process."""
    with simulator(tmp_path_factory.mktemp("simulator"), "--output-tokens", "20") as running:
        yield running


@pytest.fixture(scope="session")
def settable_clock(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library that gives whoever preloads it a wall clock that can be set."""
    if sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("no gcc to build the clock that can be set")
    source = Path(__file__).with_name("settable_clock.c")
    library = tmp_path_factory.mktemp("clock") / "settable_clock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, source, "-ldl"], check=True)
    return str(library)


@pytest.fixture(params=["thread", "python"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who reads the sockets, from now on."""
    if request.param == "thread" and not receiver.available():
        pytest.skip("the receive thread was not built")
    monkeypatch.setenv(receiver.MODE_VARIABLE, request.param)
    return str(request.param)


@pytest.fixture
def callers(reading: str) -> Iterator[Any]:
    """Makes callers, and closes them at the end."""
    made: list[Caller] = []

    def make(*args: Any, **kwargs: Any) -> Caller:
        made.append(Caller(*args, **kwargs))
        return made[-1]

    yield make
    for caller in made:
        caller.close()


@pytest.fixture
def clients() -> Iterator[Any]:
    """Makes callers of the portable transport, where no `kind` is given, and closes them at the end."""
    made: list[Caller] = []

    def make(*args: Any, **kwargs: Any) -> Caller:
        made.append(Caller(*args, **{"kind": PortableTransport, **kwargs}))
        return made[-1]

    yield make
    for caller in made:
        caller.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)
