"""The pieces under a run directory: rows as text, histograms, files on a disk that refuses, the live line."""

from __future__ import annotations

import csv
import io
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenswarm import histogram
from tokenswarm.errors import RunDirectoryError
from tokenswarm.record import COLUMNS, RequestRecord, csv_header, csv_rows, measure
from tokenswarm.recording.directory import AppendFile, RunDirectory, check, create
from tokenswarm.recording.recorder import Totals
from tokenswarm.timing import Anchor, Tally, Timeline, percentile
from tokenswarm.ui.console import line

MS = 1_000_000
ANCHOR = Anchor(wall_ns=1_700_000_000_000_000_000, monotonic_ns=0)


def parse(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@given(st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp")), max_size=40))
def test_any_text_survives_the_csv(text: str) -> None:
    (row,) = parse(csv_header() + csv_rows([RequestRecord(id="a", error=text)]))
    assert row["error"] in (text, f"'{text}")


@given(st.text(max_size=40))
def test_a_row_is_one_line_whatever_a_server_says(text: str) -> None:
    written = csv_rows([RequestRecord(id="a", error=text, model=text)])
    assert len(written.splitlines()) == 1
    assert "\x1b" not in written


def test_control_characters_are_written_out() -> None:
    (row,) = parse(csv_header() + csv_rows([RequestRecord(id="a", error="a\nb\x1b[31m\x00")]))
    assert row["error"] == "a\\nb\\x1b[31m\\x00"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x"])
def test_no_cell_is_a_spreadsheet_formula(text: str) -> None:
    (row,) = parse(csv_header() + csv_rows([RequestRecord(id="a", error=text, model=text)]))
    assert row["error"] == row["model"] == f"'{text}"


def test_numbers_are_written_as_they_are_and_unknown_ones_are_empty() -> None:
    record = RequestRecord(id="a", ttft_ms=-0.0004, start_time=1_700_000_000.1234564, conn_reused=True, chunks=0)
    (row,) = parse(csv_header() + csv_rows([record]))
    assert row["ttft_ms"] == "-0.000"
    assert row["start_time"] == "1700000000.123456"
    assert (row["conn_reused"], row["chunks"], row["tpot_ms"]) == ("true", "0", "")
    assert list(row) == list(COLUMNS)


def timeline() -> Timeline:
    made = Timeline(start=10 * MS, intended=8 * MS)
    made.tcp_ns, made.dns_ns, made.send_ns = 2 * MS, 1 * MS, MS // 2
    made.sent, made.headers, made.end = 15 * MS, 20 * MS, 150 * MS
    made.at = [60 * MS, 80 * MS, 120 * MS, 140 * MS]
    made.low = list(made.at)
    made.characters = [4, 4, 4, 8]
    made.first_answer = 80 * MS
    return made


def slow_timeline() -> Timeline:
    """Each chunk in a second of its own: 60, 80, 120 and 140."""
    made = timeline()
    made.at = [at * 1000 for at in made.at]
    return made


def test_a_row_by_the_definitions() -> None:
    record = RequestRecord(id="a", output_tokens=10)
    measure(record, timeline(), ANCHOR)
    assert (record.ttft_ms, record.ttft_sent_ms, record.ttft_due_ms, record.ttft_low_ms) == (50, 45, 52, 50)
    assert (record.ttfo_ms, record.ttst_ms, record.last_token_ms, record.e2e_ms) == (70, 20, 130, 140)
    assert record.tpot_ms == pytest.approx(80 / 9)
    assert record.decode_tps == pytest.approx(9 / 0.08)
    assert record.output_tps == pytest.approx(10 / 0.14)
    assert (record.itl_mean_ms, record.itl_p50_ms, record.itl_max_ms) == (pytest.approx(80 / 3), 20, 40)
    assert (record.queue_ms, record.dns_ms, record.tcp_ms, record.tls_ms, record.send_ms) == (2, 1, 2, None, 0.5)
    assert record.pool_ms == 1.5
    assert (record.headers_ms, record.chunks, record.output_chars, record.tokens_per_chunk) == (5, 4, 20, 2.5)


def test_speed_leaves_out_tokens_that_were_never_sent_and_those_of_the_first_chunk() -> None:
    hidden = RequestRecord(id="a", output_tokens=110)
    measure(hidden, timeline(), ANCHOR, hidden_tokens=100)
    assert hidden.tpot_ms == pytest.approx(80 / 9)
    told = timeline()
    told.cumulative = [4, 6, 8, 10]
    known = RequestRecord(id="a", output_tokens=10)
    measure(known, told, ANCHOR)
    assert known.tpot_ms == pytest.approx(80 / 6)


def test_usage_told_once_or_with_hidden_reasoning_does_not_bend_the_speed() -> None:
    once = timeline()
    once.cumulative = [10]  # on the last chunk only
    record = RequestRecord(id="a", output_tokens=10)
    measure(record, once, ANCHOR)
    assert record.tpot_ms == pytest.approx(80 / 9)
    always = timeline()
    always.cumulative = [101, 104, 107, 110]
    record = RequestRecord(id="a", output_tokens=110)
    measure(record, always, ANCHOR, hidden_tokens=100)
    assert record.tpot_ms == pytest.approx(80 / 9)


def test_the_gap_between_merged_chunks_is_unknown_and_not_0() -> None:
    merged = timeline()
    merged.at[1], merged.low[:2] = merged.at[0], [50 * MS, 50 * MS]
    record = RequestRecord(id="a", output_tokens=10)
    measure(record, merged, ANCHOR)
    assert record.ttst_ms is None


def test_one_chunk_has_a_ttft_and_no_speed() -> None:
    short = timeline()
    short.at, short.low, short.characters = short.at[:1], short.low[:1], short.characters[:1]
    record = RequestRecord(id="a", output_tokens=1)
    measure(record, short, ANCHOR)
    assert record.ttft_ms == 50
    assert (record.tpot_ms, record.ttst_ms, record.itl_mean_ms, record.decode_tps) == (None,) * 4


def test_nothing_received_is_nothing_measured() -> None:
    empty = Timeline(start=10 * MS)
    empty.end = 20 * MS
    record = RequestRecord(id="a")
    measure(record, empty, ANCHOR)
    assert record.e2e_ms == 10
    assert (record.ttft_ms, record.pool_ms, record.send_ms, record.output_tps) == (None,) * 4


def test_tokens_go_to_the_chunks_that_brought_them() -> None:
    by_characters = slow_timeline()
    assert by_characters.spread(10) == [(60, 2), (80, 2), (120, 2), (140, 4)]
    by_usage = slow_timeline()
    by_usage.cumulative = [1, 4, 5, 10]
    assert [tokens for _, tokens in by_usage.spread(10)] == [1, 3, 1, 5]
    for nonsense in ([0, 0, 0, 0], [5, 4, 6, 10]):
        by_usage.cumulative = nonsense
        assert [tokens for _, tokens in by_usage.spread(10)] == [2, 2, 2, 4], "by characters then"
    assert Timeline(start=0).spread(10) == []
    assert [tokens for _, tokens in slow_timeline().spread(4)] == [1, 1, 1, 1], "one each, however long its text"


def test_tokens_are_summed_over_the_seconds_of_the_clock_that_is_meant() -> None:
    line = timeline()
    line.at = [900 * MS, 999 * MS, 1000 * MS, 3000 * MS]
    assert line.spread(10) == [(0, 4), (1, 2), (3, 4)]
    assert line.spread(10, 50 * MS) == [(0, 2), (1, 4), (3, 4)]
    assert line.spread(10, -MS) == [(0, 6), (2, 4)]
    assert line.spread(10, 7_000_000_000) == [(7, 4), (8, 2), (10, 4)]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 100))
def test_percentiles_agree_with_numpy(values: list[float], q: float) -> None:
    assert percentile(sorted(values), q) == pytest.approx(float(np.percentile(values, q)), rel=1e-9, abs=1e-9)


@given(st.lists(st.integers(1_000, 3_000_000_000_000), min_size=1, max_size=200), st.sampled_from([50.0, 95.0, 100.0]))
def test_histograms_are_within_half_a_percent(durations: list[int], q: float) -> None:
    half = len(durations) // 2
    merged = histogram.merge([histogram.encode_ns(durations[:half]), histogram.encode_ns(durations[half:]), ""])
    assert merged.get_total_count() == len(durations)
    ranked = sorted(durations)
    rank = max(int(np.ceil(q / 100 * len(ranked))) - 1, 0)
    below, above = ranked[max(rank - 1, 0)] / 1e6, ranked[min(rank + 1, len(ranked) - 1)] / 1e6
    value = histogram.percentile_ms(merged, q)
    assert value is not None
    assert below * 0.995 - 0.002 <= value <= above * 1.005 + 0.002


@pytest.mark.parametrize("count", [1, 2, 300])
def test_mean_and_deviation_are_those_that_hdrh_finds_on_its_walk(count: int) -> None:
    """Below, at and above 2,048 µs, where the steps begin."""
    rng = np.random.default_rng(count)
    durations = [*rng.lognormal(15, 3, count).astype(int).tolist(), 2_047_000, 2_048_000, 4_095_000, 4_096_000]
    merged = histogram.merge([histogram.encode_ns(durations)])
    expected = (merged.get_mean_value() / 1e3, merged.get_stddev() / 1e3)
    assert histogram.mean_and_deviation_ms(merged) == pytest.approx(expected, rel=1e-12)


def test_an_empty_histogram_has_no_percentile() -> None:
    assert histogram.percentile_ms(histogram.merge([histogram.encode_ns([])]), 50) is None
    with pytest.raises(ValueError, match="HdrHistogram"):
        histogram.merge(["nonsense"])


@pytest.fixture
def small_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_cannot_grow_keeps_whole_lines_and_holds_the_rest(tmp_path: Path, small_files: None) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = AppendFile(tmp_path / "f")
    assert file.append(b"one\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    assert not file.append(b"a line too long for this disk\n")
    assert not file.append(b"x\n"), "order is kept, though this one alone would have fitted"
    assert (tmp_path / "f").read_bytes() == b"one\n"
    assert file.problem is not None
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert file.append(b"last\n")
    assert file.close() == (0, None)
    assert (tmp_path / "f").read_bytes() == b"one\na line too long for this disk\nx\nlast\n"


def test_what_never_fits_is_put_elsewhere_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_files: None
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "run").mkdir()
    directory = RunDirectory(tmp_path / "run")
    directory.open("requests.csv", None)
    assert directory.append("requests.csv", b"header\n") is None
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
    said = directory.append("requests.csv", b"one\n")
    assert said is not None
    assert "requests.csv" in said
    assert directory.append("requests.csv", b"two\n") is None, "said once"
    lost, (sentence,) = directory.close()
    assert lost == 2
    rescue = Path(re.search(r"they are in (\S+?)\.$", sentence)[1]) if "they are in" in sentence else None
    assert rescue is not None or "lost" in sentence
    assert (tmp_path / "run" / "requests.csv").read_bytes() == b"header\n"


def test_a_file_that_cannot_be_made_refuses_the_run(tmp_path: Path) -> None:
    (tmp_path / "requests.csv").mkdir()
    with pytest.raises(RunDirectoryError, match=r"requests\.csv"):
        RunDirectory(tmp_path).open("requests.csv")


def test_run_directories_are_never_shared(tmp_path: Path) -> None:
    wanted = str(tmp_path / "deep" / "run")
    first = create(wanted, None, 0.0)
    first.open("x")
    assert [create(wanted, None, 0.0).path.name for _ in range(1)] == ["run-2"]
    (tmp_path / "empty").mkdir()
    assert create(str(tmp_path / "empty"), None, 0.0).path == tmp_path / "empty"


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wanted in ("file", "file/x"):
        with pytest.raises(RunDirectoryError, match="--run-dir"):
            check(str(tmp_path / wanted))
        with pytest.raises(RunDirectoryError, match="--run-dir"):
            create(str(tmp_path / wanted), None, 0.0)
    check(str(tmp_path / "new" / "deep"))
    assert not (tmp_path / "new").exists(), "looking makes nothing"


def test_names_are_made_of_the_time_and_a_clean_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = create(None, "../my run/测试", 1_763_646_000.0).path
    assert made == Path(os.getcwd()) / "runs" / "20251120T134000Z-my-run-测试"


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    assert directory.write_json("run.json", {"a": 1}) is None
    assert directory.write_json("run.json", {"a": 2}) is None
    assert (tmp_path / "run.json").read_text().split() == ["{", '"a":', "2", "}"]
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_half_a_character_does_not_make_json_that_nobody_can_read(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    assert directory.write_json("run.json", {"command": ["caf\udce9", "服务器"]}) is None
    assert msgspec.json.decode((tmp_path / "run.json").read_bytes()) == {"command": ["caf?", "服务器"]}


def test_the_live_line_is_about_the_last_seconds() -> None:
    before = Totals(ok=10, ttft_ms=1000, ttft_count=10, e2e_ms=20_000, chunks=1000, characters=4000, user_seconds=50)
    now = Totals(
        ok=15,
        errors=2,
        ttft_ms=2000,
        ttft_count=20,
        e2e_ms=45_000,
        output_tokens=3000,
        token_chunks=1500,
        chunks=2000,
        characters=9000,
        user_seconds=100,
    )
    text = line(5.0, 65.0, 4, 3, now, before)
    expected = "1:05 users 4 in flight 3 replies 15 / errors 2 TTFT 100 ms latency 5,000 ms"
    rates = "tokens/s ≈ 400 (40.0 a user) chars/s 1,000 (100.0 a user)"
    assert " ".join(text.split()) == f"{expected} {rates}"


def test_a_tally_starts_empty() -> None:
    assert (Tally().chunks, Tally().itl_ns) == (0, [])
    assert Tally().itl_ns is not Tally().itl_ns


def test_what_is_taken_from_a_tally_is_no_longer_in_it() -> None:
    tally = Tally()
    tally.chunks += 2
    tally.itl_ns.append(5)
    assert (tally.take(), tally) == (Tally(chunks=2, itl_ns=[5]), Tally())
    tally.itl_ns.append(6)
    assert tally.take() == Tally(itl_ns=[6])
