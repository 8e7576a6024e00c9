"""The report in Chinese, of a run with much in it: nothing of what a reader sees is left in English."""

from __future__ import annotations

import html.parser
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import run_directory_maker as maker

from tokenswarm.results import phases, read, report, summarise
from tokenswarm.results.language import LANGUAGES
from tokenswarm.results.report import contents
from tokenswarm.results.report.definitions import DEFINITIONS, linked
from tokenswarm.results.report.material import Material

NAMES = frozenset(
    re.findall(
        r"\S+",
        """
        TTFT TPOT ITL SLO GPU CPU SM DRAM KV HTTP TCP DNS TLS NTP UTC GC PCIe NVML Tensor Core Python Unicode URL
        ms min GB GiB MHz kWh token tokens tokenizer usage worker master trace goodput tokenswarm locustfile Locust
        vLLM SGLang AIPerf GuideLLM TTFO ICL E2EL request latency throughput output total input type ok due failed
        timeout cancelled incomplete shed valid degraded invalid closed coordinated omission concurrency ignore_eos
        wait_time traceback pool dns tcp tls send ttft_due_ms tcp_mem cpu max ulimit taskset Ctrl-C chat template fast
        gevent num_requests_running num_requests_waiting X-Request-Id
        kv_cache_usage_perc token_usage prefix cache hit rate power_watts Theil-Sen
        """,
    )
)
"""What Chinese engineers call so, too: names of figures, units, columns and tools."""
DATA = re.compile(
    r"http_5xx|total_timeout|ChatUser|gpu1|GPU-1|client-1|a-model|openai-chat|Linux|short|long|\br\d+|server:8000"
)
"""Of the run itself."""
WORD = re.compile(r"(?<![A-Za-z0-9_])[A-Za-z][A-Za-z0-9_'.-]+")
NO_WORDS = re.compile(
    r"--[a-z-]+|[\w-]+\.(?:json|csv|jsonl)|net\.\S+|\w+[=<]\S+|TCP\w+|https?://\S+|[a-z]+ \d+\.\d+|p\d[\d.]*", re.ASCII
)
"""Options, files, goals, the kernel's counters, addresses, versions, percentiles."""


class Words(html.parser.HTMLParser):
    """What a reader sees or hears of a page, what stands in its charts too; code, options and paths are data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self._inside: list[str] = []
        self._kind = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.seen += [found[name] or "" for name in ("title", "aria-label") if name in found]
        self.links += [found["href"] or ""] if "href" in found else []
        self.ids += [found["id"] or ""] if "id" in found else []
        if tag in ("code", "script", "style"):
            self._inside.append(tag)
            self._kind = found.get("type") or ""

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.seen.append(data)
        elif self._inside == ["script"] and self._kind == "application/json":
            self.seen += list(texts(json.loads(data)))


def texts(chart: Any) -> Iterator[str]:
    """What a chart says: names, titles, labels, and what it shows where one points at it."""
    if isinstance(chart, dict):
        for name, value in chart.items():
            if name in ("text", "name", "hovertemplate", "hovertext", "ticktext") and isinstance(value, str | list):
                said = [value] if isinstance(value, str) else [each for each in value if isinstance(each, str)]
                yield from (line for each in said for line in each.split("<br>"))
            yield from texts(value)
    elif isinstance(chart, list):
        for each in chart:
            yield from texts(each)


def rich(directory: Path, steps: bool = True) -> Path:
    """Goals, errors, stalls, turns, hardware, a server's page, a lost worker, a client that was late, and steps or one
    window that is long enough for energy: all that sections tell of."""
    events = (("start", 0, 0), ("target", 0, 4), ("spawned", 1, 4), ("target", 28, 8), ("spawned", 29, 8))
    events += (("target", 52, 3), ("spawned", 53, 3), ("stopping", 58, 3), ("stopped", 60, 0))
    if not steps:
        events = (("start", 0, 0), ("target", 0, 4), ("spawned", 1, 4), ("stopping", 58, 4), ("stopped", 60, 0))
    bounds = [{"event": event, "time": maker.T0 + at, "users": users} for event, at, users in events]
    records = maker.closed_loop(users=4, seconds=60, ttfts=(0.1, 0.12, 0.2))
    for index, record in enumerate(records):
        record.queue_ms, record.ttfo_ms = 3.0 + index % 3, (record.ttft_ms or 0) + 50
        record.asked_output_tokens, record.cached_tokens, record.turn = 40, 30, index % 3 + 1
        record.asked_input_tokens, record.prefix_tokens = 90, 20
        record.name = ("short", "long")[index % 2]
        record.itl_p50_ms, record.itl_max_ms = 40.0, 3000.0 if index % 50 < 6 else 45.0
        record.conversation, record.conn_reused = "c", "true"
    records += [maker.failed(i, 20 + i / 10, 1.0, "http_5xx", "503 服务器忙") for i in range(900, 920)]
    records += [maker.failed(i, 30.0, 2.0, "total_timeout", "超时", status="timeout") for i in range(920, 930)]
    options = {"slo": "ttft_p95<150ms error_rate<1%", "goodput": "ttft<150ms tpot<50ms", "request_timeout": 300.0}
    workers = [
        {"index": 0, "hostname": "client-1", "pid": 7, "status": "finished", "rows": 1200, "clock_offset_ms": -370.25},
        {"index": 1, "hostname": "client-1", "pid": 8, "status": "lost", "rows": 3, "in_flight": 17},
    ]
    maker.write(
        directory, records, bounds, 4, options=options, workers=workers, ended_by="signal", run_id="chat",
        user_exceptions=[{"count": 2, "message": "出错"}], rows={"written": len(records), "lost": 2},
        health=lambda worker, second: {"ring_full_ms": 5.0, "tcp_trouble": {"TCPRcvCollapsed": 3}, "cpu_percent": 99.0,
                                       "loop_cpu_percent": 97.0, "loop_lag_ms": 1500.0, "clock_jump_ms": 2.0},
    )  # fmt: skip
    metrics = {"utilization_ratio": 0.8, "power_watts": 300, "temperature_celsius": 60, "memory_used_bytes": 2e10}
    server = {"running": 4, "waiting": 1}
    lines, pages = ["time,host,device,metric,value,mean,max"], ["time,source,metric,labels,value"]
    for second in range(0, 60):
        metrics["energy_joules_total"] = 1e6 + 300 * second
        lines += [f"{maker.T0 + second},gpu1,GPU-1,{name},{value},," for name, value in metrics.items()]
        told = {"up": 1, **{f"vllm:num_requests_{name}": value for name, value in server.items()}}
        told |= {"vllm:kv_cache_usage_perc": 0.4, "vllm:generation_tokens_total": 90 * second}
        told |= {"vllm:prompt_tokens_total": 800 * second, "vllm:num_preemptions_total": second}
        pages += [f"{maker.T0 + second},http://server:8000/metrics,{name},,{value}" for name, value in told.items()]
    (directory / "server_metrics.csv").write_text("\n".join([*pages, ""]))
    (directory / "hardware.csv").write_text("\n".join([*lines, "damaged", ""]))
    return directory


@pytest.fixture(scope="module", params=[True, False], ids=["steps", "one window"])
def page(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> str:
    run = read.load(rich(tmp_path_factory.mktemp("chinese") / "run", steps=request.param))
    return report.render(run, summarise.summarise(run), LANGUAGES["zh"])


def test_no_english_is_left(page: str) -> None:
    assert '<html lang="zh">' in page
    left = {}
    for text in Words(page).seen:
        words = (word.rstrip(".'-") for word in WORD.findall(NO_WORDS.sub("", DATA.sub("", text))))
        if unknown := [word for word in words if word not in NAMES]:
            left[text[:80]] = unknown
    assert not left


def test_every_link_leads_somewhere(page: str) -> None:
    found = Words(page)
    assert {link.removeprefix("#") for link in found.links} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))


@pytest.mark.parametrize("name", LANGUAGES)
def test_each_definition_is_one_click_away_from_the_table_that_has_the_figure(name: str, tmp_path: Path) -> None:
    run = read.load(rich(tmp_path / "run"))
    say = LANGUAGES[name]
    text = report.render(run, summarise.summarise(run), say)
    for each in DEFINITIONS:
        assert f'id="def-{each.anchor}"' in text
    for anchor in ("ttft", "tpot", "itl", "e2e", "ttfo", "late"):
        assert re.search(rf'<th scope="row"><a class="term" href="#def-{anchor}">', text), anchor
    for place in (r"<figcaption>[^<]*", r'<div class="name">'):
        assert re.search(place + '<a class="term" href="#def-ttft">TTFT</a>', text), place


@pytest.mark.parametrize("name", LANGUAGES)
def test_nothing_of_what_was_run_is_taken_for_the_name_of_a_figure(name: str, tmp_path: Path) -> None:
    """Chinese has no spaces between words: the name of a figure may stand inside another word."""
    run, say = read.load(rich(tmp_path / "run")), LANGUAGES[name]
    facts = contents.details(Material(run, phases.find(run), summarise.summarise(run), say))
    assert "<dt>" in facts and linked(facts, say) == facts


def test_the_run_end_and_the_command_line_choose_the_language(tmp_path: Path) -> None:
    directory = maker.write(tmp_path, maker.closed_loop(users=2), options={"lang": "zh"})
    for asked, begin in ((None, '<html lang="zh">'), ("en", '<html lang="en">')):
        written = report.write(directory, language=asked)
        assert written.report is not None
        assert begin in written.report.read_text("utf-8")[:200]
