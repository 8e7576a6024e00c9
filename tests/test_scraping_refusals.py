"""What is asked beside the load, where that cannot be as it was named; and what it says that it should not."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from locust_process import headless, locust
from simulator_process import Running
from swarm_process import free_port, headless_swarm
from test_scraping import scraped
from test_web_ui import Page, finished, rows_in

from tokenswarm.errors import OptionError
from tokenswarm.options import parse
from tokenswarm.scraping.messages import HARDWARE, SERVER_METRICS
from tokenswarm.scraping.sources import addressed, parse_sources
from tokenswarm.transport.origin import parse_origins


@pytest.mark.parametrize("file", [HARDWARE, SERVER_METRICS])
@pytest.mark.parametrize("rest", ["/metrics?token=geheim", "?geheim", "/#geheim"])
def test_what_follows_a_question_mark_is_refused_unseen(file: str, rest: str) -> None:
    with pytest.raises(OptionError, match="leave out") as refused:
        parse_sources(file, [f"http://gpu1:9435{rest}"], {})
    assert "geheim" not in str(refused.value)


def test_a_slash_at_the_end_makes_no_other_source() -> None:
    with pytest.raises(OptionError, match="twice"):
        parse_sources(HARDWARE, ["http://gpu1:9435", "http://gpu1:9435/"], {})


@pytest.mark.parametrize(
    ("host", "named", "asked"),
    [
        ("http://a:1/v1", "target,http://a:1/metrics", ["http://a:1/metrics"]),
        ("http://a:1,http://a:1/v1,http://b:1", "http://a:1,target", ["http://a:1/metrics", "http://b:1/metrics"]),
        ("ws://a:1", "target", ["http://a:1/metrics"]),
        ("wss://a/v1", "target", ["https://a/metrics"]),
    ],
)
def test_each_page_is_asked_for_once_and_over_http(host: str, named: str, asked: list[str]) -> None:
    pages = parse_sources(SERVER_METRICS, named.split(","), {})
    sources = addressed(pages, parse_origins(host), lambda: {"X-Key": "geheim"})
    assert [source.url for source in sources] == asked
    assert all(source.headers == {"X-Key": "geheim"} for source in sources)


def test_a_page_that_was_named_with_a_password_is_asked_with_it() -> None:
    for named in ("target,http://me:$WORD@a:1/metrics", "http://me:$WORD@a:1/metrics,target"):
        pages = parse_sources(SERVER_METRICS, named.split(","), {"WORD": "geheim"})
        (source,) = addressed(pages, parse_origins("http://a:1"), dict)
        assert source.password == "geheim"


def test_a_function_has_no_page(tmp_path: Path) -> None:
    function = tmp_path / "model.py"
    function.write_text("def query_model(prompt, max_resp_tokens):\n    return 'x'\n")
    given = {"protocol": "custom", "query_model": str(function), "server_metrics": "target"}
    with pytest.raises(OptionError, match="no page of metrics"):
        parse(given)


def test_a_source_mistyped_on_the_page_refuses_the_start_and_can_be_mended(
    quick_simulator: Running, tmp_path: Path
) -> None:
    with locust(tmp_path, "--host", quick_simulator.url, "--web-port", free_port()) as run:
        page = Page(run)
        page.swarm(1, hardware="gpu1")
        run.until(lambda: any("--hardware" in said["msg"] for said in page.get("/exceptions")["exceptions"]))
        run.until(lambda: page.state() in ("stopped", "ready"))
        assert not run.run_dir.exists()
        page.swarm(1, hardware="", server_metrics="target")
        run.until(lambda: rows_in(run.run_dir) > 3)
        page.stop()
        run.until(lambda: finished(run.run_dir))
        assert scraped(run.run_dir, SERVER_METRICS)
        run.interrupt()
        assert run.wait() == 0
    assert "Traceback" not in run.output


def test_a_header_that_only_the_workers_know_is_missed_before_the_load(
    quick_simulator: Running, tmp_path: Path
) -> None:
    options = ("--header", "X-Team: $TEAM", "--server-metrics", "target", "-u", "1")
    with headless_swarm(tmp_path, 1, quick_simulator.url, *options) as run:
        run.wait(exit_code=2)
    assert "no variable TEAM" in run.master.output
    assert "Traceback" not in run.output
    assert not run.run_dir.exists()


class Echo(http.server.BaseHTTPRequestHandler):
    """Tells what it was sent: at first in a refusal, then on a page of metrics."""

    asked: int

    def do_GET(self) -> None:
        type(self).asked += self.path == "/metrics"
        key = self.headers["Authorization"].rpartition(" ")[2]
        body = f'key{{value="{key}"}} 1\n'.encode()
        self.send_response(401 if self.asked <= 1 else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def echo() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Echo,), {"asked": 0}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_a_server_that_tells_the_key_brings_it_into_no_file(tmp_path: Path) -> None:
    with echo() as url:
        options = ("-u", "1", "-t", "2s", "--no-check", "--model", "m", "--server-metrics", "target")
        run = headless(tmp_path, url, *options, env={"LLM_API_KEY": "geheim-2718"}, exit_code=1)  # it knows no POST
    assert "HTTP 401" in run.json("run.json")["problems"][0]
    assert "key" in {row["metric"] for row in scraped(run.run_dir, SERVER_METRICS)}
    assert "geheim-2718" not in run.output
    for path in run.run_dir.iterdir():
        assert b"geheim-2718" not in path.read_bytes(), path.name


@pytest.mark.slow
def test_what_came_after_the_end_is_counted_in_a_run_that_was_refused(quick_simulator: Running, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with headless_swarm(tmp_path, 1, nobody, "-u", "1", "--server-metrics", quick_simulator.url) as run:
        run.wait(exit_code=2)
    (state,) = run.manifest["scraped"]
    assert state["lines"] == len(scraped(run.run_dir, SERVER_METRICS)) > 0


@pytest.mark.slow
def test_a_run_directory_that_goes_away_is_told_without_a_traceback(quick_simulator: Running, tmp_path: Path) -> None:
    options = ("--headless", "--host", quick_simulator.url, "-u", "1", "--server-metrics", "target")
    with locust(tmp_path, *options) as run:
        run.until(lambda: rows_in(run.run_dir) > 3)
        run.run_dir.rename(tmp_path / "elsewhere")
        run.interrupt()
        run.wait()
    assert f"{SERVER_METRICS} cannot be written" in run.output
    assert "Traceback" not in run.output


@pytest.mark.slow
@pytest.mark.parametrize("instead", ["import time; time.sleep(60)", "raise SystemExit(3)"])
def test_an_exporter_of_ours_that_does_not_come_up_keeps_nobody_waiting(
    quick_simulator: Running, tmp_path: Path, instead: str
) -> None:
    shadow = tmp_path / "metrics_exporter"  # Python looks in the folder that it is started in first
    shadow.mkdir()
    (shadow / "__init__.py").touch()
    (shadow / "__main__.py").write_text(f"import os\nopen('pid', 'w').write(str(os.getpid()))\n{instead}\n")
    sources = ("--hardware", "local", "--server-metrics", "target")
    with locust(tmp_path, "--headless", "--host", quick_simulator.url, "-u", "1", *sources) as run:
        pages = run.run_dir / SERVER_METRICS
        run.until(lambda: pages.exists() and scraped(run.run_dir, SERVER_METRICS))
        run.until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        run.interrupt()
        assert run.wait() == 0
    assert "the exporter for this machine did not start" in run.output
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists(), "it has ended with the run"
