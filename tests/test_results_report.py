"""The console table and the HTML report: what they say, and what they must never let through."""

from __future__ import annotations

import html.parser
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_directory_maker as maker

from tokenswarm.results import console, page, phases, read, report, wording
from tokenswarm.results.__main__ import main
from tokenswarm.results.charts import load as load_chart
from tokenswarm.results.charts.axes import time_bins
from tokenswarm.results.charts.thinning import MOST_OF_A_CHART, extremes_kept, fitting, running_percentiles
from tokenswarm.results.language import ENGLISH

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\x1b]0;title\x07 =cmd 服务器忙"


class Elements(html.parser.HTMLParser):
    """What a browser would build: tags with attributes, and the content of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data


def hostile(tmp_path: Path) -> Path:
    records = maker.closed_loop(users=4, seconds=60, ttfts=(0.1, 0.12, 0.2))
    records += [maker.failed(i, 20 + i / 10, 1.0, "http_5xx", HOSTILE) for i in range(20)]
    records[0].model = HOSTILE
    target = {"host": HOSTILE, "simulator": True, "protocol": HOSTILE, "model": HOSTILE, "transport": "fast"}
    return maker.write(
        tmp_path / "run", records, maker.boundaries(4, 2, 60, 61), 4, target=target, label=HOSTILE, run_id=HOSTILE,
        problems=[HOSTILE], options={"a": HOSTILE}, command=[HOSTILE], suite={HOSTILE: HOSTILE},
    )  # fmt: skip


def test_the_report_asks_the_network_for_nothing_and_runs_nothing_foreign(tmp_path: Path) -> None:
    written = report.write(hostile(tmp_path))
    assert written.report is not None
    text = written.report.read_text(encoding="utf-8")
    found = Elements(text)
    assert not [tag for tag, _ in found.tags if tag in ("img", "link", "iframe", "object", "embed", "base", "form")]
    for tag, attributes in found.tags:
        assert not {"src", "srcset", "action", "background"} & set(attributes), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#"), "links lead about the page, and nowhere else"
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in text[text.index("<style>") : text.index("</style>")] and "@import" not in text[:20_000]
    assert page.POLICY.startswith("default-src 'none'")
    assert not [script for script in found.scripts if script.startswith("alert")]
    assert sum("plotly.js v" in script for script in found.scripts) == 1
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text.split("<script>")[0])


def test_workers_have_a_line_each_and_a_lost_one_stands_out(tmp_path: Path) -> None:
    workers = [
        {"index": 0, "hostname": HOSTILE, "pid": 7, "status": "finished", "rows": 1200, "clock_offset_ms": -37_000.25},
        {"index": 1, "hostname": "b", "pid": 8, "status": "lost", "rows": 3, "in_flight": 17, "missing_batches": 2},
    ]
    records = maker.closed_loop(users=4, seconds=60)
    written = report.write(maker.write(tmp_path / "run", records, maker.boundaries(4, 2, 60, 61), 4, workers=workers))
    assert written.report is not None
    text = written.report.read_text(encoding="utf-8")
    assert 'level invalid words">lost</span>' in text
    for cell in ("1,200", "17", "-37,000.2 ± 0.0"):
        assert f">{cell}</td>" in text
    assert "<script>alert" not in text


def test_one_process_that_ended_well_has_no_table_of_workers(tmp_path: Path) -> None:
    written = report.write(maker.write(tmp_path / "run", maker.closed_loop(users=4, seconds=60)))
    assert written.report is not None
    assert "<h2>Workers</h2>" not in written.report.read_text(encoding="utf-8")


def test_every_chart_of_the_report_is_json_of_finite_numbers(tmp_path: Path) -> None:
    written = report.write(hostile(tmp_path))
    assert written.report is not None
    found = Elements(written.report.read_text(encoding="utf-8"))
    kinds = [attributes for tag, attributes in found.tags if tag == "script"]
    data = [json.loads(s) for s, a in zip(found.scripts, kinds, strict=True) if a.get("type") == "application/json"]
    drawn = {attributes["data-chart"] for tag, attributes in found.tags if tag == "figure"}
    charts_of = ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms", "load", "ttft-time", "errors", "client")
    charts_of += ("timeline", "timeline-worst")
    assert drawn == {f"chart-{name}" for name in charts_of}
    assert len(data) == len(drawn) and all(chart["data"] for chart in data)


def test_the_report_marks_the_simulator_the_verdict_and_the_errors(tmp_path: Path) -> None:
    written = report.write(hostile(tmp_path))
    assert written.report is not None
    text = Elements(written.report.read_text(encoding="utf-8")).text
    for said in (
        "SIMULATOR",
        "No real model server was measured",
        "Verdict: ✓ valid",
        "http_5xx",
        "服务器忙",
        "How to read it",
    ):
        assert said in text


def test_no_chart_where_nothing_was_measured(tmp_path: Path) -> None:
    directory = maker.write(tmp_path, [], [])
    (directory / "intervals.jsonl").unlink()
    written = report.write(directory)
    assert written.report is not None
    text = written.report.read_text(encoding="utf-8")
    assert "data-chart=" not in text and "plotly.js v" not in text
    assert "Verdict" in text and len(text) < 40_000


def test_embedded_json_cannot_end_its_script() -> None:
    text = page.embedded({"x": "</script><!--&"})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"x": "</script><!--&"}


def test_thinning_keeps_the_extremes_of_every_moment(tmp_path: Path) -> None:
    x, y = np.arange(100_000) / 100, np.random.default_rng(1).lognormal(5, 0.5, 100_000)
    y[[17, 54_321, 99_999]] = 1e5, 1e-3, 2e5
    kept = extremes_kept(x, y, 4000)
    assert {17, 54_321, 99_999} <= set(kept.tolist())
    assert 2000 <= len(kept) <= 4100
    assert len(extremes_kept(x[:50], y[:50], 4000)) == 50


def test_the_console_table_is_aligned_and_clean(tmp_path: Path) -> None:
    directory = hostile(tmp_path)
    text = console.table(report.write(directory, html=False).summary)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert "SIMULATOR" in text and "Verdict: VALID" in text and "服务器忙" in text
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Latency in ms"))
    assert len({console.width(line) for line in lines[start : start + 5]}) == 1
    assert not (directory / "report.html").exists()


def test_columns_align_with_wide_characters() -> None:
    lines = console.aligned([["名称", "1"], ["name", "10"], ["é́x", "中"]])
    assert {console.width(line) for line in lines} == {8}


def test_few_requests_are_marked(tmp_path: Path) -> None:
    maker.write(tmp_path, maker.closed_loop(users=1, seconds=30), maker.boundaries(1, 0, 30, 30), 1)
    text = console.table(report.write(tmp_path, html=False).summary)
    assert re.search(r"TTFT +100 +100 +100 +~100 +~100 +100 +40", text)
    assert "~ too few requests for this percentile" in text


def test_bounds_print_as_one_number_when_they_agree() -> None:
    found = {"p95": 418.2, "p50": 100.0, "low": {"p95": 412.0, "p50": 99.99}, "unsure": []}
    assert wording.statistic(found, "p95") == "412–418"
    assert wording.statistic(found, "p50") == "100"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0"), (0.41234, "0.412"), (9.996, "10.0"), (41.25, "41.2"), (99.96, "100"), (4120.4, "4,120")],
)
def test_numbers_have_the_digits_that_matter(value: float | None, text: str) -> None:
    assert wording.number(value) == text


def test_the_command_writes_both_files_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = maker.write(tmp_path, maker.closed_loop(users=2), maker.boundaries(2, 2, 60, 60), 2)
    assert main([str(directory)]) == 0
    assert str(directory / "report.html") in capsys.readouterr().out
    assert json.loads((directory / "summary.json").read_text())["verdict"]["level"] == "valid"


def test_the_command_refuses_what_is_no_run_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "neither run.json nor requests.csv" in capsys.readouterr().err


def test_the_notebook_runs_as_a_script_and_results_load_no_locust(tmp_path: Path) -> None:
    directory = maker.write(tmp_path, maker.closed_loop(users=2), maker.boundaries(2, 2, 60, 60), 2)
    script = Path(__file__).parents[1] / "analysis" / "report.py"
    code = (
        f"import runpy, sys; sys.argv = ['report.py', {str(directory)!r}, '--lang', 'zh']\n"
        f"try: runpy.run_path({str(script)!r}, run_name='__main__')\n"
        "except SystemExit as end: print(end.code, sorted({'locust', 'gevent'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=script.parents[1], check=True
    )
    assert "结论：有效" in done.stdout
    assert done.stdout.rstrip().endswith("0 []")


def test_charts_reach_to_the_last_whole_second(tmp_path: Path) -> None:
    run = read.load(maker.write(tmp_path, maker.closed_loop(users=2), maker.boundaries(2, 2, 60, 62.7), 2))
    edges = time_bins(phases.find(run), 600)
    assert edges is not None
    assert (edges[0], edges[-1], len(edges)) == (maker.T0, maker.T0 + 62, 63)


EVENTS = (("start", 0, 0), ("target", 0, 2), ("spawned", 1, 2), ("target", 25, 8), ("spawned", 27, 8))
ENDS = (("target", 50, 3), ("spawned", 51, 3), ("stopping", 58, 3), ("stopped", 60, 0))


def stepped(tmp_path: Path, **run: Any) -> Path:
    """Two steps that count, of 14 and 13 s, and one that does not."""
    bounds = [{"event": event, "time": maker.T0 + at, "users": users} for event, at, users in EVENTS + ENDS]
    return maker.write(tmp_path / "run", maker.closed_loop(users=2), bounds, users=2, **run)


def test_each_step_has_a_line_and_one_that_does_not_count_a_reason(tmp_path: Path) -> None:
    written = report.write(stepped(tmp_path))
    lines = console.table(written.summary).splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("Step "))
    assert [line.split()[:4] for line in lines[at + 1 : at + 3]] == [
        ["2", "users", "56", "56"],
        ["8", "users", "52", "52"],
    ]
    why = "3 users, 50.0 to 58.0 s: not measured, it did not last longer than the settling time of 10 s"
    assert lines[at + 3] == why
    assert "2 to 8 users in 3 steps" in lines[1]
    page_text = Elements(written.report.read_text()).text if written.report else ""
    assert "Steps" in page_text and why in page_text


def test_one_level_all_along_has_no_table_of_steps(tmp_path: Path) -> None:
    written = report.write(maker.write(tmp_path, maker.closed_loop(users=2), maker.boundaries(2, 2, 60, 62), 2))
    assert "Step " not in console.table(written.summary)


def load_lines(directory: Path) -> list[tuple[str, list[float]]]:
    """The lines of the chart's first row, the load: names and heights."""
    run = read.load(directory)
    chart = load_chart.over_time(run, phases.find(run))
    assert chart is not None
    return [(trace["name"], trace["y"]) for trace in chart["data"] if trace["yaxis"] == "y"]


def test_asked_offered_and_achieved_are_lines_of_one_chart(tmp_path: Path) -> None:
    (asked, steps), (offered, running), (achieved, flying) = load_lines(stepped(tmp_path))
    assert (asked, steps) == ("asked: users", [2, 8, 3, 0, 0])
    assert (offered, running) == ("offered: users running", [1, 2, 2]), "two workers, of one user each"
    assert achieved == "achieved: requests in flight"
    assert all(1.9 < height <= 2 for height in flying)


def test_the_users_of_a_worker_that_fell_silent_run_no_more(tmp_path: Path) -> None:
    directory = stepped(tmp_path)
    lines = (directory / "intervals.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["worker"] == 0 or json.loads(line)["seq"] < 30]
    (directory / "intervals.jsonl").write_text("\n".join(kept) + "\n")
    assert load_lines(directory)[1] == ("offered: users running", [1, 2, 1, 1])


def test_in_an_open_loop_they_are_requests_a_second(tmp_path: Path) -> None:
    load = {"arrivals": "poisson", "users": 2, "rate_per_user": 2.5}
    (asked, steps), (offered, due), (achieved, sent) = load_lines(stepped(tmp_path, load=load))
    assert (asked, steps) == ("asked: users × 2.5 requests/s", [5, 20, 7.5, 0, 0])
    assert (offered, set(due)) == ("offered: requests due/s", {4})
    assert (achieved, sum(sent)) == ("achieved: requests sent/s", 240)


def test_phases_are_shaded_on_the_charts(tmp_path: Path) -> None:
    run = read.load(maker.write(tmp_path, maker.closed_loop(users=2), maker.boundaries(2, 2, 60, 62), 2))
    chart = load_chart.over_time(run, phases.find(run))
    assert chart is not None
    assert [label["text"] for label in chart["layout"]["annotations"]] == ["ramp", "steady"]
    assert [shape["x0"] for shape in chart["layout"]["shapes"]] == [0, 12, 60]


def test_no_line_of_percentiles_is_drawn_over_a_time_with_too_few_requests() -> None:
    x = np.concatenate([np.linspace(0, 100, 300), np.linspace(100, 200, 10), np.linspace(200, 300, 300)])
    median, p95 = running_percentiles(x, np.ones(len(x)), ENGLISH)
    assert median["y"] == p95["y"] == [1, 1, None, None, 1, 1]
    assert running_percentiles(x[:150], np.ones(150), ENGLISH) == []


def test_a_chart_stays_small_and_shows_its_gaps_and_extremes() -> None:
    x = np.arange(86_400.0)
    levels = [np.where((x > 500) & (x < 900), np.nan, np.sin(x / 99) + (x == 777 * line)) for line in range(1, 9)]
    lines = [
        {"type": "scatter", "mode": "lines", "x": x.tolist(), "y": [None if np.isnan(v) else v for v in y.tolist()]}
        for y in levels
    ]
    bar = {"type": "bar", "x": [1], "y": [2]}
    assert fitting([*lines[:1], bar]) != [*lines[:1], bar]  # a day of seconds is too many for one line, too
    *thin, same = fitting([*lines, bar])
    assert same == bar
    assert sum(len(line["x"]) for line in thin) <= MOST_OF_A_CHART * 1.1
    for line, level in zip(thin, levels, strict=True):
        told = [value for value in line["y"] if value is not None]
        assert (max(told), min(told)) == (np.nanmax(level), np.nanmin(level))
        assert line["y"][line["x"].index(501.0)] is None  # no line is drawn over what was not measured
        assert line["x"] == sorted(line["x"])


def test_a_report_stays_below_8_mb_however_long_the_run_and_many_its_devices(tmp_path: Path) -> None:
    """A day of eight workers, and an hour of 16 GPUs; without thinning their lines alone are 4 MB."""
    directory = maker.write(tmp_path, maker.closed_loop(users=2, seconds=40), maker.boundaries(2, 0, 86_400, 86_400))
    gauges = '"users":1,"cpu_percent":12.345,"loop_lag_ms":0.123,"seconds":10.0'
    with (directory / "intervals.jsonl").open("w") as file:
        for second in range(0, 86_400, 10):
            at = maker.T0 + second + 10
            file.writelines(f'{{"worker":{worker},"seq":{second},"time":{at},{gauges}}}\n' for worker in range(8))
    with (directory / "hardware.csv").open("w") as file:
        file.write("time,host,device,metric,value,mean,max\n")
        for second in range(3600):
            at = maker.T0 + second
            for metric in ("utilization_ratio", "power_watts", "memory_used_bytes"):
                file.writelines(f"{at:.6f},gpu1,GPU-{gpu},{metric},{second % 89 + 123456},,\n" for gpu in range(16))
    written = report.write(directory)
    assert written.report is not None
    text = written.report.read_text(encoding="utf-8")
    assert "worker 7" in text and "GPU-15" in text
    assert len(text) < 8e6
