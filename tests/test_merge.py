"""One timeline: each number recomputed by other code, workers and clocks that change nothing, damage that is told."""

from __future__ import annotations

import csv
import json
import math
import random
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import run_directory_maker as maker
import timeline_oracle as oracle
from exporter_process import FakeNvml, uuid
from hypothesis import given, settings
from hypothesis import strategies as st
from locust_process import locust
from simulator_process import Running

from tokenswarm.results.merge import command as merge_command
from tokenswarm.results.merge.command import main

ROOT = Path(__file__).resolve().parent.parent
T0 = int(maker.T0)
SETTINGS = settings(max_examples=8, deadline=None)
LOCUST_HEADER = "Timestamp,User Count,Type,Name,Requests/s,Failures/s,50%,95%,Total Request Count,Total Failure Count"


def merged(path: Path | str, *options: str | Path) -> merge_command.Merged:
    given = [str(path), *map(str, options)]
    return merge_command.merged(given[0], merge_command.parser().parse_args(given))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def small(folder: Path, **run: Any) -> Path:
    """Four users for twelve seconds, two GPUs and a server's page."""
    directory = maker.write(folder, maker.closed_loop(users=4, seconds=12), maker.boundaries(4, 1, 12, 12.5), 4, **run)
    lines = ["time,host,device,metric,value,mean,max"]
    for second in range(12):
        for gpu, watts in (("GPU-a", 100), ("GPU-b", 200)):
            lines.append(f"{T0 + second + 0.5:.6f},gpu1,{gpu},power_watts,{watts},{watts + second},{watts}")
    (directory / "hardware.csv").write_text("\n".join(lines) + "\n")
    return directory


def agree(table: pd.DataFrame, expected: list[oracle.Row]) -> None:
    """Both have the same columns of numbers, with the same numbers, and the same cells empty."""
    assert len(table) == len(expected)
    known = {name for row in expected for name in row}
    for name in known:
        for index, row in enumerate(expected):
            value = table[name][index]
            if name in row:
                assert float(value) == pytest.approx(row[name], rel=1e-6, abs=1e-6), (name, index)
            else:
                assert pd.isna(value), (name, index)
    left = {str(name) for name in table if not str(name).startswith("locust_")} - known - {"utc", "phase"}
    assert all(table[name].isna().all() for name in left), left


# Against other code


@pytest.mark.slow
def test_a_real_run_with_gpus_agrees_with_plain_python(tmp_path: Path, quick_simulator: Running) -> None:
    nvml = FakeNvml(tmp_path, "cards 0 1", "0 utilization 37", "1 power 250000")
    options = ("--host", quick_simulator.url, "-u", "4", "-r", "4", "--hardware", "local", "--server-metrics", "target")
    with locust(tmp_path, "--headless", *options, env=nvml.env) as process:
        run = process.run_dir
        process.until(lambda: sampled(run / "hardware.csv", uuid(1)) >= 3)
        process.interrupt()
        assert process.wait() == 0, process.output
    assert main([str(run), "--also", "energy_joules_total"]) == 0
    table = pd.read_csv(run / "timeline.csv")
    (host,) = {line["host"] for line in rows(run / "hardware.csv")}
    watts = [table.pop(f"{host}/gpu{card}/energy_joules_per_s").dropna().tolist() for card in (0, 1)]
    assert watts[1] == pytest.approx([250] * len(watts[1]), rel=0.05)
    keep_main_metrics(run)
    agree(table, oracle.timeline(run, [int(second) for second in table["time"]]))
    assert set(table[f"{host}/gpu0/utilization_ratio"].dropna()) == {0.37}
    assert table["requests_ended"].sum() == len(rows(run / "requests.csv"))
    assert table["locust_requests_total"].max() == len(rows(run / "requests.csv"))


def sampled(path: Path, device: str) -> int:
    return len({line["time"] for line in rows(path) if line["device"] == device}) if path.exists() else 0


def keep_main_metrics(run: Path) -> None:
    """Leave to the oracle only what is in a timeline by default."""
    from tokenswarm.results.files.server_metrics import MAIN
    from tokenswarm.results.hardware import SHOWN

    for name, kept in (("hardware.csv", {*SHOWN}), ("server_metrics.csv", {*MAIN, "up"})):
        lines = rows(run / name)
        with (run / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(line for line in lines if line["metric"] in kept)


@pytest.mark.parametrize("every", [1, 3])
def test_a_made_run_agrees_with_plain_python(tmp_path: Path, every: int) -> None:
    rnd = random.Random(7)
    records = [
        maker.request(n, rnd.uniform(0, 10), t := rnd.uniform(0.01, 0.5), t + rnd.uniform(0.1, 3), rnd.randint(1, 30))
        for n in range(60)
    ]
    for record in records:
        record.worker = rnd.randrange(2)
    records += [maker.failed(n, rnd.uniform(0, 10), 0.3, "http_5xx", "no") for n in range(9)]
    records += [maker.failed(100, 2, 9, "total_timeout", "late", "timeout")]
    directory = maker.write(tmp_path, records, users=6)
    (directory / "hardware.csv").write_bytes((small(tmp_path / "other") / "hardware.csv").read_bytes())
    table = merged(directory, "--every", f"{every}s").table
    agree(table, oracle.timeline(directory, [int(second) for second in table["time"]], every))


# What must change nothing


def comparable(table: pd.DataFrame) -> dict[str, list[float | None]]:
    """The numbers, rounded, without what is of the busiest worker."""
    kept = table.drop(columns=[name for name in table if str(name).startswith(("client_", "utc"))])
    return {
        str(name): [
            None if pd.isna(each) else each if isinstance(each, str) else round(float(each), 6) for each in column
        ]
        for name, column in kept.items()
    }


@SETTINGS
@given(st.lists(st.integers(0, 2), min_size=12, max_size=12), st.randoms(use_true_random=False))
def test_splitting_a_run_over_workers_changes_nothing(workers: list[int], rnd: random.Random) -> None:
    starts = [(rnd.uniform(0, 4), rnd.uniform(0.01, 0.5), rnd.randint(1, 9)) for _ in workers]
    records = [maker.request(n, at, ttft, ttft + 0.7, tokens) for n, (at, ttft, tokens) in enumerate(starts)]
    share = {
        worker: 6 // len({*workers}) + (6 % len({*workers}) if worker == min(workers) else 0) for worker in workers
    }
    with tempfile.TemporaryDirectory() as folder:
        whole = maker.write(Path(folder) / "one", records, users=6, health=lambda worker, second: {"users": 6})
        one = comparable(merged(whole).table)
        for record, worker in zip(records, workers, strict=True):
            record.worker = worker
        split = maker.write(
            Path(folder) / "split", records, users=6, health=lambda worker, second: {"users": share[worker]}
        )
        assert comparable(merged(split).table) == one


def test_a_clock_that_is_off_is_put_right(tmp_path: Path) -> None:
    run = small(tmp_path / "run")
    tables = []
    for name, offset in (("right", 0.0), ("ahead", 3600.5), ("behind", -7.25)):
        file = tmp_path / name / "gpu.csv"
        file.parent.mkdir()
        file.write_text("time,watts\n" + "".join(f"{T0 + n + 0.25 + offset:.3f},{n}\n" for n in range(5)))
        tables.append(merged(run, "--hardware", file, f"--offset={offset}").table)
    assert tables[0]["gpu/host/watts"].dropna().tolist() == [0, 1, 2, 3, 4]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])


# Gaps, resets, and what is not interpolated


def test_a_second_without_a_sample_is_empty(tmp_path: Path) -> None:
    directory = small(tmp_path)
    path = directory / "hardware.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if f"{T0 + 5}.5" not in line))
    power = merged(directory).table["gpu1/GPU-a/power_watts"]
    assert [math.isnan(each) for each in power[4:7]] == [False, True, False]


def test_a_second_in_which_nothing_starts_has_counts_of_0_and_no_percentile(tmp_path: Path) -> None:
    directory = maker.write(tmp_path, [maker.request(0, 0.2, 0.1, 0.5), maker.request(1, 3.2, 0.1, 0.5)], users=1)
    table = merged(directory).table
    assert table["requests_started"].tolist() == [1, 0, 0, 1]
    assert table["ttft_p50_ms"].isna().tolist() == [False, True, True, False]
    assert table["output_tokens_per_s"].tolist() == [11, 0, 0, 11]


def test_a_second_without_any_workers_report_has_no_rate(tmp_path: Path) -> None:
    directory = small(tmp_path)
    path = directory / "intervals.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line["seq"] != 4))
    table = merged(directory).table
    assert table["chunks_per_s"].isna().tolist()[3:6] == [False, True, False]
    assert table["client_cpu_percent_max"].isna().tolist()[3:6] == [False, True, False]


def page(*values: tuple[float, str, float]) -> str:
    """server_metrics.csv of (second, metric, value)."""
    lines = [f"{T0 + at:.6f},http://server:8000/metrics,{metric},,{value}" for at, metric, value in values]
    return "time,source,metric,labels,value\n" + "\n".join(lines) + "\n"


def test_a_servers_values_hold_while_its_page_is_there_and_counters_are_rates(tmp_path: Path) -> None:
    directory = small(tmp_path)
    running, made = "vllm:num_requests_running", "vllm:generation_tokens_total"
    told = [(0.5, "up", 1), (0.5, running, 3), (0.5, made, 100), (1.5, "up", 1), (1.5, made, 160)]
    told += [(2.5, "up", 0), (3.5, "up", 1), (3.5, running, 5), (3.5, made, 200), (4.5, "up", 1)]
    told += [(5.5, "up", 1), (5.5, made, 7), (6.5, "up", 1), (6.5, made, 27)]
    (directory / "server_metrics.csv").write_text(page(*told))
    table = merged(directory).table
    nan = float("nan")
    assert table["server:8000/vllm:num_requests_running"][:8].tolist() == pytest.approx(
        [3, 3, nan, 5, 5, 5, 5, nan], nan_ok=True
    )
    # Not across the second in which it did not answer, and not where the counter began anew.
    assert table["server:8000/vllm:generation_tokens_per_s"][:8].tolist() == pytest.approx(
        [nan, 60, nan, nan, 0, nan, 20, nan], nan_ok=True
    )


def test_metrics_with_several_series_keep_their_labels_and_others_can_be_asked_for(tmp_path: Path) -> None:
    directory = small(tmp_path)
    text = "time,source,metric,labels,value\n"
    for metric, labels in (("vllm:num_requests_waiting", 'engine=""{0}""'), ("odd_gauge", "")):
        for engine in (0, 1) if labels else (0,):
            text += f'{T0 + 0.5},http://s/metrics,{metric},"{labels.format(engine)}",{engine}\n'
    (directory / "server_metrics.csv").write_text(text + f"{T0 + 0.5},http://s/metrics,up,,1\n")
    assert [name for name in merged(directory).table if str(name).startswith("s/")] == [
        's/vllm:num_requests_waiting{engine="0"}',
        's/vllm:num_requests_waiting{engine="1"}',
    ]
    assert "s/odd_gauge" in merged(directory, "--also", "odd_*").table


# Any Locust's own CSVs


def locust_history(folder: Path, *lines: str) -> Path:
    prefix = folder / "soak"
    (folder / "soak_stats_history.csv").write_text("\n".join([LOCUST_HEADER, *lines]) + "\n")
    return prefix


def test_a_plain_locust_run_is_joined_with_somebody_elses_samples(tmp_path: Path) -> None:
    prefix = locust_history(
        tmp_path,
        f"{T0},0,,Aggregated,0.0,0.0,N/A,N/A,0,0",
        f"{T0 + 1},5,GET,/a,3.0,0.0,10,20,3,0",
        f"{T0 + 1},5,,Aggregated,4.0,1.0,12,30,4,1",
        f"{T0 + 3},5,,Aggregated,6.0,0.0,13,31,12,1",
    )
    (tmp_path / "soak_stats.csv").write_text("Type,Name,Request Count\nGET,/a,12\n,Aggregated,15\n")
    (tmp_path / "gpu7.csv").write_text(f"timestamp,uuid,power.draw [W]\n{(T0 + 1.5) * 1000:.0f},GPU-a,300.00 W\n")
    found = merged(prefix, "--hardware", tmp_path / "gpu7.csv")
    nan = float("nan")
    assert found.table["time"].tolist() == [T0, T0 + 1, T0 + 2, T0 + 3, T0 + 4]
    assert found.table["locust_requests_per_s"].tolist() == pytest.approx([0, 4, nan, 6, nan], nan_ok=True)
    assert found.table["locust_p95_ms"].tolist() == pytest.approx([nan, 30, nan, 31, nan], nan_ok=True)
    assert found.table["gpu7/GPU-a/power_watts"].tolist() == pytest.approx([nan, 300, nan, nan, nan], nan_ok=True)
    assert found.defects == ["soak_stats.csv counts 15 requests, the history only 12: its end is missing."]
    assert merged(tmp_path / "soak_stats.csv").default == tmp_path / "soak_timeline.csv"


# Damage


def test_each_damage_is_told_and_the_rest_is_there(tmp_path: Path) -> None:
    directory = small(tmp_path)
    requests = directory / "requests.csv"
    lines = requests.read_text().splitlines(keepends=True)
    requests.write_text("".join([*lines[:40], lines[5], lines[41].replace(",100.000", ",nan"), lines[42][:50]]))
    hardware = directory / "hardware.csv"
    hardware.write_text(hardware.read_text() + f"{T0 + 12},gpu1,GPU-a,power_watts,NaN,,\n{T0 + 12}.5,gpu1,GPU-a,pow")
    (directory / "server_metrics.csv").write_text("")
    found = merged(directory)
    assert found.defects == [
        "requests.csv: the last row is torn (50 characters) and was left out.",
        "requests.csv: 4 cells that should be numbers are not; they count as not measured.",
        "requests.csv: 1 rows are there twice, and count once.",
        "hardware.csv: the last row is torn (27 characters) and was left out.",
        "hardware.csv: 1 lines are damaged and were left out.",
        "server_metrics.csv is empty: it has not even the names of its columns.",
        "56 requests have no row: in_flight and the counts of requests lack them.",
        "locust_stats_history.csv is missing.",
    ]
    assert found.table["requests_started"].sum() == 40
    assert found.table["gpu1/GPU-a/power_watts"].notna().sum() == 12


@pytest.mark.parametrize("name", ["run.json", "requests.csv", "intervals.jsonl"])
def test_without_one_file_the_rest_is_merged(tmp_path: Path, name: str) -> None:
    directory = small(tmp_path)
    (directory / name).unlink()
    found = merged(directory)
    assert f"{name} is missing." in found.defects
    assert found.table["gpu1/GPU-a/power_watts"].notna().sum() == 12
    assert ("requests_started" in found.table) == (name != "requests.csv")
    assert ("users" in found.table) == (name != "intervals.jsonl")


def test_empty_runs_and_runs_of_one_request_have_a_timeline(tmp_path: Path) -> None:
    empty = merged(maker.write(tmp_path / "empty", [])).table
    assert empty["requests_started"].sum() == 0
    assert empty["ttft_p50_ms"].isna().all()
    one = merged(maker.write(tmp_path / "one", [maker.request(0, 0.5, 0.1, 0.3, tokens=1)])).table
    assert one["ttft_p95_ms"].tolist() == [pytest.approx(100)]
    assert one["tpot_samples"].tolist() == [0]


def test_when_all_requests_fail_there_are_counts_and_no_latency(tmp_path: Path) -> None:
    records = [maker.failed(n, n / 2, 0.1, "connect", "refused") for n in range(10)]
    table = merged(maker.write(tmp_path, records)).table
    assert table["requests_failed"].sum() == 10
    assert table["requests_ok"].sum() == 0
    assert table["ttft_p50_ms"].isna().all()
    assert "output_tokens_per_s" not in table


def test_a_time_that_cannot_be_stretches_no_timeline(tmp_path: Path) -> None:
    records = maker.closed_loop(users=1, seconds=5)
    records[3].start_time, records[4].end_time = 1e10, 12.0
    end = {"time": maker.T0 + 5, "utc": "", "monotonic_ns": 0}
    directory = maker.write(tmp_path, maker.closed_loop(users=1, seconds=5), end=end)
    (directory / "requests.csv").write_text(maker.csv_header() + maker.csv_rows(records))
    found = merged(directory)
    assert len(found.table) == 6
    assert "2 requests are outside of the run's time, and not in its timeline." in found.defects


def test_samples_of_another_time_are_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "gpu.csv").write_text(f"time,watts\n{T0 + 7200},1\n")
    (said,) = [
        text
        for text in merged(small(tmp_path / "run"), "--hardware", tmp_path / "gpu.csv").defects
        if "samples" in text
    ]
    assert "none of its 1 samples (2025-11-20 15:40:00" in said
    assert "--timezone and --offset set a clock right" in said


# The command


def test_each_run_gets_its_file_or_all_get_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [small(tmp_path / f"run-{n}", run_id=f"run-{n}") for n in (1, 2)]
    assert main([str(tmp_path / "run-*")]) == 0
    assert all(len(rows(run / "timeline.csv")) == 13 for run in runs)
    assert main([*map(str, runs), "--out", str(tmp_path / "all.csv"), "--every", "2s"]) == 0
    both = rows(tmp_path / "all.csv")
    assert [row["run"] for row in both] == ["run-1"] * 7 + ["run-2"] * 7
    assert (both[0]["time"], both[0]["utc"], both[0]["requests_started"]) == (str(T0), "2025-11-20T13:40:00Z", "16")
    assert "all.csv: 14 rows of 2 s" in capsys.readouterr().out


def test_a_run_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = small(tmp_path / "run")
    assert main([str(tmp_path / "nowhere"), str(run)]) == 2
    assert "nowhere: there is no such run directory, and no" in capsys.readouterr().err
    assert (run / "timeline.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--every", "never"], "write 1s, 500ms or 1m"),
        (["--out", "x.xlsx"], "the name must end in .csv or .parquet"),
        (["--hardware", "nowhere.csv"], "nowhere.csv: there is no such file"),
        (["--timezone", "Nowhere"], "write Europe/Berlin, Asia/Shanghai or +02:00"),
        (["nothing-*"], "nothing-*: nothing is there by such a name"),
    ],
)
def test_a_wrong_command_line_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    run = maker.write(tmp_path, maker.closed_loop(users=1, seconds=1))
    try:
        status = main([str(run), *arguments])
    except SystemExit as refused:
        status = int(refused.code or 0)
    assert status == 2
    assert says in capsys.readouterr().err


def test_without_pyarrow_parquet_is_refused_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge_command.importlib.util, "find_spec", lambda name: None)
    assert main([str(tmp_path), "--out", str(tmp_path / "x.parquet")]) == 2
    assert "pip install pyarrow, or name a .csv file" in capsys.readouterr().err


def test_parquet_holds_what_csv_holds(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    run = small(tmp_path / "run")
    assert main([str(run), "--out", str(tmp_path / "x.parquet")]) == 0
    table = pd.read_parquet(tmp_path / "x.parquet")
    pd.testing.assert_frame_equal(table, merged(run).table, check_dtype=False)


def test_the_script_starts_and_its_cells_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, run = ROOT / "analysis" / "merge.py", small(tmp_path / "run")
    done = subprocess.run([sys.executable, script, run], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "timeline.csv: 13 rows of 1 s" in done.stdout
    cells = tmp_path / "cells.py"
    cells.write_text(script.read_text().replace("runs/20261120T134000Z-chat", str(run)))
    assert len(runpy.run_path(str(cells))["one"].table) == 13
    assert "gpu1/GPU-a/power_watts" in capsys.readouterr().out
