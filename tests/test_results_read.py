"""Reading run directories: whole, torn, partial, hostile."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import run_directory_maker as maker

from tokenswarm.errors import RunDirectoryError
from tokenswarm.record import COLUMNS
from tokenswarm.results import read
from tokenswarm.results.files import rows


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return maker.write(tmp_path / "run", maker.closed_loop(users=2, seconds=5), users=2)


def test_a_whole_directory_has_no_defects(whole: Path) -> None:
    run = read.load(whole)
    assert run.defects == []
    assert run.ended
    assert len(run.rows) == 20
    assert list(run.rows.columns) == list(COLUMNS)
    assert len(run.intervals) == 10
    assert run.info.target.model == "a-model"
    assert run.info.boundaries[1] == read.Boundary(time=maker.T0, event="target", users=2)


def test_an_empty_cell_is_not_measured_and_never_zero(whole: Path) -> None:
    run = read.load(whole)
    assert run.rows["dns_ms"].isna().all()
    assert (run.rows["error_class"] == "").all()
    assert (run.rows["ttft_ms"] == 100.0).all()


def test_times_keep_their_microseconds(tmp_path: Path) -> None:
    run = read.load(maker.write(tmp_path, [maker.request(0, 1.234567, 0.1, 0.5)]))
    assert run.rows["start_time"][0] == pytest.approx(maker.T0 + 1.234567, abs=1e-6)


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_torn_last_row_is_left_out_and_told(whole: Path, cut: int) -> None:
    path = whole / "requests.csv"
    path.write_bytes(path.read_bytes()[:-cut])
    run = read.load(whole)
    assert len(run.rows) == 19
    assert [defect for defect in run.defects if "torn" in defect]
    assert run.rows_damaged == 0


def test_a_row_torn_inside_a_quoted_message_is_left_out(tmp_path: Path) -> None:
    records = [maker.request(0, 0, 0.1, 0.5), maker.failed(1, 0, 1, "http_5xx", 'one, "two"\nthree, four')]
    maker.write(tmp_path, records)
    path = tmp_path / "requests.csv"
    text = path.read_text(encoding="utf-8")
    assert read.load(tmp_path).rows["error"][1] == 'one, "two"\\nthree, four', "line ends are written out"
    path.write_text(text[: text.index("three")], encoding="utf-8")
    run = read.load(tmp_path)
    assert run.rows["id"].tolist() == ["r0"]
    assert "torn" in run.defects[0]


def test_a_cut_inside_a_character_is_survived(tmp_path: Path) -> None:
    maker.write(tmp_path, [maker.request(0, 0, 0.1, 0.5), maker.failed(1, 0, 1, "client", "服务器忙")])
    path = tmp_path / "requests.csv"
    data = path.read_bytes()
    path.write_bytes(data[: data.index("器".encode()) + 1])
    assert len(read.load(tmp_path).rows) == 1


def test_a_torn_last_interval_is_left_out_and_told(whole: Path) -> None:
    path = whole / "intervals.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    run = read.load(whole)
    assert len(run.intervals) == 9
    assert run.defects == ["intervals.jsonl: the last line is torn and was left out."]


def test_damage_in_the_middle_is_counted(whole: Path) -> None:
    rows, lines = whole / "requests.csv", whole / "intervals.jsonl"
    text = rows.read_text().splitlines(keepends=True)
    text[5] = "\x00\x00rubbish\n"
    text[7] = text[7].rstrip("\n") + ",too,many,cells\n"
    rows.write_text("".join(text))
    parts = lines.read_text().splitlines(keepends=True)
    parts[3] = '{"worker": "one"}\n'
    lines.write_text("".join(parts))
    run = read.load(whole)
    assert (len(run.rows), run.rows_damaged, len(run.intervals)) == (18, 2, 9)
    assert "requests.csv: 2 rows are damaged and were left out." in run.defects
    assert "intervals.jsonl: 1 lines are damaged and were left out." in run.defects


def test_a_killed_run_says_that_it_has_no_end(whole: Path) -> None:
    told = json.loads((whole / "run.json").read_text()) | {"end": None}
    (whole / "run.json").write_text(json.dumps(told))
    run = read.load(whole)
    assert not run.ended
    assert "has no end" in run.defects[0]


@pytest.mark.parametrize("name", ["run.json", "requests.csv", "intervals.jsonl"])
def test_one_missing_file_is_a_defect_and_no_error(whole: Path, name: str) -> None:
    (whole / name).unlink()
    assert f"{name} is missing." in read.load(whole).defects


def test_a_broken_run_json_leaves_the_rows(whole: Path) -> None:
    (whole / "run.json").write_text('{"schema": 1, "run_id"')
    run = read.load(whole)
    assert len(run.rows) == 20
    assert "run.json is damaged" in run.defects[0]
    assert run.name == "run"


def test_an_unexpected_field_of_run_json_costs_only_itself(whole: Path) -> None:
    told = json.loads((whole / "run.json").read_text()) | {"load": "heavy", "news": [1]}
    (whole / "run.json").write_text(json.dumps(told))
    run = read.load(whole)
    assert run.info.load == read.Load()
    assert run.info.label == "chat"
    assert len(run.defects) == 1 and "load is not as expected" in run.defects[0]


def test_unknown_columns_are_kept_and_missing_ones_told(whole: Path) -> None:
    path = whole / "requests.csv"
    header, *rows = path.read_text().splitlines()
    last = "client_lag_ms"
    path.write_text("\n".join([header.replace(last, "colour"), *rows]) + "\n")
    run = read.load(whole)
    assert "colour" in run.rows.columns
    assert math.isnan(run.rows[last][0])
    assert f"requests.csv lacks the columns {last}." in run.defects


def test_guarded_text_comes_back_as_it_was(tmp_path: Path) -> None:
    text = "=cmd|' /C calc'!A0"
    maker.write(tmp_path, [maker.failed(0, 0, 1, "client", text), maker.failed(1, 0, 1, "client", "'quoted'")])
    assert read.load(tmp_path).rows["error"].tolist() == [text, "'quoted'"]


def test_words_that_look_like_missing_values_stay_words(tmp_path: Path) -> None:
    maker.write(tmp_path, [maker.request(0, 0, 0.1, 0.5, model="NA"), maker.request(1, 0, 0.1, 0.5, model="null")])
    assert read.load(tmp_path).rows["model"].tolist() == ["NA", "null"]


def test_what_is_no_run_directory_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"neither run\.json nor requests\.csv"):
        read.load(tmp_path)
    with pytest.raises(RunDirectoryError, match="nowhere is not a directory"):
        read.load(tmp_path / "nowhere")


def test_recorded_problems_are_defects(tmp_path: Path) -> None:
    maker.write(tmp_path, [maker.request(0, 0, 0.1, 0.5)], problems=["disk full"], rows={"written": 1, "lost": 7})
    assert read.load(tmp_path).defects == ["7 rows could not be written while the run went on.", "disk full"]


def test_rows_and_lines_that_are_there_twice_count_once(whole: Path) -> None:
    for name in ("requests.csv", "intervals.jsonl"):
        lines = (whole / name).read_text().splitlines(keepends=True)
        (whole / name).write_text("".join([*lines, lines[-1]]))
    run = read.load(whole)
    assert (len(run.rows), len(run.intervals)) == (20, 10)
    assert run.defects == [
        "requests.csv: 1 rows are there twice, and count once.",
        "intervals.jsonl: 1 lines are there twice, and count once.",
    ]


def test_an_empty_file_of_requests_is_told(whole: Path) -> None:
    (whole / "requests.csv").write_text("")
    assert read.load(whole).defects == ["requests.csv is empty: it has not even the names of its columns."]


def test_infinity_is_no_measurement(whole: Path) -> None:
    path = whole / "requests.csv"
    path.write_text(path.read_text().replace(",500.000,", ",inf,", 1))
    run = read.load(whole)
    assert run.rows["e2e_ms"].isna().sum() == 1
    assert "1 cells that should be numbers are not" in run.defects[0]


def test_a_large_file_that_is_parsed_in_pieces_says_what_it_says_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With quoted cells, formulas, a row twice, a quotation mark out of step and a cell that is no number."""
    records = maker.closed_loop(users=1, seconds=10)
    for index, record in enumerate(records):
        record.error = "first, 'and' second" if index % 2 else "=1+1" if index % 4 else None
    path = maker.write(tmp_path, records) / "requests.csv"
    head, *lines = path.read_text().splitlines()
    lines[3] = lines[4]
    lines[15] = lines[15].replace("100.000", "a lot", 1)
    lines[9] = lines[9].replace(",ok,", ',"ok,')
    path.write_text("\n".join([head, *lines]) + "\n")
    found = []
    for size in (1 << 20, 500, 1_500, 2_500):
        monkeypatch.setattr(rows, "_PIECE", size)
        defects: list[str] = []
        found.append((*rows.read(path, defects), defects))
    whole, damaged, said = found[0]
    assert len(said) == 3 and damaged == 1 and len(whole) == len(records) - 2
    assert {"first, 'and' second", "=1+1", ""} == set(whole["error"])
    for pieced, *others in found[1:]:
        pd.testing.assert_frame_equal(whole, pieced, check_categorical=False)
        assert others == [damaged, said]
