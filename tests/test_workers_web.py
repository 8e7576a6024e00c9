"""A master with a web page and its workers: start, edit, stop, start again, and what must not be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from locust_process import locust, read_rows
from simulator_process import Running, simulator
from skewed_clock import SkewedClock
from swarm_process import Swarm, each_served_request_has_one_row, free_port, processes, served, swarm
from test_web_ui import Page, finished, rows_in


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with simulator(tmp_path, "--output-tokens", "20") as running:
        yield running


def page_of(run: Swarm, workers: int = 2) -> Page:
    page = Page(run.master)
    run.until(lambda: f"{workers} workers connected" in run.master.output)
    return page


def test_each_start_is_a_run_of_its_own(tmp_path: Path, server: Running) -> None:
    with swarm(tmp_path, 2, "--host", server.url, "--web-port", free_port()) as run:
        page = page_of(run)
        first, second = run.run_dir, run.folder / "run-2"
        page.swarm(3)
        run.until(lambda: rows_in(first) > 20)
        page.swarm(6)  # an edit while the load is on
        run.until(lambda: page.get("/stats/requests")["user_count"] == 6)
        page.stop()
        manifest = run.until(lambda: finished(first))
        assert [worker["status"] for worker in manifest["workers"]] == ["finished"] * 2
        page.swarm(2, output_tokens="4", label="again")
        run.until(lambda: rows_in(second) > 20)
        page.stop()
        again = run.until(lambda: finished(second))
        run.master.interrupt()
        run.wait()
    assert each_served_request_has_one_row(server, first, second)
    assert (again["label"], again["options"]["output_tokens"]) == ("again", 4)
    assert {row["asked_output_tokens"] for row in read_rows(second)} == {"4"}
    for directory, told in ((first, manifest), (second, again)):
        assert (directory / "report.html").exists()
        assert {row["status"] for row in read_rows(directory)} == {"ok"}
        assert {row["worker"] for row in read_rows(directory)} == {"0", "1"}
        assert told["rows"] == {"written": len(read_rows(directory)), "lost": 0}
        assert told["problems"] == []


def test_a_master_whose_clock_is_set_between_two_runs(tmp_path: Path, server: Running) -> None:
    """Each run is on the clock that the master had at its start, its workers' times too."""
    clock = SkewedClock(tmp_path, -100.0)
    with swarm(tmp_path, 1, "--host", server.url, "--web-port", free_port(), env=clock.env) as run:
        page = page_of(run, workers=1)
        for directory in (run.run_dir, run.folder / "run-2"):
            page.swarm(2)
            run.until(lambda directory=directory: rows_in(directory) > 20)
            clock.set(100.0)
            run.until(lambda directory=directory, before=rows_in(directory): rows_in(directory) > before + 20)
            page.stop()
            run.until(lambda directory=directory: finished(directory))
        run.master.interrupt()
        run.wait()
    for directory, offset_ms in ((run.run_dir, 100_000.0), (run.folder / "run-2", -100_000.0)):
        manifest = finished(directory)
        (worker,) = manifest["workers"]
        assert abs(worker["clock_offset_ms"] - offset_ms) < worker["clock_uncertainty_ms"] + 1
        for row in read_rows(directory):
            assert manifest["start"]["time"] < float(row["start_time"]) < manifest["end"]["time"]


def test_a_start_while_the_run_before_still_drains_harms_nobody(tmp_path: Path) -> None:
    with (
        simulator(tmp_path, "--decode-base", "20", "--output-tokens", "100") as slow,
        swarm(tmp_path, 2, "--host", slow.url, "--web-port", free_port()) as run,
    ):
        page = page_of(run)
        page.swarm(4)
        run.until(run.all_at_work)
        stopper = threading.Thread(target=page.stop)
        stopper.start()
        run.until(lambda: "requests in flight" in run.master.output)
        page.swarm(2)
        stopper.join()
        manifest = run.until(lambda: finished(run.run_dir))
        assert [worker["status"] for worker in manifest["workers"]] == ["finished"] * 2
        assert manifest["rows"] == {"written": len(read_rows(run.run_dir)), "lost": 0}
        run.until(lambda: page.state() in ("stopped", "ready"))
        page.swarm(2)
        run.until(lambda: rows_in(run.folder / "run-2") > 2)
        page.stop()
        assert run.until(lambda: finished(run.folder / "run-2"))["problems"] == []
        run.master.interrupt()
        run.wait()
        assert each_served_request_has_one_row(slow, run.run_dir, run.folder / "run-2")


def test_a_refused_start_is_shown_on_the_page_and_can_be_mended(tmp_path: Path, server: Running) -> None:
    with swarm(tmp_path, 2, "--host", server.url, "--web-port", free_port()) as run:
        page = page_of(run)
        page.swarm(2, host=f"http://127.0.0.1:{free_port()}")
        run.until(lambda: any("refused" in e["msg"] for e in page.get("/exceptions")["exceptions"]))
        run.until(lambda: page.state() in ("stopped", "ready"))
        page.swarm(2, host=server.url, extra_body="{oops")
        run.until(lambda: any("--extra-body" in e["msg"] for e in page.get("/exceptions")["exceptions"]))
        run.until(lambda: page.state() in ("stopped", "ready"))
        assert served(server) == []
        before = {path.name for path in run.folder.glob("run*")}
        page.swarm(2, host=server.url, extra_body="")
        directory = run.until(lambda: next((p for p in run.folder.glob("run*") if p.name not in before), None))
        run.until(lambda: rows_in(directory) > 3)
        page.stop()
        assert run.until(lambda: finished(directory))["problems"] == []
        run.master.interrupt()
        run.wait()
    assert each_served_request_has_one_row(server, directory)


def test_processes_with_a_page_end_with_it(tmp_path: Path, server: Running) -> None:
    with locust(tmp_path, *processes(2), "--host", server.url, "--web-port", free_port()) as run:
        page = Page(run)
        run.until(lambda: "2 workers connected" in run.output)
        page.swarm(2)
        run.until(lambda: rows_in(run.run_dir) > 20)
        run.interrupt()
        assert run.wait() == 0, run.output
    assert each_served_request_has_one_row(server, run.run_dir)
    assert finished(run.run_dir)["problems"] == []
