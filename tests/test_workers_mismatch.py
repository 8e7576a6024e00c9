"""Workers that do not fit: another version, another tokenswarm, or none at all. Each is named, and the others go on."""

from __future__ import annotations

from pathlib import Path

from locust_process import CHAT
from simulator_process import simulator
from swarm_process import each_served_request_has_one_row, headless_swarm

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


def locustfile(folder: Path, name: str, code: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(code)
    return path


def test_another_version_another_schema_and_no_tokenswarm_at_all(tmp_path: Path) -> None:
    usual = CHAT.read_text()
    with (
        simulator(tmp_path, "--output-tokens", "20") as server,
        headless_swarm(tmp_path, 1, server.url, "--expect-workers", "4", "-u", "8", "-r", "8") as run,
    ):
        older = run.join(locustfile=locustfile(tmp_path, "older", OTHER_VERSION + usual))
        run.join(locustfile=locustfile(tmp_path, "other", OTHER_SCHEMA + usual))
        run.join(locustfile=locustfile(tmp_path, "plain", NO_TOKENSWARM))
        run.until(lambda: run.all_at_work(2))
        run.until(lambda: len(run.rows()) > 100)
        run.master.interrupt()
        assert run.master.wait() == 4, run.output
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
