"""Workers that do not fit: another version, another tokenswarm, none at all, or no way to the target. Each is named, and
the others go on where they can."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from locust_process import CHAT, read_rows
from simulator_process import Running, simulator
from swarm_process import each_served_request_has_one_row, headless_swarm, is_whole, served


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with simulator(tmp_path, "--output-tokens", "20") as running:
        yield running


def odd(folder: Path, code: str) -> Path:
    """The usual scenario, after some lines that make its worker another one."""
    path = folder / "odd.py"
    path.write_text(f"{code}\n{CHAT.read_text()}")
    return path


def test_another_version_is_named(tmp_path: Path, server: Running) -> None:
    older = odd(tmp_path, "import tokenswarm\ntokenswarm.__version__ = '0.0.7'")
    with headless_swarm(tmp_path, 1, server.url, "--expect-workers", "2", "-u", "2", "-r", "2") as run:
        run.join(locustfile=older)
        run.until(run.all_at_work)
        run.master.interrupt()
        run.wait()
    assert is_whole(run, server)
    (problem,) = run.manifest["problems"]
    assert "0.0.7" in problem
    assert problem in run.master.output


OTHER_SCHEMA = """
import msgspec
from tokenswarm.session import worker
encode = worker.encode
worker.encode = lambda message: msgspec.msgpack.encode(msgspec.msgpack.decode(encode(message)) | {"schema": 99})
"""
NO_TOKENSWARM = """
from locust import User, constant, task
class Chat(User):
    wait_time = constant(1)
    @task
    def nothing(self):
        pass
"""


@pytest.mark.parametrize("kind", ["another schema", "no tokenswarm"])
def test_a_worker_that_does_not_speak_our_language_is_named_and_the_others_go_on(
    tmp_path: Path, server: Running, kind: str
) -> None:
    locustfile = odd(tmp_path, OTHER_SCHEMA)
    if kind == "no tokenswarm":
        locustfile.write_text(NO_TOKENSWARM)
    with headless_swarm(tmp_path, 1, server.url, "--expect-workers", "2", "-u", "4", "-r", "4") as run:
        stranger = run.join(locustfile=locustfile)
        run.until(lambda: run.all_at_work(1))
        run.until(lambda: len(read_rows(run.run_dir)) > 50)
        run.master.interrupt()
        assert run.master.wait() == 4, run.output
        run.workers[0].wait()
    assert each_served_request_has_one_row(server, run.run_dir)
    assert {row["worker"] for row in read_rows(run.run_dir)} == {str(run.entry(run.workers[0])["index"])}
    (entry,) = (entry for entry in run.manifest["workers"] if entry["status"] == "lost")
    assert entry["rows"] == 0
    assert any("never reported" in problem for problem in run.manifest["problems"])
    assert run.master.json("summary.json")["verdict"]["level"] == "invalid"
    if kind == "another schema":
        assert "schema 99, here 1" in run.master.output
    assert stranger.process.pid


def test_a_late_worker_without_a_way_to_the_target_does_not_end_the_run_of_the_others(tmp_path: Path) -> None:
    key = {"SIMULATOR_API_KEY": "secret-of-the-test"}
    with (
        simulator(tmp_path, "--output-tokens", "20", "--require-key", env=key) as server,
        headless_swarm(tmp_path, 0, server.url, "-u", "2", "-r", "2") as run,
    ):
        run.join(env={"LLM_API_KEY": key["SIMULATOR_API_KEY"]})
        run.until(run.all_at_work)
        run.join(env={"LLM_API_KEY": "another-key"})
        run.until(lambda: "401" in run.master.output)
        before = len(read_rows(run.run_dir))
        run.until(lambda: len(read_rows(run.run_dir)) > before + 50)
        run.master.interrupt()
        run.wait()
        assert each_served_request_has_one_row(server, run.run_dir)
    assert any("401" in problem for problem in run.manifest["problems"])
    assert {row["status"] for row in read_rows(run.run_dir)} == {"ok"}
    assert served(server)
