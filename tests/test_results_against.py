"""Latency against what may explain it: who was in flight, the rows of a bin, slopes, and where nothing is drawn."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import run_directory_maker as maker
from run_directory_maker import T0

from tokenswarm.results import phases, read, report, summarise
from tokenswarm.results.figures import against

LENGTHS = (100, 200, 400, 800)


def records(**change: Any) -> list[maker.Record]:
    """Ten users, 600 requests of 30 s, no two of which started together; TTFT is 20 ms and 0.1 ms an input token."""
    found = []
    for index in range(600):
        length = LENGTHS[index % 4]
        record = maker.request(index, index * 0.05, 0.02 + length * 1e-4, 0.5, 11 + index % 3, input_tokens=length)
        for name, value in change.items():
            setattr(record, name, value)
        found.append(record)
    return found


def figures(directory: Path, rows: list[maker.Record]) -> dict[str, Any]:
    run = read.load(maker.write(directory, rows, maker.boundaries(10, 0, 30, 31), options={"warmup": 0.0}))
    return against.figures(run, phases.find(run))


def test_each_length_has_its_median_and_p95(tmp_path: Path) -> None:
    rows = records()
    for record in rows[:400:4]:  # two thirds of those with 100 tokens take 10 ms more
        record.ttft_ms = 40.0
    found = figures(tmp_path, rows)["ttft_ms_by_input_tokens"]
    assert found["rows"] == 600
    assert [(one["from"], one["to"], one["x"], one["rows"]) for one in found["bins"]] == [
        (length, length, length, 150) for length in LENGTHS
    ]
    assert [one["p50"] for one in found["bins"]] == pytest.approx([40, 40, 60, 100])
    assert [one["p95"] for one in found["bins"]] == pytest.approx([40, 40, 60, 100])


def test_a_slope_is_per_so_many_tokens_and_a_few_slow_requests_do_not_move_it(tmp_path: Path) -> None:
    rows = records()
    for record in rows[::40]:
        record.ttft_ms = 30_000.0
    slope = figures(tmp_path, rows)["ttft_ms_by_input_tokens"]["slope"]
    assert (slope["per"], slope["ms"]) == (100, pytest.approx(10))
    assert slope["low"] <= 10 <= slope["high"]
    assert slope["high"] - slope["low"] < 1


def test_a_slope_that_is_none_has_zero_in_its_interval(tmp_path: Path) -> None:
    rnd, rows = random.Random(1), records()
    for record in rows:
        record.ttft_ms = rnd.uniform(50, 150)
    slope = figures(tmp_path, rows)["ttft_ms_by_input_tokens"]["slope"]
    assert slope["low"] < 0 < slope["high"]


def test_many_lengths_are_put_into_bins_of_as_many_rows_each(tmp_path: Path) -> None:
    rows = records()
    for index, record in enumerate(rows):
        record.input_tokens = 1000 + index
        record.ttft_ms = float(index)
    bins = figures(tmp_path, rows)["ttft_ms_by_input_tokens"]["bins"]
    assert [one["rows"] for one in bins] == [75] * 8, "a p95 takes 72 rows"
    assert (bins[0]["from"], bins[0]["to"], bins[1]["from"]) == (1000, 1074, 1075)
    assert (bins[0]["p50"], bins[0]["p95"]) == (37, pytest.approx(70.3))


def test_a_small_run_has_medians_and_no_p95(tmp_path: Path) -> None:
    bins = figures(tmp_path, records()[:200])["ttft_ms_by_input_tokens"]["bins"]
    assert [one["rows"] for one in bins] == [50] * 4
    assert {one["p95"] for one in bins} == {None}
    assert figures(tmp_path / "smaller", records()[:40])["ttft_ms_by_input_tokens"] is None


def test_equal_or_unknown_lengths_explain_nothing(tmp_path: Path) -> None:
    assert figures(tmp_path / "equal", records(input_tokens=100))["ttft_ms_by_input_tokens"] is None
    unknown = figures(tmp_path / "unknown", records(input_tokens=None, output_tokens=None))
    assert unknown["ttft_ms_by_input_tokens"] is unknown["e2e_ms_by_output_tokens"] is None
    assert unknown["ttft_ms_by_cached_share"] is None


def test_a_cached_share_is_of_the_rows_that_tell_both(tmp_path: Path) -> None:
    rows = records()
    for index, record in enumerate(rows):
        record.cached_tokens = None if index % 3 == 0 else (record.input_tokens or 0) // (4 if index % 3 == 1 else 2)
        record.ttft_ms = 80.0 if index % 3 == 1 else 30.0
    found = figures(tmp_path, rows)["ttft_ms_by_cached_share"]
    assert [(one["x"], one["rows"], one["p50"]) for one in found["bins"]] == [(25, 200, 80), (50, 200, 30)]


def test_lengths_in_turn_are_all_seen_in_a_large_run() -> None:
    x = np.tile([100.0, 900.0], 2 * against.SEEN)
    y = x / 10 + np.linspace(0, 50, len(x))  # and slower by and by
    assert against.differs(x)
    assert [(one["x"], one["rows"]) for one in against._bins(x, y)] == [(100, len(x) // 2), (900, len(x) // 2)]
    slope = against._slope(x, y, 100)
    assert slope is not None
    assert slope["ms"] == pytest.approx(10, rel=0.1)


# In flight


def slowly(starts: list[float], ends: list[float]) -> list[int]:
    """By the definition: sent by then, itself included, and not ended."""
    at = zip(starts, ends, strict=True)
    return [max(1, sum(s <= now < e for s, e in zip(starts, ends, strict=True))) for now, _ in at]


def frame(starts: list[float], ends: list[float]) -> pd.DataFrame:
    columns: dict[str, Any] = dict.fromkeys(("pool_ms", "dns_ms", "tcp_ms", "tls_ms", "send_ms"), 0.0)
    return pd.DataFrame({"start_time": starts, "end_time": ends} | columns)


def test_in_flight_counts_itself_and_who_has_not_ended() -> None:
    rows = frame([0, 1, 2, 3, 3, 9], [2.5, 2, 8, 4, 4, 10])
    # The second ends as the third is sent: it makes room. The fourth and fifth are sent at one moment.
    assert against.in_flight(rows).tolist() == [1, 2, 2, 3, 3, 1]


@pytest.mark.parametrize("seed", range(5))
def test_in_flight_is_what_counting_each_pair_gives(seed: int) -> None:
    rnd = random.Random(seed)
    starts = [round(rnd.uniform(0, 20), 1) for _ in range(300)]
    ends = [start + round(rnd.choice([0.0, 0.1, rnd.uniform(0, 5)]), 1) for start in starts]
    assert against.in_flight(frame(starts, ends)).tolist() == slowly(starts, ends)


def test_in_flight_lasts_without_an_end_and_begins_when_sent() -> None:
    rows = frame([T0, T0 + 1, T0 + 2], [np.nan, T0 + 1.5, T0 + 3])
    rows.loc[1, "pool_ms"] = np.nan  # never sent
    rows["send_ms"] = [1500.0, 0.0, 0.0]
    found = against.in_flight(rows)
    assert (found[0], np.isnan(found[1]), found[2]) == (1, True, 2)


def test_the_ramp_counts_where_the_steady_window_has_one_concurrency(tmp_path: Path) -> None:
    rows = [maker.request(n, n * 0.1, 0.05, 0.5) for n in range(100)]
    rows += [maker.request(200 + n, 10 + n * 0.05, 0.05 + 0.1 * (n > 20), 1.0) for n in range(400)]
    run = read.load(maker.write(tmp_path, rows, maker.boundaries(10, 12, 30, 31), options={"warmup": 0.0}))
    found = against.figures(run, phases.find(run))["ttft_ms_by_in_flight"]
    assert found["rows"] == 500
    assert (found["bins"][0]["p50"], found["bins"][-1]["p50"]) == (50, 150)


# In the report


def test_the_report_draws_what_there_is_and_says_what_it_shows(tmp_path: Path) -> None:
    maker.write(tmp_path, records(), maker.boundaries(10, 0, 30, 31), options={"warmup": 0.0})
    text = report.render(run := read.load(tmp_path), summarise.summarise(run))
    assert 'id="chart-ttft_ms_by_input_tokens"' in text
    assert "Median 30.0 ms at 100, 100 ms at 800." in text
    assert "On the whole +10.0 ms for each 100 input tokens more (+10.0 to +10.0; Theil–Sen, 95 %)." in text
    assert "chart-ttft_ms_by_cached_share" not in text
    (source,) = [part for part in text.split("<script ") if 'id="chart-ttft_ms_by_input_tokens"' in part]
    chart = json.loads(source.split(">", 1)[1].split("</script>")[0])
    assert [trace["name"] for trace in chart["data"]] == ["ok", "median", "p95"]
    assert chart["data"][1]["x"] == list(LENGTHS)


def test_the_slowest_requests_are_always_drawn(tmp_path: Path) -> None:
    from tokenswarm.results.charts import against as charts
    from tokenswarm.results.language import ENGLISH

    rnd = np.random.default_rng(2)
    x, y = rnd.integers(1, 5000, 50_000).astype(float), rnd.lognormal(4, 0.3, 50_000)
    y[[7, 40_000]] = 9e4, 0.5
    pairs = against.Pairs(against.RELATIONS[0], x, y, np.ones(len(x), dtype=np.bool_))
    chart = charts.scatter(pairs, [], "x", "y", ENGLISH)
    assert {9e4, 0.5} <= set(chart["data"][0]["y"])
    assert len(chart["data"][0]["y"]) <= 1.1 * charts.MOST_POINTS
