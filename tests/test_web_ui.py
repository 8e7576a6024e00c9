"""Locust's web UI as people use it: start, edit the users, stop, start again; a run directory for each start."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from locust_process import LocustProcess, locust, read_rows
from simulator_process import Running, simulator
from swarm_process import free_port


class Page:
    """The web UI of a Locust that runs."""

    def __init__(self, run: LocustProcess) -> None:
        self.run = run
        found = run.until(lambda: re.search(r"Starting web interface at (\S+?),", run.output))
        self.url = found[1]
        run.until(self._answers)

    def _answers(self) -> bool:
        try:
            return bool(requests.get(self.url, timeout=5).ok)
        except requests.ConnectionError:
            return False

    def get(self, path: str) -> Any:
        answer = requests.get(f"{self.url}{path}", timeout=30)
        answer.raise_for_status()
        return answer.json()

    def swarm(self, users: int, **fields: str) -> None:
        form = {"user_count": str(users), "spawn_rate": "20", **fields}
        answer = requests.post(f"{self.url}/swarm", data=form, timeout=30)
        assert answer.json()["success"], answer.text

    def stop(self, seconds: float = 60) -> None:
        assert requests.post(f"{self.url}/stop", timeout=seconds).ok

    def state(self) -> str:
        return str(self.get("/stats/requests")["state"])


@pytest.fixture
def page(tmp_path: Path, quick_simulator: Running) -> Iterator[Page]:
    options = ("--host", quick_simulator.url, "--web-port", free_port())
    with locust(tmp_path, *options) as run:
        yield Page(run)


def rows_in(directory: Path) -> int:
    path = directory / "requests.csv"
    return path.read_bytes().count(b"\n") - 1 if path.exists() else 0


def finished(directory: Path) -> Any:
    """run.json once the results are in it."""
    path = directory / "run.json"
    manifest = json.loads(path.read_text()) if path.exists() else {}
    return manifest if manifest.get("verdict") else None


def test_start_edit_stop_and_start_again(page: Page) -> None:
    run = page.run
    assert page.url.startswith("http://127.0.0.1:"), "the page is for this machine only, unless told otherwise"
    first, second = run.run_dir, run.folder / "run-2"

    page.swarm(3)
    run.until(lambda: rows_in(first) > 20)
    page.swarm(6)  # an edit while the load is on
    run.until(lambda: page.get("/stats/requests")["user_count"] == 6)
    before = rows_in(first)
    run.until(lambda: rows_in(first) > before + 20)
    page.stop()
    manifest = run.until(lambda: finished(first))
    marks = [(mark["event"], mark["users"]) for mark in manifest["boundaries"]]
    assert marks[:5] == [("start", 0), ("target", 3), ("spawned", 3), ("target", 6), ("spawned", 6)]
    assert [event for event, _ in marks[5:]] == ["stopping", "stopped"]
    assert not second.exists()

    page.swarm(2, model="simulator", output_tokens="4", label="again")
    run.until(lambda: rows_in(second) > 20)
    page.stop()
    manifest = run.until(lambda: finished(second))
    assert (manifest["label"], manifest["options"]["output_tokens"]) == ("again", "4")
    assert {row["asked_output_tokens"] for row in read_rows(second)} == {"4"}
    for directory in (first, second):
        assert (directory / "report.html").exists()
        assert {row["status"] for row in read_rows(directory)} == {"ok"}
    ids = [row["id"] for directory in (first, second) for row in read_rows(directory)]
    assert len(set(ids)) == len(ids)

    run.interrupt()
    assert run.wait() == 0, run.output


def test_a_start_that_must_not_be_is_shown_on_the_page_and_can_be_mended(page: Page, quick_simulator: Running) -> None:
    run = page.run
    page.swarm(2, extra_body="{oops")
    run.until(lambda: page.get("/exceptions")["exceptions"])
    (shown,) = page.get("/exceptions")["exceptions"]
    assert "--extra-body" in shown["msg"]
    run.until(lambda: page.state() in ("stopped", "ready"))
    assert not run.run_dir.exists()
    page.swarm(2, host=f"http://127.0.0.1:{free_port()}", extra_body="")
    run.until(lambda: any("Connection refused" in e["msg"] for e in page.get("/exceptions")["exceptions"]))
    run.until(lambda: page.state() in ("stopped", "ready"))
    assert not run.run_dir.exists()
    page.swarm(2, host=quick_simulator.url)
    run.until(lambda: rows_in(run.run_dir) > 3)
    page.stop()
    run.until(lambda: finished(run.run_dir))
    run.interrupt()
    assert run.wait() == 0, "a start that was mended is no failure"


def test_a_start_while_the_run_before_still_drains_is_refused_and_harms_nobody(tmp_path: Path) -> None:
    with (
        simulator(tmp_path, "--decode-base", "20", "--output-tokens", "100") as slow,
        locust(tmp_path, "--host", slow.url, "--web-port", free_port()) as run,
    ):
        page = Page(run)
        page.swarm(5)
        run.until(lambda: rows_in(run.run_dir) > 5)
        stopper = threading.Thread(target=page.stop)
        stopper.start()
        run.until(lambda: "requests in flight" in run.output)
        page.swarm(2)
        stopper.join()
        manifest = run.until(lambda: finished(run.run_dir))
        assert manifest["end"] is not None
        assert manifest["rows"]["written"] == len(run.rows())
        assert "start again" in run.output
        run.until(lambda: page.state() in ("stopped", "ready"))
        page.swarm(2)
        run.until(lambda: rows_in(run.folder / "run-2") > 2)
        page.stop()
        assert run.until(lambda: finished(run.folder / "run-2"))["end"] is not None


def test_the_host_cannot_change_in_mid_run(page: Page) -> None:
    run = page.run
    page.swarm(1)
    run.until(lambda: rows_in(run.run_dir) > 3)
    page.swarm(2, host="no host at all")
    run.until(lambda: "host cannot change" in run.output)
    page.stop()
    manifest = run.until(lambda: finished(run.run_dir))
    assert any("host cannot change" in problem for problem in manifest["problems"])
    assert {row["status"] for row in run.rows()} == {"ok"}


def test_another_server_after_the_first(page: Page, tmp_path: Path, quick_simulator: Running) -> None:
    run = page.run
    with simulator(tmp_path, "--model", "other") as other:
        for host, directory in ((quick_simulator.url, run.run_dir), (other.url, run.folder / "run-2")):
            page.swarm(1, host=host)
            run.until(lambda directory=directory: rows_in(directory) > 3)
            page.stop()
            manifest = run.until(lambda directory=directory: finished(directory))
            assert manifest["target"]["host"] == host
    assert {row["model"] for row in read_rows(run.folder / "run-2")} == {"other"}


def test_without_a_host_the_page_names_the_simulator(tmp_path: Path) -> None:
    with locust(tmp_path, "--web-port", free_port()) as run:
        page = Page(run)
        html = requests.get(page.url, timeout=10).text
        assert re.search(r"http://127\.0\.0\.1:\d+/simulator", html)
        assert "SIMULATOR" in run.output
        page.swarm(2)
        run.until(lambda: rows_in(run.run_dir) > 2)
        page.stop()
        assert run.until(lambda: finished(run.run_dir))["target"]["simulator"] is True


def test_our_options_are_on_the_page_and_keys_are_not(tmp_path: Path, quick_simulator: Running) -> None:
    env = {"LLM_API_KEY": "sk-on-no-page-4711"}
    with locust(tmp_path, "--host", quick_simulator.url, "--web-port", free_port(), env=env) as run:
        html = requests.get(Page(run).url, timeout=10).text
    assert "first_token_timeout" in html
    assert "extra_body" in html
    assert "sk-on-no-page-4711" not in html


SLOW_TO_LOAD = """
import time
began = time.perf_counter()
while time.perf_counter() - began < 3:
    pass
from tokenswarm.users import ChatUser

class Chat(ChatUser):
    pass
"""


def test_a_run_time_begins_with_the_load_however_long_the_locustfile_took(
    tmp_path: Path, quick_simulator: Running
) -> None:
    locustfile = tmp_path / "slow.py"
    locustfile.write_text(SLOW_TO_LOAD)
    options = ("--host", quick_simulator.url, "--autostart", "--autoquit", "0", "-u", "1", "-t", "4s")
    with locust(tmp_path, *options, "--web-port", free_port(), locustfile=locustfile) as run:
        assert run.wait() == 0
    times = {boundary["event"]: boundary["time"] for boundary in run.json("run.json")["boundaries"]}
    assert times["stopping"] - times["start"] > 2
