"""Workers that do not fit: another version, another tokenswarm, none at all, or no way to the target. Each is named,
and the others go on."""

from __future__ import annotations

from pathlib import Path

from locust_process import CHAT
from simulator_process import simulator
from swarm_process import all_hold, each_served_request_has_one_row, headless_swarm

OTHER_VERSION = """
import tokenswarm
tokenswarm.__version__ = "0.0.7"
"""
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


def test_workers_that_do_not_fit_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    all_hold(
        tmp_path,
        another_version_another_schema_and_no_tokenswarm_at_all,
        a_late_worker_without_a_way_to_the_target,
    )


def locustfile(folder: Path, name: str, code: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(code)
    return path


def another_version_another_schema_and_no_tokenswarm_at_all(folder: Path) -> None:
    usual = CHAT.read_text()
    with (
        simulator(folder, "--output-tokens", "20") as server,
        headless_swarm(folder, 1, server.url, "--expect-workers", "4", "-u", "8", "-r", "8") as run,
    ):
        older = run.join(locustfile=locustfile(folder, "older", OTHER_VERSION + usual))
        run.join(locustfile=locustfile(folder, "other", OTHER_SCHEMA + usual))
        run.join(locustfile=locustfile(folder, "plain", NO_TOKENSWARM))
        run.until(lambda: run.all_at_work(2))
        run.until(lambda: len(run.rows()) > 100)
        run.master.interrupt()
        assert run.master.wait(60) == 4, run.output
        for worker in (run.workers[0], older):
            worker.wait()
    assert each_served_request_has_one_row(server, run.run_dir)
    manifest = run.manifest
    fit = {run.entry(run.workers[0])["index"], run.entry(older)["index"]}
    assert {int(row["worker"]) for row in run.rows()} == fit
    assert {entry["status"] for entry in manifest["workers"] if entry["index"] in fit} == {"finished"}
    unfit = [entry for entry in manifest["workers"] if entry["index"] not in fit]
    assert [(entry["status"], entry["rows"]) for entry in unfit] == [("lost", 0)] * 2
    for entry in unfit:
        assert any(f"Worker {entry['index']} " in problem for problem in manifest["problems"])
    assert any("0.0.7" in problem for problem in manifest["problems"])
    assert "schema 99, here 1" in run.master.output
    assert run.json("summary.json")["verdict"]["level"] == "invalid"


def a_late_worker_without_a_way_to_the_target(folder: Path) -> None:
    key = {"SIMULATOR_API_KEY": "secret-of-the-test"}
    with (
        simulator(folder, "--output-tokens", "20", "--require-key", env=key) as server,
        headless_swarm(folder, 0, server.url, "-u", "2", "-r", "2") as run,
    ):
        run.join(env={"LLM_API_KEY": key["SIMULATOR_API_KEY"]})
        run.until(lambda: run.all_at_work())
        run.join(env={"LLM_API_KEY": "another-key"})
        run.until(lambda: "401" in run.master.output)
        before = len(run.rows())
        run.until(lambda: len(run.rows()) > before + 50)
        run.master.interrupt()
        run.wait()
    assert each_served_request_has_one_row(server, run.run_dir)
    assert any("401" in problem for problem in run.manifest["problems"])
    assert {row["status"] for row in run.rows()} == {"ok"}
