"""What is asked beside the load: exporters and metrics pages, from their answers to the files of a run."""

from __future__ import annotations

import csv
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from locust_process import LocustProcess, headless, locust
from simulator_process import Running, simulator
from swarm_process import Swarm, free_port

from tokenswarm.errors import OptionError
from tokenswarm.scraping.asking import Asker, NoAnswer
from tokenswarm.scraping.exporter import Exporter
from tokenswarm.scraping.messages import HARDWARE, SERVER_METRICS, State, Task
from tokenswarm.scraping.server_page import ServerPage
from tokenswarm.scraping.sources import parse_sources
from tokenswarm.timing import Anchor

PAGE = """# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{model="a",reason="stop"} 3
# TYPE waiting gauge
waiting 0
# TYPE ttft histogram
ttft_bucket{le="0.1"} 2
ttft_bucket{le="+Inf"} 3
ttft_sum 0.5
ttft_count 3
"""


def lines_of(text: str, header: tuple[str, ...]) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines(), header))


# Pages


def page_lines(text: str) -> list[tuple[str, str, float]]:
    rows = lines_of(text, ("time", "source", "metric", "labels", "value"))
    return [(row["metric"], row["labels"], float(row["value"])) for row in rows]


def test_a_page_is_kept_whole_and_then_by_what_changes() -> None:
    page = ServerPage("http://server/metrics")
    assert page_lines(page.lines(1.0, PAGE)) == [
        ("up", "", 1.0),
        ("requests_total", 'model="a",reason="stop"', 3.0),
        ("waiting", "", 0.0),
        ("ttft_bucket", 'le="0.1"', 2.0),
        ("ttft_bucket", 'le="+Inf"', 3.0),
        ("ttft_sum", "", 0.5),
        ("ttft_count", "", 3.0),
    ]
    later = PAGE.replace("waiting 0", "waiting 7")
    assert page_lines(page.lines(2.0, later)) == [("up", "", 1.0), ("waiting", "", 7.0)]
    assert page_lines(page.no_answer(3.0)) == [("up", "", 0.0)]
    assert page_lines(page.lines(4.0, later)) == [("up", "", 1.0)]


def test_what_a_page_says_is_no_formula_and_ends_no_line() -> None:
    text = ServerPage("http://server/metrics").lines(1.0, 'm{a="=1+1\\n,\\"x"} NaN\nn{q="\x1b[2J"} 1e300\n')
    assert "\x1b" not in text
    assert text.count("\n") == 3
    rows = page_lines(text)
    assert rows[1][:2] == ("m", 'a="=1+1\\n,\\"x"')
    assert rows[1][2] != rows[1][2]
    assert rows[2][2] == 1e300


@pytest.mark.parametrize("text", ["", "<html>", '{"detail": "Not Found"}', "a{b} 1", "# only a comment\n"])
def test_what_is_no_page_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ServerPage("http://server/metrics").lines(1.0, text)


# Exporters


def answer(*at: int, instance: int = 1, dropped: int = 0, first: int = 0) -> bytes:
    samples = [
        {"seq": first + n, "mono_ns": ns, "values": {"gpu:0": {"power_watts": 250.5}}, "mean": {"gpu:0": {}}, "max": {}}
        for n, ns in enumerate(at)
    ]
    about = {
        "host": "gpu1",
        "instance": instance,
        "interval_s": 0.2,
        "window_s": 1.0,
        "next": first + len(at),
        "dropped": dropped,
    }
    return json.dumps({**about, "devices": [{"device": "gpu:0", "uuid": "GPU-1"}], "samples": samples}).encode()


def clock(mono_ns: int, wall_ns: int = 0) -> bytes:
    return json.dumps({"wall_ns": wall_ns, "mono_ns": mono_ns}).encode()


SECOND = 1_000_000_000


def exporter() -> tuple[Exporter, State]:
    """For a run that began at 1,000 s of UTC, our monotonic clock showing 50 s."""
    state = State(file=HARDWARE, url="http://gpu1:9435")
    return Exporter(Anchor(1_000 * SECOND, 50 * SECOND), state), state


def test_samples_are_put_on_the_runs_clock() -> None:
    known, state = exporter()
    # Theirs shows 900 s when ours shows 60: at 60 s the run's clock shows 1,010.
    known.heard_clock(60 * SECOND - 1000, clock(900 * SECOND, 1_012 * SECOND), 60 * SECOND + 1000)
    text = known.lines(answer(895 * SECOND, 899 * SECOND), 60 * SECOND)
    rows = lines_of(text, ("time", "host", "device", "metric", "value", "mean", "max"))
    assert [(row["time"], row["host"], row["device"], row["metric"], row["value"]) for row in rows] == [
        ("1005.000000", "gpu1", "gpu:0", "power_watts", "250.5"),
        ("1009.000000", "gpu1", "gpu:0", "power_watts", "250.5"),
    ]
    assert state.offset_s == pytest.approx(2.0)
    assert state.uncertainty_s == pytest.approx(1e-6, rel=0.01)
    assert known.since == 2


def test_samples_from_before_the_run_are_not_of_it() -> None:
    known, _ = exporter()
    known.heard_clock(60 * SECOND, clock(900 * SECOND), 60 * SECOND)
    assert known.lines(answer(889 * SECOND, 891 * SECOND), 60 * SECOND).count("\n") == 1


def test_an_exporter_that_was_started_anew_is_read_from_its_beginning() -> None:
    known, state = exporter()
    known.heard_clock(60 * SECOND, clock(900 * SECOND), 60 * SECOND)
    known.lines(answer(898 * SECOND, 899 * SECOND, first=40, dropped=40), 60 * SECOND)
    assert (known.since, state.lost_samples) == (42, 0)  # what it dropped was before the run
    known.lines(answer(899 * SECOND, first=50, dropped=8), 60 * SECOND)
    assert (known.since, state.lost_samples) == (51, 8)
    assert known.lines(answer(900 * SECOND, instance=2), 60 * SECOND) == ""
    assert known.since == 0


# Options


def test_sources_are_urls_whose_passwords_are_variables() -> None:
    (source,) = parse_sources(HARDWARE, ["https://me:$WORD@gpu1:9435"], {"WORD": "geheim"})
    assert (source.url, source.user, source.password) == ("https://gpu1:9435", "me", "geheim")
    (page,) = parse_sources(SERVER_METRICS, ["http://server:8000"], {})
    assert page.url == "http://server:8000/metrics"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://me:geheim@gpu1:9435", "put it into the environment"),
        ("gpu1:9435", "write it as http://gpu1:9435, or local"),
        ("http://gpu1:port", "write it as"),
        ("http://me:$MISSING@gpu1:9435", "no variable MISSING"),
        ("target", "write it as"),
    ],
)
def test_what_is_wrong_with_a_source_is_said_without_its_password(url: str, says: str) -> None:
    with pytest.raises(OptionError, match=r"^--hardware.*") as refused:
        parse_sources(HARDWARE, [url], {})
    assert says in str(refused.value)
    assert "geheim" not in str(refused.value)


def test_a_source_that_wants_a_password_is_told_with_where_it_goes(tmp_path: Path) -> None:
    with simulator(tmp_path, "--require-key", env={"SIMULATOR_API_KEY": "geheim"}) as server:
        (source,) = parse_sources(HARDWARE, [server.url], {})
        asker = Asker(source, Task(anchor=Anchor(1_000 * SECOND, 50 * SECOND), sources=[source]))
        with pytest.raises(NoAnswer, match=r"HTTP 401 .*http://NAME:\$PASSWORD@HOST"):
            asker.ask(f"{server.url}/v1/models")
        asker.close()


# Whole runs


def scraped(run_dir: Path, name: str) -> list[dict[str, str]]:
    with (run_dir / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def series(rows: list[dict[str, str]], metric: str) -> list[float]:
    return [float(row["value"]) for row in rows if row["metric"] == metric]


def test_the_servers_own_page_agrees_with_our_rows(quick_simulator: Running, tmp_path: Path) -> None:
    before = quick_simulator.metrics()
    run = headless(tmp_path, quick_simulator.url, "-u", "3", "-t", "3s", "--server-metrics", "target")
    rows = scraped(run.run_dir, SERVER_METRICS)
    made = quick_simulator.metrics()["simulator_generation_tokens_total"]
    assert {row["source"] for row in rows} == {f"{quick_simulator.url}/metrics"}
    assert series(rows, "simulator_generation_tokens_total")[-1] == made, "asked once more, after the last request"
    told = made - before["simulator_generation_tokens_total"]
    counted = sum(int(row["output_tokens"]) for row in run.rows() if row["status"] == "ok")
    assert counted <= told <= counted + 2 * 20, "the check's tokens are no row's"
    assert set(series(rows, "up")) == {1.0}
    times = [float(row["time"]) for row in rows if row["metric"] == "up"]
    assert len(times) >= 2, "at its start, and once more after the end; how often between is up to the machine"
    about = run.json("run.json")
    assert about["start"]["time"] <= times[0] < times[-1] <= about["end"]["time"] + 5
    (state,) = about["scraped"]
    assert (state["file"], state["failures"], state["lines"]) == (SERVER_METRICS, 0, len(rows))
    assert run.json("summary.json")["server"]["sources"][0]["server"] == "simulator"


def exporter_process(port: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "metrics_exporter", "--port", port, "--announce", "--window", "0.2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert b"url" in process.stdout.readline()
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_an_exporter_that_dies_leaves_a_gap_and_its_successor_goes_on(quick_simulator: Running, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    first = exporter_process(port)
    options = ("--headless", "--host", quick_simulator.url, "-u", "2", "--hardware", url)
    try:
        with locust(tmp_path, *options) as run:
            path = run.run_dir / HARDWARE

            def samples() -> int:
                return len({row["time"] for row in scraped(run.run_dir, HARDWARE)}) if path.exists() else 0

            run.until(lambda: samples() >= 3)
            end(first)
            run.until(lambda: "hardware.csv has a gap meanwhile" in run.output)
            before = samples()
            first = exporter_process(port)
            run.until(lambda: samples() > before + 2)
            run.interrupt()
            assert run.wait() == 0
    finally:
        end(first)
    rows = scraped(run.run_dir, HARDWARE)
    assert all(row["value"] for row in rows)
    assert "cpu_busy_ratio" in {row["metric"] for row in rows}
    told = run.json("run.json")
    assert [text.partition(f"{url}")[0] for text in told["problems"]] == ["--hardware ", "--hardware "]
    assert "Connection refused" in told["problems"][0]
    assert "answers again" in told["problems"][1]
    assert told["scraped"][0]["failures"] >= 1


class Mute(http.server.BaseHTTPRequestHandler):
    """Takes questions, and answers none; or a page that says what it was sent."""

    seen: ClassVar[list[dict[str, str]]]
    answers: ClassVar[bool]

    def do_GET(self) -> None:
        self.seen.append(dict(self.headers.items()))
        if not self.answers:
            threading.Event().wait(30)
        body = b"asked_total 1\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def web(answers: bool) -> Iterator[tuple[str, list[dict[str, str]]]]:
    handler = type("Handler", (Mute,), {"seen": [], "answers": answers})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler.seen
    finally:
        server.shutdown()
        server.server_close()


def test_a_source_that_hangs_delays_neither_requests_nor_the_end(quick_simulator: Running, tmp_path: Path) -> None:
    with web(answers=False) as (url, _):
        run = headless(
            tmp_path,
            quick_simulator.url,
            "-u",
            "2",
            "-t",
            "4s",
            "--hardware",
            url,
            "--server-metrics",
            f"{url}/metrics",
        )
    rows = run.rows()
    assert {row["status"] for row in rows} == {"ok"}
    assert len(rows) > 20
    problems = run.json("run.json")["problems"]
    assert len(problems) == 2
    assert all("no answer within 2 s" in text for text in problems)
    assert set(series(scraped(run.run_dir, SERVER_METRICS), "up")) == {0.0}
    assert scraped(run.run_dir, HARDWARE) == []


def test_only_the_server_under_test_gets_its_key(tmp_path: Path) -> None:
    with web(answers=True) as (target, seen), web(answers=True) as (elsewhere, seen_elsewhere):
        urls = f"target,http://me:$PAGE_PASSWORD@{elsewhere.removeprefix('http://')}"
        env = {"LLM_API_KEY": "geheim-2718", "PAGE_PASSWORD": "wort-3141"}
        options = ("-u", "1", "-t", "2s", "--no-check", "--model", "m", "--server-metrics", urls)
        run = headless(tmp_path, target, *options, env=env, exit_code=1)  # it knows no POST
    assert set(series(scraped(run.run_dir, SERVER_METRICS), "up")) == {1.0}
    assert {headers["Authorization"] for headers in seen} == {"Bearer geheim-2718"}
    assert {headers["Authorization"] for headers in seen_elsewhere} == {"Basic bWU6d29ydC0zMTQx"}
    for path in run.run_dir.iterdir():
        assert b"wort-3141" not in path.read_bytes(), path.name


def test_the_master_asks_and_workers_do_not(quick_simulator: Running, tmp_path: Path) -> None:
    options = ("--headless", "-u", "2", "--expect-workers", "1", "--hardware", "local")
    swarm = Swarm(tmp_path, "--host", quick_simulator.url, *options)
    path = swarm.run_dir / HARDWARE
    try:
        swarm.join()
        swarm.until(lambda: path.exists() and len(series(scraped(swarm.run_dir, HARDWARE), "load1")) > 3)
        swarm.master.interrupt()
        swarm.wait()
    finally:
        swarm.end()
    times = [row["time"] for row in scraped(swarm.run_dir, HARDWARE) if row["metric"] == "load1"]
    assert len({*times}) == len(times), "one process asks"
    (state,) = swarm.manifest["scraped"]
    assert (state["url"], state["host"], state["failures"]) == ("local", os.uname().nodename, 0)


def test_what_scrapes_ends_with_the_run_that_was_killed(quick_simulator: Running, tmp_path: Path) -> None:
    options = ("--headless", "--host", quick_simulator.url, "-u", "1", "--hardware", "local")
    with locust(tmp_path, *options) as run:
        run.until(lambda: (run.run_dir / HARDWARE).exists() and scraped(run.run_dir, HARDWARE))
        children = offspring(run)
        assert len(children) == 2
        run.process.kill()
        run.process.wait()
        run.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


def offspring(run: LocustProcess) -> list[int]:
    """The scraping process and the exporter that it started."""
    import psutil

    return [child.pid for child in psutil.Process(run.process.pid).children(recursive=True)]
