"""The report's requests one by one, stalls, slowest, workers, classes and turns: what is drawn and said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import run_directory_maker as maker
from pytest import approx
from test_results_report import Elements
from test_results_stalls import replies, with_gaps

from tokenswarm import histogram
from tokenswarm.results import console, phases, read, summarise
from tokenswarm.results.charts import spreads, stalls, timeline
from tokenswarm.results.language import ENGLISH
from tokenswarm.results.report import contents
from tokenswarm.results.report.material import Material

OURS = (contents.stand_out, contents.user_classes, contents.by_worker, contents.turns, contents.errors,
        contents.timeline, contents.stalls, contents.slowest)  # fmt: skip


def rendered(folder: Path, records: list[maker.Record], **settings: Any) -> tuple[Elements, dict[str, Any]]:
    """Our sections, and their charts by name."""
    directory = maker.write(folder, records, maker.boundaries(2, 0, 60, 60), **settings)
    run = read.load(directory)
    material = Material(run, phases.find(run), summarise.summarise(run))
    text = "".join(section(material) for section in OURS)
    data = re.findall(r'<script type="application/json" id="chart-(.*?)">(.*?)</script>', text)
    return Elements(text), {name: json.loads(chart) for name, chart in data}


def rows(tmp_path: Path, records: list[maker.Record]) -> pd.DataFrame:
    return read.load(maker.write(tmp_path, records)).rows


def named(chart: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [trace for trace in chart["data"] if trace["name"] == name]
    return found  # type: ignore[no-any-return]


# The sample


def test_a_sample_is_every_request_that_started_near_the_moment(tmp_path: Path) -> None:
    table = rows(tmp_path, [maker.request(n, n / 10, 0.1, 0.5) for n in range(600)])
    found = timeline.sample(table, maker.T0 + 30)
    assert found is not None
    assert found.rows["id"].tolist() == [f"r{n}" for n in range(275, 326)], "2.5 s to either side, and nobody left out"
    assert (found.start, found.end) == (maker.T0 + 27.5, maker.T0 + 32.5)


def test_of_many_the_nearest_are_taken_whatever_became_of_them(tmp_path: Path) -> None:
    records = [maker.request(n, n / 500, 0.1, 0.5, status="failed" if n % 2 else "ok") for n in range(3000)]
    found = timeline.sample(rows(tmp_path, records), maker.T0 + 3)
    assert found is not None
    numbers = [int(name[1:]) for name in found.rows["id"]]
    assert numbers == list(range(numbers[0], numbers[0] + timeline.MOST)), "one after another"
    assert abs(numbers[0] + timeline.MOST / 2 - 1500) <= 1


def test_a_sample_of_slow_requests_is_longer(tmp_path: Path) -> None:
    table = rows(tmp_path, [maker.request(n, float(n), 0.1, 20.0) for n in range(60)])
    found = timeline.sample(table, maker.T0 + 30)
    assert found is not None
    assert found.end - found.start == 30, "one and a half times what a request takes"


def test_nothing_is_drawn_where_nothing_started(tmp_path: Path) -> None:
    text, charts = rendered(tmp_path, [])
    assert charts == {}
    assert "Requests one by one" not in text.text


# The bars


def drawn(tmp_path: Path, records: list[maker.Record], **stalls: tuple[float, float]) -> dict[str, Any]:
    found = timeline.sample(rows(tmp_path, records), maker.T0 + 30)
    assert found is not None
    return timeline.chart(found, maker.T0, stalls, None, ENGLISH)


def test_the_parts_of_a_bar_by_hand(tmp_path: Path) -> None:
    """Due at 29.9 s, begun at 30, connected by 30.3, sent by 30.4, first token at 31, last at 33, over at 33.5."""
    record = maker.request(
        1, 30.0, 1.0, 3.5, queue_ms=100.0, pool_ms=50.0, dns_ms=50.0, tcp_ms=100.0, tls_ms=100.0, send_ms=100.0,
        last_token_ms=3000.0,
    )  # fmt: skip
    chart = drawn(tmp_path, [record], r1=(32.0, 32.8))
    parts = {trace["name"]: (trace["base"][0], trace["x"][0]) for trace in chart["data"] if "base" in trace}
    assert parts == {
        "client late": approx((29.9, 0.1)),
        "connecting": approx((30.0, 0.3)),
        "sending": approx((30.3, 0.1)),
        "waiting for the first token": approx((30.4, 0.6)),
        "tokens": approx((31.0, 2.0)),
        "to the end": approx((33.0, 0.5)),
        "stood still": approx((32.0, 0.8)),
        "": approx((29.9, 3.6)),
    }
    (text,) = chart["data"][-1]["hovertext"]
    for said in ("r1<br>", "ChatUser", "started at 30.000 s", "100 tokens in, 11 out", "TTFT 1,000 ms"):
        assert said in text


def test_a_request_without_a_token_waits_to_its_end_and_is_marked(tmp_path: Path) -> None:
    chart = drawn(tmp_path, [maker.failed(1, 30.0, 2.0, "http_5xx", "no")])
    assert "tokens" not in {trace["name"] for trace in chart["data"]}
    assert named(chart, "waiting for the first token")["x"] == [approx(2.0, abs=1e-3)]
    (mark,) = named(chart, "failed or timed out")["x"]
    assert 31.9 < mark < 32.0, "at its end, inside its own bar"
    assert chart["data"][-1]["marker"]["line"]["width"] == 1, "two in one line are told apart"


def test_no_two_requests_of_a_line_overlap_and_no_line_is_wasted(tmp_path: Path) -> None:
    spans = [(28.0, 3.0), (28.5, 1.0), (29.0, 4.0), (29.5, 0.5), (30.0, 2.0), (31.0, 1.0), (31.5, 1.0)]
    chart = drawn(tmp_path, [maker.request(n, start, 0.1, e2e, queue_ms=0.0) for n, (start, e2e) in enumerate(spans)])
    whole = chart["data"][-1]
    assert whole["y"] == [0, 1, 2, 1, 1, 0, 3]
    assert max(whole["y"]) + 1 == 4, "at most four are at once"


def test_what_a_server_says_is_text_to_whoever_points_at_it(tmp_path: Path) -> None:
    evil = '<a href="https://evil">x</a>&lt;b&gt;'
    chart = drawn(tmp_path, [maker.request(1, 30.0, 0.1, 1.0, name=evil, user_class=evil, id=evil)])
    (text,) = chart["data"][-1]["hovertext"]
    assert not re.search("<(?!br>)", text)
    assert "&lt;a href=" in text and "&amp;lt;b" in text


# What is said


def test_the_second_picture_is_around_the_worst_and_marks_it(tmp_path: Path) -> None:
    records = [maker.request(n, n / 2, 0.1 if n != 100 else 0.4, 0.5) for n in range(118)]
    text, charts = rendered(tmp_path, records)
    assert "around the highest TTFT, 400 ms" in text.text
    assert named(charts["timeline-worst"], "the one that this is about")["x"] == [approx(50, abs=1e-3)]
    assert "the one that this is about" not in {trace["name"] for trace in charts["timeline"]["data"]}


def test_a_pause_of_the_server_is_told_and_drawn(tmp_path: Path) -> None:
    records = with_gaps(replies([16, 16.5, 17, 16, 16.5, 17, 40, 41]), 1500, range(6))

    def line(worker: int, second: int) -> dict[str, Any]:
        return {"itl": histogram.encode_ns([1_500_000_000])} if second == 19 else {}

    text, charts = rendered(tmp_path, records, health=line)
    assert "6 of 8 streamed replies stood still (75.0 %), for 1.50 s at most: r0." in text.text
    assert "Up to 19.5 s (13:40:19 UTC), 6 of 6 replies in progress stood still for 1.50 s" in text.text
    assert "At least half of all replies at once: the server paused" in text.text
    bars = [trace for trace in charts["stalls"]["data"] if trace["type"] == "bar"]
    assert [(bar["name"], sum(bar["y"]), bar["y"][19]) for bar in bars] == [("worker 0", 3, 3), ("worker 1", 3, 3)]
    assert "around the longest stall, 1.50 s" in text.text
    still = named(charts["timeline-worst"], "stood still")
    assert (still["base"], still["x"]) == (approx([18.0] * 6, abs=1e-3), approx([1.5] * 6))


def test_what_stands_out_is_told_before_everything_else(tmp_path: Path) -> None:
    def line(worker: int, second: int) -> dict[str, Any]:
        return {"itl": histogram.encode_ns([1_500_000_000])} if second == 19 else {}

    records = with_gaps(replies([16, 16.5, 17, 16, 16.5, 17, 40, 41]), 1500, range(6))
    text, _ = rendered(tmp_path, records, health=line)
    told = "6 of 6 replies in progress stood still for 1.50 s"
    assert text.text.index("What stands out") < text.text.index(told)
    assert text.text.count(told) == 2, "there, and in its own section"
    assert contents.SECTIONS.index(contents.stand_out) == len(contents.FIRST_SCREEN)
    written = console.table(summarise.summarise(read.load(tmp_path)))
    assert "Stands out: Up to 19.5 s" in written


def test_a_queue_short_replies_and_a_slow_client_stand_out(tmp_path: Path) -> None:
    run = read.load(maker.write(tmp_path, maker.closed_loop(users=2)))
    summary = summarise.summarise(run)
    summary["server"] = {"all": {"waiting": {"mean": 7.51}}}
    summary["tokens"]["asked"] = {"asked_mean": 200.0, "actual_mean": 20.0, "actual_share": 0.1}
    summary["slowest"]["ttft_ms"] = [{"suspect": "client"}] * 3 + [{"suspect": "server"}] * 7
    markup = contents.stand_out(Material(run, phases.find(run), summary))
    assert re.findall(r'href="#([\w-]+)"', markup) == ["server", "throughput", "slowest"]
    text = Elements(markup).text
    assert "7.51 requests waited" in text and "200 asked, 20.0 given" in text and "3 of the 10 slowest" in text


def test_nothing_stands_out_of_a_quiet_run(tmp_path: Path) -> None:
    text, _ = rendered(tmp_path, replies([16, 24, 32]))
    assert "What stands out" not in text.text


def test_each_worker_with_stalls_has_a_colour_of_its_own_or_is_one_of_the_others(tmp_path: Path) -> None:
    of_workers = [*range(12), *range(7)]  # the first seven have two each
    ends = {"from_s": 20.0, "to_s": 20.5, "at_s": 20.2, "gap_ms": 1500.0}
    each = [{"worker": worker, "id": f"r{index}", **ends} for index, worker in enumerate(of_workers)]
    run = read.load(maker.write(tmp_path, maker.closed_loop(users=1)))
    chart = stalls.over_time(each, phases.find(run), ENGLISH)
    assert chart is not None
    bars = [trace for trace in chart["data"] if trace["type"] == "bar"]
    named = [f"worker {worker}" for worker in range(7)]
    assert [(bar["name"], sum(bar["y"])) for bar in bars] == [*((name, 2) for name in named), ("other workers", 5)]
    assert len({bar["marker"]["color"] for bar in bars}) == 8


def test_no_stall_is_one_sentence_and_no_chart(tmp_path: Path) -> None:
    text, charts = rendered(tmp_path, replies([16, 24, 32]))
    assert "No reply that went on had stood still. The longest gap was 0.045 s, of r0." in text.text
    assert "stalls" not in charts


def test_server_or_client_is_said_before_the_tables_and_in_each_row(tmp_path: Path) -> None:
    records = [maker.request(n, n / 2, 0.1, 0.5) for n in range(100)]
    records += [maker.request(200, 40.2, 0.9, 1.3), maker.request(201, 41.2, 0.8, 1.2, ttft_low_ms=100.0)]
    text, _ = rendered(tmp_path, records)
    shown = text.text[text.text.index("The slowest requests") :]
    assert "By TTFT suspect: server × 1, client × 1" in shown
    assert re.search(r"9009\.00server40\.2013:40:40\.200", shown), "900 ms, nine times the median"
    assert re.search(r"8008\.00client41\.2013:40:41\.200", shown)
    assert "r200" in shown and "r201" in shown


def test_a_clock_that_is_right_has_no_sign(tmp_path: Path) -> None:
    known = [
        {"index": n, "clock_offset_ms": off, "clock_uncertainty_ms": 0.8} for n, off in enumerate((-0.04, -1.2, 3))
    ]
    run = read.load(maker.write(tmp_path, maker.closed_loop(users=2), workers=known))
    text = Elements(contents.workers(Material(run, phases.find(run), summarise.summarise(run)))).text
    assert "0.0 ± 0.8" in text and "-0.0" not in text
    assert "-1.2 ± 0.8" in text and "+3.0 ± 0.8" in text


def test_a_worker_that_stands_out_is_told_with_its_host(tmp_path: Path) -> None:
    def slower(record: maker.Record, index: int) -> None:
        if record.worker == 1:
            record.ttft_ms = (record.ttft_ms or 0) * 2

    workers = [{"index": n, "hostname": f"client-{n}", "pid": n, "status": "finished"} for n in range(2)]
    records = maker.closed_loop(users=4, seconds=60, change=slower)
    text, _ = rendered(tmp_path, records, workers=workers)
    said = "Worker 1 (client-1): median TTFT 200 ms, 100 ms on the others (+100 %), of 200 requests."
    assert said in text.text


def test_workers_that_are_alike_are_said_to_be_where_there_is_enough_to_tell(tmp_path: Path) -> None:
    text, _ = rendered(tmp_path / "many", maker.closed_loop(users=4, seconds=60))
    assert "No worker stands out by its median TTFT or TPOT." in text.text
    text, _ = rendered(tmp_path / "few", maker.closed_loop(users=2, seconds=60, e2e=5.0))
    assert "Too few requests of each worker to tell them apart." in text.text


def test_user_classes_and_turns_are_drawn_side_by_side(tmp_path: Path) -> None:
    def kind(record: maker.Record, index: int) -> None:
        record.user_class = "Chat" if index % 3 else "Rag <b>"
        record.conversation, record.turn = "c", 1 + index % 2

    text, charts = rendered(tmp_path, maker.closed_loop(users=4, seconds=60, ttfts=(0.1, 0.2), change=kind))
    ttft = charts["classes"]["data"][0]
    assert ttft["y"] == ["Chat", "Rag &lt;b&gt;"], "the larger one first; plotly takes some markup for its own"
    assert [panel["xaxis"] for panel in charts["classes"]["data"]] == ["x", "x2", "x3"]
    (box,) = charts["turns"]["data"]
    assert (box["y"], box["median"]) == (["turn 1", "turn 2"], [100, 200])
    assert "Conversations by turn" in text.text


def test_the_first_of_an_error_stands_beside_it(tmp_path: Path) -> None:
    wrong = maker.failed(7, 30.0, 1.5, "http_5xx", "no")
    wrong.http_status, wrong.worker = 503, 1
    text, _ = rendered(tmp_path, [*maker.closed_loop(users=2), wrong])
    assert "at 31.50 s (13:40:31.500 UTC), worker 1, HTTP 503f7" in text.text
    assert "X-Request-Id" in text.text


# Kinds beside one another


def values(*counts: int) -> list[tuple[str, list[Any]]]:
    return [(f"kind {index}", [np.arange(count, dtype=float)]) for index, count in enumerate(counts)]


def test_boxes_are_percentiles() -> None:
    chart = spreads.side_by_side(["TTFT"], values(101, 41))
    assert chart is not None
    (box,) = chart["data"]
    found = [box[name][0] for name in ("lowerfence", "q1", "median", "q3", "upperfence")]
    assert found == [5, 25, 50, 75, 95]


@pytest.mark.parametrize("counts", [(), (100,), (100, 19), (3, 4)])
def test_one_kind_alone_or_a_handful_is_not_drawn(counts: tuple[int, ...]) -> None:
    assert spreads.side_by_side(["TTFT"], values(*counts)) is None


def test_the_sections_stay_small_however_long_the_run(tmp_path: Path) -> None:
    def stall(record: maker.Record, index: int) -> None:
        record.itl_max_ms, record.itl_p50_ms, record.name = 1200.0 + index % 7, 40.0, "n" * 200

    directory = maker.write(tmp_path, maker.closed_loop(users=100, seconds=60, change=stall))
    run = read.load(directory)
    summary = summarise.summarise(run)
    material = Material(run, phases.find(run), summary)
    assert (summary["stalls"]["requests"], len(summary["stalls"]["each"])) == (12_000, 1000)
    assert sum(len(section(material)) for section in OURS) < 500_000
