"""However a run ends (signals, kill -9 at any moment, a full disk), what was measured stays, a row for each request."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from locust_process import FIVE_USERS_FOR_A_MINUTE, LocustProcess, headless, locust
from simulator_process import Running, simulator

from tokenswarm.record import COLUMNS


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Running]:
    """Replies of about two seconds: there is always something in flight."""
    with simulator(tmp_path, "--decode-base", "20", "--output-tokens", "100") as running:
        yield running


def started(run: LocustProcess) -> bool:
    return "requests.csv" in {path.name for path in run.run_dir.glob("*")}


def some_rows(run: LocustProcess) -> bool:
    return started(run) and (run.run_dir / "requests.csv").read_bytes().count(b"\n") > 5


def draining(run: LocustProcess) -> bool:
    return "requests in flight" in run.output


def results(run: LocustProcess) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tokenswarm.results", str(run.run_dir)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (run.run_dir / "report.html").exists()
    return json.loads((run.run_dir / "summary.json").read_text())


ENDINGS = {
    "Ctrl-C": (signal.SIGINT, some_rows),
    "SIGTERM": (signal.SIGTERM, some_rows),
    "Ctrl-C while users are still being spawned": (signal.SIGINT, started),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_signal_ends_the_run_in_order(tmp_path: Path, slow: Running, ending: str) -> None:
    number, moment = ENDINGS[ending]
    with locust(tmp_path, "--headless", "--host", slow.url, "-u", "20", "-r", "10", "-t", "60s") as run:
        run.until(lambda: moment(run))
        run.process.send_signal(number)
        assert run.wait() == 0, run.output
    rows = run.rows()
    manifest = run.json("run.json")
    assert manifest["end"] is not None
    assert manifest["rows"]["written"] == len(rows) == sum(line["started"] for line in run.intervals())
    assert {row["status"] for row in rows} == {"ok"}, "what was in flight had time to end"
    assert (run.run_dir / "report.html").exists()


def test_sigterm_ends_a_shape_in_order(tmp_path: Path, slow: Running) -> None:
    locustfile = tmp_path / "shape.py"
    locustfile.write_text(FIVE_USERS_FOR_A_MINUTE)
    with locust(tmp_path, "--headless", "--host", slow.url, locustfile=locustfile) as run:
        run.until(lambda: some_rows(run))
        run.process.terminate()
        assert run.wait() == 0, run.output
    assert run.json("run.json")["rows"]["written"] == len(run.rows()) == sum(n["started"] for n in run.intervals())
    assert (run.run_dir / "report.html").exists()


def test_a_second_ctrl_c_cuts_what_is_in_flight(tmp_path: Path) -> None:
    with (
        simulator(tmp_path, "--decode-base", "50", "--output-tokens", "5000") as endless,
        locust(tmp_path, "--headless", "--host", endless.url, "-u", "5", "-r", "10") as run,
    ):
        run.until(lambda: started(run) and run.intervals() and run.intervals()[-1]["in_flight"] == 5)
        run.interrupt()
        run.until(lambda: draining(run))
        run.interrupt()
        run.wait(20)
    rows = run.rows()
    assert [row["status"] for row in rows] == ["incomplete"] * 5
    assert run.json("run.json")["end"] is not None
    assert "Verdict" in run.output


KILLS: dict[str, Callable[[LocustProcess], Any]] = {
    "before the first second": started,
    "while users are being spawned": lambda run: started(run) and len(run.intervals()) == 1,
    "in mid-run": some_rows,
    "while draining": draining,
    "while the report is being written": lambda run: started(run) and run.json("run.json")["end"] is not None,
}


@pytest.mark.parametrize("moment", KILLS)
def test_kill_9_leaves_a_readable_directory(tmp_path: Path, slow: Running, moment: str) -> None:
    options = ("--headless", "--host", slow.url, "-u", "20", "-r", "10", "-t", "4s")
    with locust(tmp_path, *options) as run:
        run.until(lambda: KILLS[moment](run))
        run.process.kill()
        run.wait()
    content = (run.run_dir / "requests.csv").read_text()
    assert content.startswith(",".join(COLUMNS) + "\n")
    assert content.endswith("\n"), "rows are written whole"
    manifest = run.json("run.json")
    assert manifest["target"]["host"] == slow.url
    intervals = run.intervals()
    ended = sum(sum(line["ended"].values()) for line in intervals)
    assert ended == len(run.rows()), "each interval on disk comes with its rows"
    summary = results(run)
    if moment == "while the report is being written":
        assert manifest["end"] is not None
    else:
        assert manifest["end"] is None
        assert summary["verdict"]["level"] == "invalid"
        if intervals:
            missing = sum(line["started"] for line in intervals) - ended
            assert summary["requests"]["unaccounted"] == missing == intervals[-1]["in_flight"]


def test_kill_9_takes_the_embedded_simulator_along(tmp_path: Path) -> None:
    with locust(tmp_path, "--headless", "-u", "2", "-t", "60s") as run:
        run.until(lambda: some_rows(run))
        (child,) = [p for p in psutil.Process(run.process.pid).children() if "tokenswarm.simulator" in p.cmdline()]
        run.process.kill()
        run.wait()
    child.wait(5)
    assert not child.is_running()


def limit_files(pid: int, size: int) -> None:
    """The kernel refuses to let any file of the process grow past this size: to it, a full disk."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def test_a_disk_that_is_full_for_a_while_costs_nothing(tmp_path: Path, quick_simulator: Running) -> None:
    with locust(tmp_path, "--headless", "--host", quick_simulator.url, "-u", "10", "-r", "10", "-t", "8s") as run:
        run.until(lambda: some_rows(run))
        limit_files(run.process.pid, (run.run_dir / "requests.csv").stat().st_size + 1000)
        run.until(lambda: "requests.csv cannot be written" in run.output)
        limit_files(run.process.pid, resource.RLIM_INFINITY)
        assert run.wait() == 0, run.output
    rows = run.rows()
    manifest = run.json("run.json")
    assert manifest["rows"] == {"written": len(rows), "lost": 0}
    assert len({row["id"] for row in rows}) == len(rows) == sum(line["started"] for line in run.intervals())
    assert any("requests.csv cannot be written" in problem for problem in manifest["problems"])


def test_a_disk_that_stays_full_keeps_what_is_there_and_says_what_is_not(
    tmp_path: Path, quick_simulator: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with locust(tmp_path, "--headless", "--host", quick_simulator.url, "-u", "10", "-r", "10", "-t", "4s") as run:
        run.until(lambda: some_rows(run))
        limit_files(run.process.pid, 8192)
        assert run.wait() not in (0, None), run.output
    content = (run.run_dir / "requests.csv").read_text()
    assert content.endswith("\n"), "no torn row"
    found = re.search(r"(\d+) lines of requests.csv could not be written", run.output)
    assert found, run.output
    on_disk = len(run.rows())
    assert on_disk > 0
    posts = re.search(r"POST\s+/v1/chat/completions\s+(\d+)", run.output)
    assert posts, run.output
    assert on_disk + int(found[1]) == int(posts[1]), "what is on disk and what is missing make all of it"


def test_a_run_ended_by_its_own_task(tmp_path: Path, quick_simulator: Running) -> None:
    locustfile = tmp_path / "quitter.py"
    locustfile.write_text(
        "from locust import task\n"
        "from tokenswarm.users import ChatUser\n"
        "class Quitter(ChatUser):\n"
        "    @task\n"
        "    def once(self):\n"
        "        self.chat('hi')\n"
        "        self.environment.runner.quit()\n"
    )
    began = time.monotonic()
    run = headless(tmp_path, quick_simulator.url, "-u", "1", locustfile=locustfile)
    assert time.monotonic() - began < 25
    assert [row["status"] for row in run.rows()] == ["ok"]
    assert run.json("run.json")["verdict"] is not None
