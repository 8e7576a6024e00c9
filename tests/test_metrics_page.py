"""The load's own page for Prometheus, on the real Locust's web page, against the rows of the run directory."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import msgspec
import pytest
import requests
from exporter_process import Page as MetricsPage
from hdrh.histogram import HdrHistogram
from locust_process import locust, read_rows
from prometheus_process import check_metrics
from pytest import approx
from simulator_process import Running, simulator
from swarm_process import free_port, swarm
from test_web_ui import Page, finished, rows_in

from tokenswarm import histogram
from tokenswarm.record import csv_header
from tokenswarm.recording.counts import LONG_BOUNDS, Counts, Durations
from tokenswarm.recording.directory import INTERVALS, REQUESTS

MODEL = 'a "quoted\\" <model>'


def scraped(page: Page) -> MetricsPage:
    answer = requests.get(f"{page.url}/metrics", timeout=30)
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return MetricsPage(answer.text)


def numbers(rows: list[dict[str, str]], column: str) -> list[float]:
    return [float(row[column]) for row in rows if row[column]]


@pytest.mark.slow
def test_counters_run_on_over_the_runs_and_agree_with_their_rows(tmp_path: Path) -> None:
    faults = ("--fault", "truncate:0.2", "--fault", "status:0.2")
    with (
        simulator(tmp_path, "--model", MODEL, "--output-tokens", "20") as good,
        simulator(tmp_path, "--model", MODEL, "--output-tokens", "20", *faults) as bad,
        locust(tmp_path, "--host", good.url, "--web-port", free_port()) as run,
    ):
        page = Page(run)
        idle = scraped(page)
        assert idle.one("tokenswarm_up") == 1
        assert idle.one("tokenswarm_requests_total", status="ok") == 0
        assert idle.all("tokenswarm_run_info") == []

        page.swarm(5)
        run.until(lambda: scraped(page).one("tokenswarm_requests_total", status="ok") > 20)
        during = scraped(page)
        assert during.one("tokenswarm_run_active") == 1
        assert during.one("tokenswarm_users_asked") == during.one("tokenswarm_users_running") == 5
        assert 0 < during.one("tokenswarm_requests_in_flight") <= 5
        about = {"run": "run", "target": good.url, "model": MODEL, "protocol": "openai-chat", "simulator": "no"}
        assert during.labels("tokenswarm_run_info") == [about]
        page.stop()
        run.until(lambda: finished(run.run_dir))

        page.swarm(5, host=bad.url)
        second = run.folder / "run-2"
        run.until(lambda: rows_in(second) > 50)
        page.stop()
        run.until(lambda: finished(second))
        told = scraped(page)
        assert told.one("tokenswarm_run_active") == told.one("tokenswarm_users_asked") == 0
        assert told.labels("tokenswarm_run_info")[0]["run"] == "run-2"

    assert check_metrics(told.text) == ""
    assert told.one("tokenswarm_unreadable_lines_total") == 0
    rows = read_rows(run.run_dir) + read_rows(second)
    for column, name in (("status", "requests"), ("error_class", "errors")):
        label = {"requests": "status", "errors": "class"}[name]
        found = {value for row in rows if (value := row[column])}
        for value in found:
            count = sum(row[column] == value for row in rows)
            assert told.one(f"tokenswarm_{name}_total", **{label: value}) == count, value
        assert sum(told.all(f"tokenswarm_{name}_total")) == sum(bool(row[column]) for row in rows)
    assert {"http_5xx", "truncated"} <= {row["error_class"] for row in rows}
    assert told.one("tokenswarm_output_tokens_total") == approx(sum(numbers(rows, "output_tokens")), abs=0.1)
    assert told.one("tokenswarm_input_tokens_total") == sum(numbers(rows, "input_tokens"))
    assert told.one("tokenswarm_chunks_total") == sum(numbers(rows, "chunks"))

    ok = [row for row in rows if row["status"] == "ok"]
    for name, of, slack in (("tpot", ok, 0.0), ("e2e", ok, 0.0), ("ttft", rows, 0.01)):
        seconds = [value / 1000 for value in numbers(of, f"{name}_ms")]
        assert told.one(f"tokenswarm_{name}_seconds_count") == len(seconds)
        assert told.one(f"tokenswarm_{name}_seconds_sum") == approx(sum(seconds), rel=0.005)
        for labels in told.labels(f"tokenswarm_{name}_seconds_bucket"):
            bound, count = float(labels["le"]), told.one(f"tokenswarm_{name}_seconds_bucket", le=labels["le"])
            least, most = (sum(value <= bound * (1 + way * slack) for value in seconds) for way in (-1, 1))
            assert least <= count <= most, (name, bound)
    # Chunks that were read late and together have no gap.
    assert 0 < told.one("tokenswarm_itl_seconds_count") <= sum(max(0, int(row["chunks"]) - 1) for row in rows)
    lines = [json.loads(line) for path in (run.run_dir, second) for line in (path / INTERVALS).open()]
    merged = histogram.merge(line["itl"] for line in lines)
    assert told.one("tokenswarm_itl_seconds_count") == merged.get_total_count()
    total = merged.get_mean_value() * merged.get_total_count() / 1e6
    assert told.one("tokenswarm_itl_seconds_sum") == approx(total, rel=0.001)


@pytest.mark.slow
def test_the_master_tells_of_all_its_workers(tmp_path: Path, quick_simulator: Running) -> None:
    with swarm(tmp_path, 2, "--host", quick_simulator.url, "--web-port", free_port()) as run:
        page = Page(run.master)
        run.until(lambda: scraped(page).one("tokenswarm_workers", state="ready") == 2)
        page.swarm(4)
        run.until(lambda: scraped(page).one("tokenswarm_workers", state="running") == 2)
        run.until(lambda: scraped(page).one("tokenswarm_users_running") == 4)
        run.until(lambda: rows_in(run.run_dir) > 20)
        page.stop()
        run.until(lambda: finished(run.run_dir))
        told = scraped(page)
    assert told.one("tokenswarm_requests_total", status="ok") == len(run.rows())
    assert told.one("tokenswarm_chunks_total") == sum(numbers(run.rows(), "chunks"))
    assert sum(told.all("tokenswarm_workers")) == 2
    assert check_metrics(told.text) == ""


def test_the_page_is_behind_locusts_login(tmp_path: Path, quick_simulator: Running) -> None:
    with locust(tmp_path, "--host", quick_simulator.url, "--web-port", free_port(), "--web-login") as run:
        found = run.until(lambda: re.search(r"Starting web interface at (\S+?),", run.output))

        def asked() -> str | None:
            try:
                return requests.get(f"{found[1]}/metrics", timeout=10).text
            except requests.ConnectionError:
                return None

        assert "tokenswarm_" not in run.until(asked)


# What is added up


def line(**changed: object) -> bytes:
    """Of intervals.jsonl: one request that was ok, with a TTFT of 20 ms, two gaps of 10 ms and three tokens."""
    whole = {
        "ended": {"ok": 1},
        "errors": {},
        "chunks": 3,
        "tokens": [[1700000000, 1.5], [1700000001, 1.5]],
        "input_tokens": [[1700000000, 7]],
        "ttft": histogram.encode_ns([20_000_000]),
        "itl": histogram.encode_ns([10_000_000] * 2),
    }
    return msgspec.json.encode(whole | changed) + b"\n"


def counted(folder: Path, *lines: bytes) -> Counts:
    (folder / INTERVALS).write_bytes(b"".join(lines))
    counts = Counts()
    counts.follow(folder)
    counts.catch_up()
    return counts


def test_only_what_is_new_is_counted_and_a_line_only_when_it_is_whole(tmp_path: Path) -> None:
    counts = counted(tmp_path, line(), line()[:40])
    assert (counts.requests["ok"], counts.chunks, counts.output_tokens, counts.input_tokens) == (1, 3, 3.0, 7)
    counts.catch_up()
    assert counts.requests["ok"] == 1
    with (tmp_path / INTERVALS).open("ab") as file:
        file.write(line()[40:])
    counts.catch_up()
    assert (counts.requests["ok"], counts.chunks) == (2, 6)
    assert counts.ttft.cumulative()[-1] == 2
    assert counts.itl.cumulative()[-1] == 4
    assert counts.itl.sum == approx(0.04, rel=0.005)
    assert counts.unreadable == 0


def test_names_that_a_worker_made_up_are_one_label(tmp_path: Path) -> None:
    counts = counted(tmp_path, *(line(ended={f"s{n}": 1}, errors={f"e{n}": 1}) for n in range(50)))
    assert counts.requests["other"] == counts.errors["other"] == 50
    assert len(counts.requests) < 10
    assert len(counts.errors) < 20


@pytest.mark.parametrize(
    "bad",
    [
        b"not json\n",
        b"[]\n",
        line(chunks=-1),
        line(ttft="not a histogram"),
        line(itl="A" * 1_000_000),
        line(itl=HdrHistogram(1, 2**40, 5).encode().decode()),
        line(tokens=[[0, -1]]),
        line(ended={"ok": "many"}),
        b"\xff\xfe\n",
    ],
)
def test_a_line_that_cannot_be_is_told_and_changes_nothing_else(tmp_path: Path, bad: bytes) -> None:
    counts = counted(tmp_path, line(), bad, line())
    assert counts.unreadable == 1
    assert (counts.requests["ok"], counts.chunks, counts.ttft.cumulative()[-1], counts.itl.cumulative()[-1]) == (
        2, 6, 2, 4,
    )  # fmt: skip


def test_a_row_that_cannot_be_is_told(tmp_path: Path) -> None:
    columns = csv_header().strip().split(",")
    good = dict.fromkeys(columns, "") | {"status": "ok", "tpot_ms": "10.000", "e2e_ms": "250.000", "error": 'a, "b"'}
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    bad = [good | {"e2e_ms": cell} for cell in ("soon", "nan", "inf", "-1")]
    writer.writerows([good, good | {"status": "failed"}, *bad, good | {"tpot_ms": ""}])
    (tmp_path / REQUESTS).write_text(text.getvalue() + "too,short\n")
    counts = counted(tmp_path)
    assert (counts.tpot.cumulative()[-1], counts.e2e.sum, counts.unreadable) == (1, 0.5, 5)


def test_a_run_whose_directory_is_gone_has_counted(tmp_path: Path) -> None:
    counts = counted(tmp_path, line())
    (tmp_path / INTERVALS).unlink()
    counts.catch_up()
    assert counts.requests["ok"] == 1


def test_a_duration_on_a_bound_is_below_it() -> None:
    durations = Durations(LONG_BOUNDS)
    for seconds in (0.005, 0.0051, 300.0, 301.0):
        durations.add(seconds)
    cumulative = durations.cumulative()
    assert (cumulative[0], cumulative[1], cumulative[-2], cumulative[-1]) == (1, 2, 3, 4)


def test_what_is_recorded_comes_back_with_its_counts() -> None:
    one = histogram.merge([histogram.encode_ns([1_000_000] * 3 + [2_000_000_000])])
    values, counts = histogram.recorded(one)
    assert counts.tolist() == [3, 1]
    assert values.tolist() == [approx(1_000, rel=0.005), approx(2_000_000, rel=0.005)]
