"""How what is asked beside the load is asked, how long it may keep silent, and how often that is told."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import msgspec
import pytest

from tokenswarm.scraping import pulling
from tokenswarm.scraping.asking import Asker, NoAnswer
from tokenswarm.scraping.messages import HARDWARE, SERVER_METRICS, Scraped, Source, State, Task
from tokenswarm.scraping.pulling import Hardware, Puller
from tokenswarm.timing import Anchor

Answer = Callable[[str], tuple[int, bytes]]


@contextmanager
def web(answer: Answer, heard: list[dict[str, str]] | None = None) -> Iterator[str]:
    """A server; `heard` takes the headers of each question."""
    seen = [] if heard is None else heard

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({name: value.encode("latin-1").decode() for name, value in self.headers.items()})
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def task() -> Task:
    return Task(anchor=Anchor(time.time_ns(), time.monotonic_ns()), sources=[])


def without_samples(window_s: float) -> Answer:
    """An exporter that has none yet, and takes one in so many seconds."""
    about = {"host": "gpu1", "instance": 1, "interval_s": 0.2, "window_s": window_s, "next": 0, "dropped": 0}

    def answer(path: str) -> tuple[int, bytes]:
        clock = {"wall_ns": time.time_ns(), "mono_ns": time.monotonic_ns()}
        return 200, json.dumps(clock if path == "/clock" else {**about, "samples": []}).encode()

    return answer


def test_an_exporter_has_stalled_when_windows_have_passed_without_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "STALLED_WINDOWS", 0.01)
    for window_s, stalls in ((1.0, True), (100_000.0, False)):
        with web(without_samples(window_s)) as url:
            source = Source(file=HARDWARE, url=url)
            exporter = Hardware(source, task(), State(file=HARDWARE, url=url))
            time.sleep(0.02)  # longer than a hundredth of a second, shorter than one of a day
            if stalls:
                with pytest.raises(NoAnswer, match="no sample"):
                    exporter.ask()
            else:
                assert exporter.ask() == ""


def test_a_server_that_is_late_every_other_time_does_not_fill_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "PERIOD", 0.001)
    told: list[Scraped] = []
    asked = iter(range(1_000_000))

    def answer(_: str) -> tuple[int, bytes]:
        return (500, b"busy\n") if next(asked) % 2 else (200, b"waiting 1\n")

    over = Event()

    def tell(news: Scraped) -> None:
        told.append(news)
        if len(told) == 40:
            over.set()

    with web(answer) as url:
        Puller(Source(file=SERVER_METRICS, url=f"{url}/metrics"), task(), tell).run(over)
    problems = [news.problem for news in told if news.problem]
    gaps = [text for text in problems if "HTTP 500 busy. It is asked again" in text]
    assert len(gaps) == pulling.MOST_GAPS_TOLD
    assert len(problems) <= 2 * pulling.MOST_GAPS_TOLD
    assert "Further gaps are not told" in gaps[-1]
    assert told[-1].state.failures >= 20
    assert told[-1].state.answers >= 20


def test_names_and_passwords_of_any_script_go_out_as_utf8() -> None:
    heard: list[dict[str, str]] = []
    with web(lambda _: (200, b"waiting 1\n"), heard) as url:
        source = Source(file=SERVER_METRICS, url=url, user="나", password="wort€", headers={"X-Team": "日本"})
        assert Asker(source, task()).ask(url)[0] == b"waiting 1\n"
    assert heard[0]["X-Team"] == "日本"
    assert heard[0]["Authorization"] == "Basic " + base64.b64encode("나:wort€".encode()).decode()


def test_certificates_that_are_not_there_are_no_answer() -> None:
    url = "https://127.0.0.1:1/metrics"
    there = msgspec.structs.replace(task(), ca_bundle="/nowhere/ca.pem")
    with pytest.raises(NoAnswer, match=r"/nowhere/ca\.pem"):
        Asker(Source(file=SERVER_METRICS, url=url), there).ask(url)
