"""`tokenswarm report` on run directories that a kill, a full disk, an editor or another program has spoilt: it says
which file and what is wrong with it, does what it can, and what it writes is whole.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import run_directory_maker as maker

from tokenswarm.cli import main
from tokenswarm.record import csv_header, csv_rows

pytestmark = pytest.mark.slow  # not one of them, but all together
FILES = ("run.json", "requests.csv", "intervals.jsonl", "hardware.csv", "server_metrics.csv")
Damage = Callable[[Path], None]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two users for twenty seconds on two workers, with every file, each with a character of several bytes in it."""
    records = maker.closed_loop(users=2, seconds=20)
    records.append(maker.failed(1, 5, 1.0, "http_5xx", "服务器忙"))
    run = maker.write(
        tmp_path / "run", records, maker.boundaries(2, 1, 20, 21), 2, options={"warmup": 2.0}, label="标签"
    )
    without_gaps = edit("intervals.jsonl", lambda data: re.sub(rb'"itl": "[^"]+"', b'"itl": ""', data))
    without_gaps(run)  # they take long to add up
    seconds = [f"{maker.T0 + second:.6f}" for second in range(21)]
    samples = [f"{at},主机,GPU-0,power_watts,300,310,320\n" for at in seconds]
    (run / "hardware.csv").write_text("time,host,device,metric,value,mean,max\n" + "".join(samples), encoding="utf-8")
    page = [f"{at},http://s/metrics,up,,1\n{at},http://s/metrics,vllm:num_requests_running,模型,2\n" for at in seconds]
    (run / "server_metrics.csv").write_text("time,source,metric,labels,value\n" + "".join(page), encoding="utf-8")
    return run


@pytest.fixture
def report(directory: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], dict[str, Any]]]:
    """Writes the report, and gives the summary of it; both must be whole, and the status 0."""

    def written() -> dict[str, Any]:
        status = main(["report", str(directory)])
        said = capsys.readouterr()
        assert status == 0, said.err
        return whole(directory)

    yield written


def whole(directory: Path) -> dict[str, Any]:
    """The summary; it and the page hold nothing but what JSON and HTML know."""
    summary: dict[str, Any] = json.loads((directory / "summary.json").read_text("utf-8"), parse_constant=refuse)
    page = (directory / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and page.rstrip().endswith("</html>")
    for data in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL):
        json.loads(data, parse_constant=refuse)
    shown = page[: page.index("<script")] if "<script" in page else page
    assert not re.search(r">\s*-?(nan|inf|None)\b", shown, re.IGNORECASE), "what was not measured has no number"
    assert not [defect for defect in summary["defects"] if "Traceback" in defect or "C error" in defect]
    return summary


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


def told(summary: dict[str, Any], file: str, words: str) -> None:
    """One of the defects names the file, and says this."""
    assert [defect for defect in summary["defects"] if file in defect and re.search(words, defect)], summary["defects"]


def edit(name: str, change: Callable[[bytes], bytes]) -> Damage:
    return lambda run: (run / name).write_bytes(change((run / name).read_bytes())) and None


def row(number: int, change: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes], bytes]:
    """Change the cells of one line; the first row is number 1."""

    def changed(data: bytes) -> bytes:
        lines = data.split(b"\n")
        lines[number] = b",".join(change(lines[number].split(b",")))
        return b"\n".join(lines)

    return changed


def cells(column: str, values: list[str]) -> Callable[[bytes], bytes]:
    """Put values into a column of as many rows, from the third on."""

    def changed(data: bytes) -> bytes:
        place = data.split(b"\n", 1)[0].decode().split(",").index(column)
        for number, value in enumerate(values, 3):
            line = data.split(b"\n")[number].split(b",")
            line[place] = value.encode()
            data = row(number, lambda _, line=line: line)(data)
        return data

    return changed


def test_the_run_is_without_defects_before_it_is_damaged(report: Callable[[], dict[str, Any]]) -> None:
    summary = report()
    assert summary["defects"] == []
    assert summary["hardware"] and summary["requests"]["all"]["due"] == 81


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["missing", "empty", "a folder", "unreadable", "of zeros"])
def test_each_file_may_be_spoilt_as_a_whole(
    directory: Path, report: Callable[[], dict[str, Any]], name: str, how: str
) -> None:
    path = directory / name
    if how == "unreadable" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    content = path.read_bytes()
    path.unlink()
    if how == "empty":
        path.touch()
    elif how == "a folder":
        path.mkdir()
    elif how == "of zeros":
        path.write_bytes(bytes(len(content)))
    elif how == "unreadable":
        path.write_bytes(content)
        path.chmod(0)
    summary = report()
    known = summary["requests"]["all"]["due"]
    assert known == (0 if name == "requests.csv" else 81)
    if how == "missing" and name in ("hardware.csv", "server_metrics.csv"):
        return  # they are there only where somebody asked for them
    told(summary, name, "missing|empty|cannot be read|damaged|torn")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("cut", ["half a line", "half a character"])
def test_each_file_may_end_in_the_middle(
    directory: Path, report: Callable[[], dict[str, Any]], name: str, cut: str
) -> None:
    data = (directory / name).read_bytes()
    wide = {"requests.csv": "忙", "run.json": "签", "hardware.csv": "机", "server_metrics.csv": "型"}
    at = len(data) - 30
    if cut == "half a character":
        if name not in wide:
            data = data.rstrip(b"\n}") + ', "说": "话'.encode()
            wide[name] = "话"
        at = data.rindex(wide[name].encode()) + 1
    (directory / name).write_bytes(data[:at])
    summary = report()
    assert summary["requests"]["all"]["due"] in (80, 81)
    if name != "server_metrics.csv":
        told(summary, name, "torn|damaged")


NO_NUMBERS = ["nan", "NaN", "inf", "-inf", "1e308", "-1e308", "1e400", "０", "0x10", "1_000", "ten", " ", "1e16"]
ODD_NUMBERS = ["-5", "0", "-0", "1e10", "1e-300", "0.1e1"]


@pytest.mark.parametrize(
    "column", ["ttft_ms", "e2e_ms", "start_time", "end_time", "intended_time", "output_tokens", "worker", "chunks"]
)
def test_no_number_in_a_cell_breaks_the_report(
    directory: Path, report: Callable[[], dict[str, Any]], column: str
) -> None:
    edit("requests.csv", cells(column, NO_NUMBERS + ODD_NUMBERS))(directory)
    summary = report()
    assert summary["requests"]["all"]["due"] == 81
    told(summary, "requests.csv", f"{len(NO_NUMBERS)} cells that should be numbers are not")


@pytest.mark.parametrize(
    ("name", "change", "due", "words"),
    [
        ("requests.csv", lambda data: b"\xef\xbb\xbf" + data, 81, ""),
        ("requests.csv", lambda data: data.replace(b"\n", b"\r\n"), 81, ""),
        ("requests.csv", row(2, lambda cells: [*cells, b"more", b"cells"]), 80, "1 rows are damaged"),
        ("requests.csv", row(2, lambda cells: cells[:9]), 80, "1 rows are damaged"),
        ("requests.csv", row(2, lambda cells: [b"\x00" * 40]), 80, "1 rows are damaged"),
        ("requests.csv", row(2, lambda cells: [b"\xff\xfe" + cells[0], *cells[1:]]), 81, ""),
        ("requests.csv", row(2, lambda cells: [b'"' + cells[0], *cells[1:]]), 80, "damaged|torn"),
        ("requests.csv", lambda data: data + data.split(b"\n", 1)[1], 81, "81 rows are there twice"),
        ("requests.csv", lambda data: data + data, 81, "rows are damaged.*|there twice"),
        ("requests.csv", lambda data: data.split(b"\n", 1)[1], 0, "lacks the columns|damaged"),
        ("requests.csv", lambda data: data.split(b"\n", 1)[0] + b"\n", 0, ""),
        ("intervals.jsonl", lambda data: b"\xef\xbb\xbf" + data, 81, ""),
        ("intervals.jsonl", lambda data: data.replace(b"\n", b"\r\n"), 81, ""),
        ("intervals.jsonl", lambda data: data + data, 81, "40 lines are there twice|42 lines are there twice"),
        ("intervals.jsonl", lambda data: b"null\n[]\n3\n" + data, 81, "3 lines are damaged"),
        ("intervals.jsonl", lambda data: data.replace(b'"worker": 1,', b'"worker": 77,'), 81, ""),
        ("intervals.jsonl", lambda data: data.replace(b'"worker": 1,', b'"worker": -1,'), 81, ""),
        ("intervals.jsonl", lambda data: data.replace(b'"seconds": 1.0', b'"seconds": -1.0', 1), 81, ""),
        ("intervals.jsonl", lambda data: data.replace(b'"seconds": 1.0', b'"seconds": 0', 1), 81, ""),
        ("intervals.jsonl", lambda data: data.replace(b'"seconds": 1.0', b'"seconds": 1e308', 1), 81, ""),
        ("intervals.jsonl", lambda data: re.sub(rb'"time": [0-9.]+', b'"time": 1e308', data, count=1), 81, ""),
        ("intervals.jsonl", lambda data: re.sub(rb'"time": [0-9.]+', b'"time": -1e308', data, count=1), 81, ""),
        ("intervals.jsonl", lambda data: re.sub(rb'"time": [0-9.]+', b'"time": 0', data, count=1), 81, ""),
        ("intervals.jsonl", lambda data: re.sub(rb'"time": [0-9.]+', b'"time": NaN', data, count=1), 81, "damaged"),
        ("intervals.jsonl", lambda data: data.replace(b'"cpu_percent": 40.0', b'"cpu_percent": 1e308'), 81, ""),
        ("intervals.jsonl", lambda data: data.replace(b'"cpu_percent": 40.0', b'"cpu_percent": null'), 81, ""),
        ("intervals.jsonl", lambda data: data.replace(b'"tokens": [[', b'"tokens": [[1e308, 4], ['), 81, ""),
        ("intervals.jsonl", lambda data: data.replace(b'"tokens": [[', b'"tokens": [[-5, -4], ['), 81, ""),
        ("intervals.jsonl", lambda data: data.replace(b'"itl": ""', b'"itl": "rubbish"', 8), 81, "ITL"),
        ("hardware.csv", lambda data: b"\xef\xbb\xbf" + data, 81, ""),
        ("hardware.csv", lambda data: data.replace(b"\n", b"\r\n"), 81, ""),
        ("hardware.csv", lambda data: data.split(b"\n", 1)[0] + b"\n", 81, ""),
        ("hardware.csv", lambda data: data.replace(b",300,310,320", b",nan,inf,ten", 3), 81, "3 lines are damaged"),
        ("hardware.csv", lambda data: data.replace(b",300,310,320", b",1e308,1e308,1e308"), 81, ""),
        ("hardware.csv", lambda data: data.replace(b",300,310,320", b"", 2), 81, "2 lines are damaged"),
        ("hardware.csv", row(5, lambda cells: [*cells, b"1", b"2"]), 81, "1 lines are damaged"),
        ("hardware.csv", lambda data: data.replace(b"GPU-0", b'"GPU-0', 1), 81, "hardware.csv"),
        ("server_metrics.csv", lambda data: data.replace(b",up,,1", b",up,,nan", 3), 81, "3 lines are damaged"),
        ("server_metrics.csv", lambda data: data.replace(b",up,,", b",down,,"), 81, ""),
        ("server_metrics.csv", row(5, lambda cells: [*cells, b"1", b"2"]), 81, "1 lines are damaged"),
    ],
)  # fmt: skip
def test_what_is_odd_in_a_file_costs_no_more_than_itself(
    directory: Path,
    report: Callable[[], dict[str, Any]],
    name: str,
    change: Callable[[bytes], bytes],
    due: int,
    words: str,
) -> None:
    edit(name, change)(directory)
    summary = report()
    assert summary["requests"]["all"]["due"] == due
    if words:
        told(summary, "" if words == "ITL" else name, words)


ODD_JSON: dict[str, list[Any]] = {
    "schema": ["x", None, 99],
    "label": [None, 3, ["a"], "x" * 10_000],
    "target": [None, "http://x", [], {"host": 3, "simulator": "perhaps"}],
    "options": [None, [], {"warmup": "soon"}, {"warmup": -1}, {"warmup": 1e308}, {"slo": 7, "goodput": "nonsense"}],
    "user_classes": [None, {}, ["Reader"], [{"name": None}]],
    "load": [None, "heavy", {"users": "ten"}, {"users": -3, "rate_per_user": 1e308}],
    "workers": [None, {}, [1, 2], [{"index": "zero"}], [{"index": 0, "status": "lost", "rows": -4}]],
    "start": [None, 3, {"time": "noon"}, {"time": 1e308}, {"time": 0}],
    "end": [None, 3, {"time": -1e308}, {"time": 1e15}],
    "boundaries": [
        None,
        {},
        [1, 2],
        [{"event": "target"}],
        [{"event": "target", "time": -1e308, "users": 10**30}],
        [{"event": "dance", "time": maker.T0}],
        [{"event": "target", "time": maker.T0, "users": 2}, {"event": "spawned", "time": maker.T0 - 9, "users": 2}],
        [{"event": "spawned", "time": maker.T0 + 90, "users": 2}, {"event": "stopped", "time": maker.T0, "users": 2}],
    ],
    "capacity": [3, {}, {"probes": [1]}],
    "scraped": [None, [1], [{"devices": "all"}]],
    "rows": [None, 4, {"lost": -5}],
    "problems": [None, "one", [1, None]],
    "user_exceptions": [None, ["oh"], [{"count": -1}]],
    "host": [None, []],
    "suite": [None, "new"],
    "command": [None, "locust", [1, 2]],
    "seed": ["x", 1.5],
}


def odd_descriptions() -> Iterator[dict[str, Any]]:
    """Each of what decides about time by itself; the others all at once, one value of each at a time."""
    alone = ("start", "end", "boundaries", "load", "options")
    yield from ({field: value} for field in alone for value in ODD_JSON[field])
    others = {field: values for field, values in ODD_JSON.items() if field not in alone}
    for number in range(max(map(len, others.values()))):
        yield {field: values[number] for field, values in others.items() if number < len(values)}


@pytest.mark.parametrize("odd", list(odd_descriptions()), ids=lambda odd: " ".join(odd)[:40])
def test_a_field_of_run_json_that_is_not_as_expected_costs_only_itself(
    directory: Path, report: Callable[[], dict[str, Any]], odd: dict[str, Any]
) -> None:
    described = json.loads((directory / "run.json").read_text(encoding="utf-8"))
    (directory / "run.json").write_text(json.dumps(described | odd), encoding="utf-8")
    assert report()["requests"]["all"]["due"] == 81


@pytest.mark.parametrize(
    "text", ["[]", "null", "3", '"run"', "{}", '{"label": "\\ud800"}', "{" * 100_000, '{"a": NaN}']
)
def test_run_json_may_be_something_else(directory: Path, report: Callable[[], dict[str, Any]], text: str) -> None:
    (directory / "run.json").write_text(text)
    summary = report()
    assert summary["requests"]["all"]["due"] == 81
    assert summary["defects"]


def times(record: maker.Record, by: float) -> None:
    for name in ("start_time", "intended_time", "first_token_time", "end_time"):
        if (at := getattr(record, name)) is not None:
            setattr(record, name, at + by)


def shapes() -> dict[str, list[maker.Record]]:
    """Runs that are odd in what they hold."""
    failed = [maker.failed(i, i / 10, 0.1, "connect", "refused") for i in range(200)]
    jumped, backwards = maker.closed_loop(users=2, seconds=20), maker.closed_loop(users=2, seconds=20)
    for record in jumped[20:]:
        times(record, 86_400.0 * 365)
    for record in backwards[::3]:
        record.end_time = (record.start_time or 0.0) - 5
        record.e2e_ms = -5000.0
    shed = [maker.Record(id=f"s{i}", status="shed", intended_time=maker.T0 + i / 10) for i in range(200)]
    timeless = [maker.Record(id=f"t{i}") for i in range(20)]
    return {
        "nothing": [],
        "all failed": failed,
        "exactly one": [maker.request(0, 3, 0.1, 0.5)],
        "exactly one, failed": failed[:1],
        "a clock that jumped a year": jumped,
        "ends before starts": backwards,
        "all shed": shed,
        "no times at all": timeless,
        "at the beginning of time": [maker.request(0, -maker.T0, 0.1, 0.5), maker.request(1, 3, 0.1, 0.5)],
    }


@pytest.mark.parametrize("bounds", [[], maker.boundaries(2, 1, 20, 21)], ids=["unknown", "known"])
@pytest.mark.parametrize("shape", shapes())
def test_a_run_of_an_odd_shape_has_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: str, bounds: list[dict[str, Any]]
) -> None:
    records = shapes()[shape]
    directory = maker.write(tmp_path / "run", records[:1] if "time" in shape or "year" in shape else records, bounds)
    (directory / "requests.csv").write_text(csv_header() + csv_rows(records), encoding="utf-8")
    assert main(["report", str(directory)]) == 0, capsys.readouterr().err
    summary = whole(directory)
    assert summary["requests"]["all"]["due"] == len(records)
    assert summary["verdict"]["level"] == "invalid" or shape == "ends before starts"


@pytest.mark.parametrize("content", [{}, {"run.json": None}, {"run.json/x": ""}, {"intervals.jsonl": ""}])
def test_where_nothing_can_be_read_it_says_so_and_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: dict[str, str | None]
) -> None:
    for name in content:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if content[name] is not None:
            (tmp_path / name).write_text(content[name] or "")
    assert main(["report", str(tmp_path)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ") and str(tmp_path) in said
    assert not (tmp_path / "summary.json").exists()
