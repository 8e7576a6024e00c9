"""A master with a web page and its workers: start, edit, stop, start again, and what must not be."""

from __future__ import annotations

import threading
from pathlib import Path

from locust_process import locust, read_rows
from simulator_process import simulator
from skewed_clock import SkewedClock
from swarm_process import Swarm, all_hold, each_served_request_has_one_row, free_port, processes, served, swarm
from test_web_ui import Page, finished, rows_in


def test_a_master_with_a_web_page(tmp_path: Path) -> None:
    all_hold(
        tmp_path,
        each_start_is_a_run_of_its_own_on_the_clock_of_its_start,
        a_start_while_the_run_before_still_drains_harms_nobody,
        a_refused_start_is_shown_on_the_page_and_can_be_mended,
        forked_workers_end_with_their_page,
    )


def page_of(run: Swarm) -> Page:
    """The page, once both workers are there."""
    page = Page(run.master)
    run.until(lambda: "2 workers connected" in run.master.output)
    return page


def each_start_is_a_run_of_its_own_on_the_clock_of_its_start(folder: Path) -> None:
    """The master's machine has a wrong clock, which is set in the middle of the first run."""
    clock = SkewedClock(folder, -100.0)
    with (
        simulator(folder, "--output-tokens", "20") as server,
        swarm(folder, 2, "--host", server.url, "--web-port", free_port(), env=clock.env) as run,
    ):
        page = page_of(run)
        first, second = run.run_dir, run.folder / "run-2"
        page.swarm(3)
        run.until(lambda: rows_in(first) > 20)
        clock.set(100.0)
        page.swarm(6)  # an edit while the load is on
        run.until(lambda: page.get("/stats/requests")["user_count"] == 6)
        page.stop()
        manifest = run.until(lambda: finished(first))
        page.swarm(2, output_tokens="4", label="again")
        run.until(lambda: rows_in(second) > 20)
        page.stop()
        again = run.until(lambda: finished(second))
        run.master.interrupt()
        run.wait()
    assert each_served_request_has_one_row(server, first, second)
    assert (again["label"], again["options"]["output_tokens"]) == ("again", "4")
    assert {row["asked_output_tokens"] for row in read_rows(second)} == {"4"}
    for directory, told, offset_ms in ((first, manifest, 100_000.0), (second, again, -100_000.0)):
        rows = read_rows(directory)
        assert {row["status"] for row in rows} == {"ok"}
        assert {row["worker"] for row in rows} == {"0", "1"}
        assert told["rows"] == {"written": len(rows), "lost": 0}
        assert told["problems"] == []
        assert (directory / "report.html").exists()
        for row in rows:
            assert told["start"]["time"] < float(row["start_time"]) < told["end"]["time"]
        for worker in told["workers"]:
            assert worker["status"] == "finished"
            assert abs(worker["clock_offset_ms"] - offset_ms) < worker["clock_uncertainty_ms"] + 1


def a_start_while_the_run_before_still_drains_harms_nobody(folder: Path) -> None:
    with (
        simulator(folder, "--decode-base", "20", "--output-tokens", "100") as slow,
        swarm(folder, 2, "--host", slow.url, "--web-port", free_port()) as run,
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
        assert manifest["rows"] == {"written": len(run.rows()), "lost": 0}
        run.until(lambda: page.state() in ("stopped", "ready"))
        page.swarm(2)
        run.until(lambda: rows_in(run.folder / "run-2") > 2)
        page.stop()
        assert run.until(lambda: finished(run.folder / "run-2"))["problems"] == []
        run.master.interrupt()
        run.wait()
    assert each_served_request_has_one_row(slow, run.run_dir, run.folder / "run-2")


def a_refused_start_is_shown_on_the_page_and_can_be_mended(folder: Path) -> None:
    with (
        simulator(folder, "--output-tokens", "20") as server,
        swarm(folder, 2, "--host", server.url, "--web-port", free_port()) as run,
    ):
        page = page_of(run)
        page.swarm(2, host=f"http://127.0.0.1:{free_port()}")
        run.until(lambda: any("refused" in e["msg"] for e in page.get("/exceptions")["exceptions"]))
        run.until(lambda: run.manifest["end"] is not None)
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


def forked_workers_end_with_their_page(folder: Path) -> None:
    with (
        simulator(folder, "--output-tokens", "20") as server,
        locust(folder, *processes(2), "--host", server.url, "--web-port", free_port()) as run,
    ):
        page = Page(run)
        run.until(lambda: "2 workers connected" in run.output)
        page.swarm(2)
        run.until(lambda: rows_in(run.run_dir) > 20)
        run.interrupt()
        assert run.wait() == 0, run.output
    assert each_served_request_has_one_row(server, run.run_dir)
    assert finished(run.run_dir)["problems"] == []
