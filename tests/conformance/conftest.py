"""Which servers are held to the claims: the light ones in every test run, all of them with --every-server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance import page
from conformance.server import Running, Server
from conformance.servers import SERVERS

HEAVY = ("test_fastchat.py", "test_llama_cpp_python.py", "test_server_times.py")
"""Files that are only about heavy servers."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--every-server", action="store_true", help="install and test the heavy model servers, too")
    group.addoption("--write-page", action="store_true", help="write what was seen into docs/servers.md")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without the heavy servers there are no tests of them."""
    return True if collection_path.name in HEAVY and not config.getoption("--every-server", default=False) else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        every = metafunc.config.getoption("--every-server", default=False)
        only = metafunc.definition.get_closest_marker("only")
        chosen = [server for server in SERVERS if every or server.light]
        chosen = [server for server in chosen if only is None or server.name in only.args]
        metafunc.parametrize("server", chosen, ids=lambda server: server.name, scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """Each heavy server is started once: its tests, of all files, come together."""
    if config.getoption("--every-server", default=False):
        items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return SERVERS.index(params["server"]) if "server" in params else -1


@pytest.fixture(scope="session")
def running(server: Server, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Running]:
    """The server, installed if need be; one for all claims."""
    if (missing := server.missing()) is not None:
        pytest.skip(missing)
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{server.name}: {text}", file=sys.stderr, flush=True)

    if server.prefix is not None:
        server.prefix.install(say)
    if not server.light:
        say("starting …")
    with server.running(tmp_path_factory.mktemp(server.prefix.name if server.prefix else "server")) as started:
        yield started


@pytest.fixture(scope="module")
def seen(server: Server, running: Running, request: pytest.FixtureRequest) -> Iterator[page.Seen]:
    """What the tests saw of the server, for its line in the documentation."""
    noted: page.Seen = {}
    yield noted
    if request.config.getoption("--write-page", default=False):
        page.write(server.name, server.version(), request.node.path.stem, noted)
