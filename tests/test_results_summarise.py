"""Figures against made runs whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_directory_maker as maker

from tokenswarm.results import read, summarise, wording
from tokenswarm.results.distribution import of, unsure

RAMP = (10, 2, 60, 60)
"""Ten users, there after 2 s, so that steady is 12 s to 60 s."""


def summary(directory: Path) -> dict[str, Any]:
    return summarise.summarise(read.load(directory))


def healthy(tmp_path: Path, **kwargs: Any) -> Path:
    ttfts = [n / 1e3 for n in range(100, 200)]
    return maker.write(tmp_path, maker.closed_loop(ttfts=ttfts), maker.boundaries(*RAMP), **kwargs)


def rules(found: dict[str, Any]) -> dict[str, str]:
    return {reason["rule"]: reason["level"] for reason in found["verdict"]["reasons"]}


def test_a_healthy_run_is_valid_without_a_reason(tmp_path: Path) -> None:
    found = summary(healthy(tmp_path))
    assert found["verdict"]["level"] == "valid"
    assert found["verdict"]["reasons"] == []
    assert set(found["verdict"]["metrics"]) == {"ttft", "tpot", "itl", "e2e", "throughput", "concurrency"}
    assert found["defects"] == []


def test_percentiles_are_type_7_of_the_cohort(tmp_path: Path) -> None:
    run = read.load(healthy(tmp_path))
    steady = [r for r in maker.closed_loop(ttfts=[n / 1e3 for n in range(100, 200)]) if r.start_time >= maker.T0 + 12]
    truth = np.array([record.ttft_ms for record in steady])
    ttft = summarise.summarise(run)["latency"]["ttft_ms"]
    assert ttft["count"] == len(steady) == 960
    for name, q in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("p99.9", 99.9)):
        assert ttft[name] == pytest.approx(np.quantile(truth, q / 100), abs=1e-6)
    assert ttft["mean"] == pytest.approx(truth.mean())
    assert ttft["std"] == pytest.approx(np.std(truth, ddof=1))
    assert (ttft["min"], ttft["max"]) == (100.0, 199.0)


def test_type_7_of_a_small_sample_by_hand() -> None:
    found = of(np.array([4.0, 1.0, 2.0, 3.0, np.nan]))
    assert found is not None
    assert (found["count"], found["p50"], found["p90"]) == (4, 2.5, pytest.approx(3.7))
    assert of(np.array([np.nan])) is None


@pytest.mark.parametrize(("name", "needed"), [("p90", 36), ("p95", 72), ("p99", 368), ("p99.9", 3688)])
def test_a_percentile_is_unsure_below_the_rows_it_needs(name: str, needed: int) -> None:
    assert name in unsure(needed - 1)
    assert name not in unsure(needed)


def test_rates_and_concurrency_are_exact(tmp_path: Path) -> None:
    found = summary(healthy(tmp_path))
    rates, load = found["throughput"], found["concurrency"]
    assert rates["seconds"] == 48.0
    assert rates["requests_per_s"] == pytest.approx(20.0)
    assert rates["requests_per_s_per_user"] == pytest.approx(2.0)
    assert rates["output_tokens_per_s"] == pytest.approx(220.0)
    assert rates["input_tokens_per_s"] == pytest.approx(2000.0)
    assert rates["total_tokens_per_s"] == pytest.approx(2220.0)
    assert rates["characters_per_s"] == pytest.approx(880.0)
    assert rates["chunks_per_s"] == pytest.approx(220.0)
    assert rates["peak_output_tokens_per_s"] == pytest.approx(220.0)
    assert rates["tokens_placed_by"] == "chunks"
    assert load["users"] == 10
    assert load["in_flight"] == pytest.approx(10 * (500 - 0.2) / 500, abs=1e-4)  # 0.2 ms from start to sent
    assert load["in_flight_max"] == 10


def test_without_intervals_tokens_are_spread_over_their_rows(tmp_path: Path) -> None:
    healthy(tmp_path)
    (tmp_path / "intervals.jsonl").unlink()
    found = summary(tmp_path)
    assert found["throughput"]["tokens_placed_by"] == "rows"
    assert found["throughput"]["output_tokens_per_s"] == pytest.approx(220.0, rel=1e-3)
    assert found["throughput"]["chunks_per_s"] is None
    assert found["latency"]["itl_ms"] is None
    assert "itl" not in found["verdict"]["metrics"]


def test_itl_comes_from_the_merged_histograms(tmp_path: Path) -> None:
    itl = summary(healthy(tmp_path, itl_ms=40.0))["latency"]["itl_ms"]
    assert itl["count"] == 48 * 2 * 10
    assert itl["p99"] == pytest.approx(40.0, rel=5e-3)


def test_statuses_and_errors_are_counted_over_everything_and_the_cohort(tmp_path: Path) -> None:
    records = maker.closed_loop(users=10)
    records += [maker.failed(i, at, 1.0, "http_5xx", f"busy {i % 2}") for i, at in enumerate((1, 20, 30))]
    records += [maker.failed(9, 40, 2.0, "stall_timeout", "no chunk for 2 s", "timeout")]
    records += [maker.failed(10, 59.5, 1.0, "", "", "incomplete")]
    found = summary(maker.write(tmp_path, records, maker.boundaries(*RAMP)))
    assert found["requests"]["all"] == {
        "due": 1205, "ok": 1200, "failed": 3, "timeout": 1, "cancelled": 0, "incomplete": 1, "shed": 0,
    }  # fmt: skip
    assert (found["requests"]["cohort"]["due"], found["requests"]["cohort"]["failed"]) == (963 + 1, 2)
    first, second = found["errors"]
    assert (first["class"], first["count"], first["cohort"], first["first_s"], first["last_s"]) == (
        "http_5xx",
        3,
        2,
        2,
        31,
    )
    assert first["examples"][0] == {"message": "busy 0", "count": 2}
    assert second["class"] == "stall_timeout"


def test_ttft_counts_every_row_whose_first_token_came(tmp_path: Path) -> None:
    def cut_off(record: maker.Record, index: int) -> None:
        if index % 2:
            record.status, record.error_class, record.error = "failed", "truncated", "no end"

    found = summary(maker.write(tmp_path, maker.closed_loop(change=cut_off), maker.boundaries(*RAMP)))
    assert found["latency"]["ttft_ms"]["count"] == 960
    assert found["latency"]["e2e_ms"]["count"] == 480


def test_bounds_of_ttft_apart_make_ttft_invalid_and_nothing_else(tmp_path: Path) -> None:
    def unsure_arrival(record: maker.Record, index: int) -> None:
        record.ttft_low_ms = record.ttft_ms - 15

    found = summary(maker.write(tmp_path, maker.closed_loop(change=unsure_arrival), maker.boundaries(*RAMP)))
    assert found["latency"]["ttft_ms"]["low"]["p95"] == pytest.approx(85)
    assert rules(found) == {"ttft_bounds": "invalid"}
    assert {m for m, level in found["verdict"]["metrics"].items() if level != "valid"} == {"ttft"}


def test_slow_sending_is_told(tmp_path: Path) -> None:
    def slow(record: maker.Record, index: int) -> None:
        record.tls_ms = 4.0

    found = summary(maker.write(tmp_path, maker.closed_loop(change=slow), maker.boundaries(*RAMP)))
    assert rules(found) == {"send_delay": "degraded"}
    assert found["verdict"]["reasons"][0]["value"] == pytest.approx(4.2 / 100)


def test_a_new_connection_after_a_user_left_is_no_slow_sending(tmp_path: Path) -> None:
    """Nine of ten connections are new, as users leave who close them; what is slow on the others still counts."""

    def left(record: maker.Record, index: int) -> None:
        record.conn_reused = index % 10 == 0
        record.tcp_ms = None if record.conn_reused else 30.0
        record.status = "cancelled" if index % 2 else "ok"

    def slow(record: maker.Record, index: int) -> None:
        left(record, index)
        record.send_ms = 30.0

    for change, told in ((left, None), (slow, "invalid")):
        folder = tmp_path / change.__name__
        folder.mkdir()
        found = summary(maker.write(folder, maker.closed_loop(change=change), maker.boundaries(*RAMP)))
        assert rules(found).get("send_delay") == told


def test_users_of_a_run_without_a_steady_window_count_for_as_long_as_they_were_there(tmp_path: Path) -> None:
    records = [maker.request(i, i * 0.5, 0.1, 0.5) for i in range(6)]
    bounds = maker.boundaries(1, 0.1, 3, 3.04)
    directory = maker.write(tmp_path, records, bounds, users=1, options={"warmup": 5.0})
    path = directory / "intervals.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    last = {**lines[-1], "time": lines[-1]["time"] + 0.04, "seconds": 0.04, "users": 0, "seq": lines[-1]["seq"] + 1}
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, last]))
    found = summary(directory)
    assert found["phases"]["whole_run"]
    assert found["concurrency"]["users"] == pytest.approx(1.0, abs=0.02), "the last, short second has nobody"


def test_one_slow_send_among_few_condemns_nothing(tmp_path: Path) -> None:
    records = [maker.request(i, i * 0.5, 0.1, 0.5) for i in range(120)]
    records[60].send_ms = 40.0
    found = summary(maker.write(tmp_path, records, maker.boundaries(1, 2, 60, 60), users=1))
    assert 72 <= found["latency"]["ttft_ms"]["count"] < 368
    assert "send_delay" not in rules(found)


def with_status(records: list[maker.Record], status: str, share: float, error: str | None = None) -> list[maker.Record]:
    for record in records[:: round(1 / share)]:
        record.status, record.error_class = status, error
    return records


@pytest.mark.parametrize(("share", "level"), [(0.02, "degraded"), (0.1, "invalid")])
def test_what_the_stop_cut_is_missing_from_the_latencies(tmp_path: Path, share: float, level: str) -> None:
    records = with_status(maker.closed_loop(), "incomplete", share)
    assert rules(summary(maker.write(tmp_path, records, maker.boundaries(*RAMP))))["cut_by_the_stop"] == level


@pytest.mark.parametrize(("share", "level"), [(0.05, "note"), (0.25, "degraded"), (1.0, "invalid")])
def test_latencies_of_the_few_that_were_let_in(tmp_path: Path, share: float, level: str) -> None:
    records = with_status(maker.closed_loop(), "failed", share, "rate_limited")
    found = summary(maker.write(tmp_path, records, maker.boundaries(*RAMP)))
    assert rules(found)["mostly_failed"] == level
    assert "rate_limited" in next(r["text"] for r in found["verdict"]["reasons"] if r["rule"] == "mostly_failed")
    assert "in_flight_share" not in rules(found)


@pytest.mark.parametrize(("seconds", "level"), [(60.0, None), (14.0, "degraded"), (4.0, "invalid")])
def test_few_requests_are_no_measurement(tmp_path: Path, seconds: float, level: str | None) -> None:
    records = [maker.request(i, i * 1.0, 0.1, 1.0) for i in range(int(seconds))]
    bounds = maker.boundaries(1, 0.1, seconds, seconds)
    found = summary(maker.write(tmp_path, records, bounds, users=1, options={"warmup": 0.0}))
    assert rules(found).get("few_requests") == level


def test_a_scenario_that_raises_is_told(tmp_path: Path) -> None:
    raised = [{"count": 32, "message": "no attribute 'txt'\n\x1b[31m"}]
    found = summary(healthy(tmp_path, user_exceptions=raised))
    assert rules(found) == {"user_exceptions": "degraded"}
    (reason,) = found["verdict"]["reasons"]
    assert "32" in reason["text"]
    assert "no attribute 'txt'\\n" in reason["text"]


def test_a_settling_time_cut_short_and_a_run_stopped_by_hand_are_told(tmp_path: Path) -> None:
    records = [maker.request(i, i * 0.5, 0.1, 9.0) for i in range(120)]
    load = {"arrivals": "closed", "users": 18, "spawn_rate": 100.0, "run_time": 120.0}
    found = summary(maker.write(tmp_path, records, maker.boundaries(18, 0.1, 45, 70), users=18, load=load))
    assert rules(found)["settling_cut"] == "note"
    assert rules(found)["stopped_early"] == "note"


def idle_client(tmp_path: Path, **run: Any) -> dict[str, Any]:
    records = [maker.request(i, i * 0.5, 0.1, 0.45) for i in range(120)]
    return summary(maker.write(tmp_path, records, maker.boundaries(1, 2, 60, 60), users=1, **run))


def test_a_client_that_leaves_its_users_idle_is_invalid(tmp_path: Path) -> None:
    found = idle_client(tmp_path)
    assert rules(found) == {"in_flight_share": "invalid"}
    assert found["concurrency"]["share"] == pytest.approx(0.9, abs=1e-3)


def test_users_that_think_may_be_idle(tmp_path: Path) -> None:
    assert rules(idle_client(tmp_path, user_classes=[{"name": "ChatUser", "think_time": True}])) == {}


def test_an_open_loop_is_judged_by_what_was_shed_and_by_its_lag(tmp_path: Path) -> None:
    def late(record: maker.Record, index: int) -> None:
        record.queue_ms = 80.0
        if index % 50 == 0:
            record.status = "shed"

    load = {"arrivals": "poisson", "users": 10, "spawn_rate": 1, "run_time": 60}
    found = summary(maker.write(tmp_path, maker.closed_loop(change=late), maker.boundaries(*RAMP), load=load))
    assert rules(found) == {"schedule_lag": "invalid", "sent_share": "degraded"}
    (shed,) = (reason for reason in found["verdict"]["reasons"] if reason["rule"] == "sent_share")
    assert "no place under --max-in-flight" in shed["advice"], "nothing else sheds"


def test_a_retry_is_no_lateness_of_the_client(tmp_path: Path) -> None:
    def again(record: maker.Record, index: int) -> None:
        if index % 20 == 0:
            record.parent, record.queue_ms = f"r{index + 1}", 700.0

    load = {"arrivals": "poisson", "users": 10, "spawn_rate": 1, "run_time": 60}
    found = summary(maker.write(tmp_path, maker.closed_loop(change=again), maker.boundaries(*RAMP), load=load))
    assert "schedule_lag" not in rules(found)


def test_a_killed_run_with_requests_in_flight_is_invalid_and_counts_them(tmp_path: Path) -> None:
    done = maker.closed_loop(users=10, seconds=50)
    cut = [maker.request(10_000 + i, 50, 0.1, 5.5, worker=i % 2) for i in range(10)]
    bounds = maker.boundaries(10, 2, 60, 60)[:3]
    found = summary(maker.write(tmp_path, done, bounds, without_row=cut, end=None))
    assert found["requests"]["unaccounted"] == 10
    assert rules(found) == {"rows_unaccounted": "invalid", "not_ended": "degraded"}
    assert found["latency"]["ttft_ms"]["p50"] == pytest.approx(100)
    assert found["concurrency"]["in_flight_from"] == "intervals"


def test_a_lost_worker_and_a_lost_interval_are_found(tmp_path: Path) -> None:
    healthy(tmp_path)
    path = tmp_path / "intervals.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [line for line in lines if not (line["worker"] == 1 and line["seq"] > 30) and line["seq"] != 20]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    expected = dict.fromkeys(("worker_lost", "intervals_missing", "users_share"), "invalid")
    assert rules(summary(tmp_path)) == expected


def test_a_worker_that_the_master_lost_is_invalid_and_the_window_before_it_is_kept(tmp_path: Path) -> None:
    workers = [{"index": 0, "status": "finished"}, {"index": 1, "status": "lost"}]
    bounds = sorted(
        [*maker.boundaries(*RAMP), {"event": "lost", "time": maker.T0 + 40, "users": RAMP[0]}], key=lambda b: b["time"]
    )
    found = summary(healthy(tmp_path, workers=workers, boundaries=bounds))
    assert rules(found)["worker_lost"] == "invalid"
    assert [window["end"] - maker.T0 for window in found["phases"]["windows"]] == [40]
    assert wording.what_ran(found).startswith("10 users, closed loop")


@pytest.mark.parametrize(("uncertainty", "level"), [(49.0, None), (51.0, "degraded")])
def test_a_worker_whose_time_is_hardly_known_degrades_what_is_per_second(
    tmp_path: Path, uncertainty: float, level: str | None
) -> None:
    workers = [{"index": 0, "clock_uncertainty_ms": 0.2}, {"index": 1, "clock_uncertainty_ms": uncertainty}]
    found = summary(healthy(tmp_path, workers=workers))
    assert rules(found).get("clock_uncertain") == level
    assert found["verdict"]["metrics"]["ttft"] == "valid"


def test_a_worker_whose_clock_is_wrong_is_told_and_spoils_nothing(tmp_path: Path) -> None:
    workers = [{"index": 0, "clock_offset_ms": 99.0}, {"index": 3, "clock_offset_ms": -37_000.0}]
    found = summary(healthy(tmp_path, workers=workers))
    assert rules(found) == {"clock_off": "note"}
    assert "worker 3 is 37,000 ms off" in found["verdict"]["reasons"][0]["text"]
    assert found["verdict"]["level"] == "valid"


def test_lost_rows_are_invalid(tmp_path: Path) -> None:
    assert rules(summary(healthy(tmp_path, rows={"written": 1200, "lost": 5}))) == {"rows_lost": "invalid"}


def test_no_ok_row_is_invalid_for_all(tmp_path: Path) -> None:
    records = [maker.failed(i, i * 0.1, 0.05, "connect", "refused") for i in range(600)]
    found = summary(maker.write(tmp_path, records, maker.boundaries(*RAMP)))
    assert rules(found)["no_ok_rows"] == "invalid"
    assert set(found["verdict"]["metrics"].values()) == {"invalid"}
    assert found["latency"]["ttft_ms"] is None
    assert found["throughput"]["output_tokens_per_s"] is None
    assert found["throughput"]["requests_per_s"] == 0


@pytest.mark.parametrize("records", [[], [maker.request(0, 0, 0.1, 0.5)]])
def test_hardly_any_rows_are_survived(tmp_path: Path, records: list[maker.Record]) -> None:
    found = summary(maker.write(tmp_path, records, []))
    assert found["verdict"]["level"] == "invalid"
    assert "no_steady_window" in rules(found)
    assert any("whole run" in defect for defect in found["defects"])
    json.dumps(found, allow_nan=False)


def test_user_clock_and_estimated_tokens_are_disclosed_and_leave_the_run_valid(tmp_path: Path) -> None:
    def change(record: maker.Record, index: int) -> None:
        record.clock, record.token_source, record.input_tokens = "user", "chunks", None

    found = summary(maker.write(tmp_path, maker.closed_loop(change=change), maker.boundaries(*RAMP)))
    assert rules(found) == {"user_clock": "note", "tokens_estimated": "note"}
    assert found["verdict"]["level"] == "valid"
    assert found["tokens"]["estimated"]


def test_tiny_and_short_outputs_are_told(tmp_path: Path) -> None:
    def change(record: maker.Record, index: int) -> None:
        record.asked_output_tokens = 11
        record.output_tokens = record.chunks = 1 if index % 5 == 0 else 4 if index % 20 == 1 else 11

    records = maker.closed_loop(change=change)
    options = {"extra_body": {"ignore_eos": True}}
    found = summary(maker.write(tmp_path, records, maker.boundaries(*RAMP), options=options))
    assert rules(found) == {"tiny_outputs": "invalid", "short_outputs": "degraded"}
    assert found["tokens"]["asked"]["asked_mean"] == 11


def test_answers_shorter_than_a_mere_limit_are_only_noted(tmp_path: Path) -> None:
    def change(record: maker.Record, index: int) -> None:
        record.asked_output_tokens = 500

    found = summary(maker.write(tmp_path, maker.closed_loop(change=change), maker.boundaries(*RAMP)))
    assert rules(found) == {"early_stops": "note"}
    assert found["verdict"]["level"] == "valid"


def test_one_token_that_was_asked_for_is_no_fault(tmp_path: Path) -> None:
    def change(record: maker.Record, index: int) -> None:
        record.asked_output_tokens = record.output_tokens = record.chunks = 1

    assert rules(summary(maker.write(tmp_path, maker.closed_loop(change=change), maker.boundaries(*RAMP)))) == {}


def test_each_load_level_has_figures_of_its_own(tmp_path: Path) -> None:
    records = maker.closed_loop(users=2, seconds=30) + maker.closed_loop(users=4, seconds=30)
    for record in records[120:]:
        for name in ("start_time", "intended_time", "first_token_time", "end_time"):
            setattr(record, name, getattr(record, name) + 30)
    events = [("target", 0, 2), ("spawned", 0, 2), ("target", 30, 4), ("spawned", 30, 4), ("stopping", 60, 4)]
    bounds = [{"event": event, "time": maker.T0 + at, "users": n} for event, at, n in events]
    found = summary(maker.write(tmp_path, records, bounds, users=4))
    assert [(window["step"], window["users"]) for window in found["windows"]] == [(0, 2), (1, 4)]
    assert [round(window["throughput"]["requests_per_s"], 6) for window in found["windows"]] == [4, 8]
    assert found["concurrency"]["users"] == 3
    assert rules(found) == {"several_levels": "note"}


def test_the_summary_is_json_and_is_replaced_as_a_whole(tmp_path: Path) -> None:
    healthy(tmp_path)
    found = summary(tmp_path)
    path = summarise.write(found, tmp_path)
    assert json.loads(path.read_text())["throughput"]["requests_per_s"] == found["throughput"]["requests_per_s"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["intervals.jsonl", "requests.csv", "run.json", "summary.json"]


@pytest.mark.parametrize("left", [0, 2, 70, None])
def test_intervals_that_were_cut_off_are_missed_and_tokens_are_placed_by_rows(tmp_path: Path, left: int | None) -> None:
    """run.json knows how many reports came, so that a file without its end is not taken for a whole one."""
    workers = [{"index": index, "batches": 60} for index in (0, 1)]
    path = healthy(tmp_path, workers=workers) / "intervals.jsonl"
    whole = summary(tmp_path)
    if left is None:
        path.unlink()
    else:
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:left]))
    found = summary(tmp_path)
    assert (whole["throughput"]["tokens_placed_by"], found["throughput"]["tokens_placed_by"]) == ("chunks", "rows")
    assert rules(found)["intervals_missing"] == "invalid"
    told, true = (one["throughput"]["output_tokens_per_s"] for one in (found, whole))
    assert told == pytest.approx(true, rel=0.02)


def test_without_run_json_nobody_says_that_the_run_was_killed(tmp_path: Path) -> None:
    (healthy(tmp_path) / "run.json").unlink()
    found = summary(tmp_path)
    assert "not_ended" not in rules(found)
    assert found["defects"][0] == "run.json is missing."
