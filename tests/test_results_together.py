"""All on one time axis, GPUs together, energy and distributions in the report: what is drawn, and what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import run_directory_maker as maker
from run_directory_maker import T0

from tokenswarm import histogram
from tokenswarm.results import console, phases, read, report, summarise
from tokenswarm.results.charts import distributions, together
from tokenswarm.results.figures import gpus
from tokenswarm.results.language import ENGLISH
from tokenswarm.results.report import contents

HEADER = "time,host,device,metric,value,mean,max\n"


def made(folder: Path, cards: int, *more: str, host: str = "gpu1", **run: Any) -> Path:
    """Ten users, 5 requests a second of 11 output and 100 input tokens, steady from 12 s to 60 s; so many GPUs, each of
    300 W and 50 % at even seconds, of 100 W and 30 % at odd ones."""
    devices = [{"device": f"GPU-{card}", "kind": "gpu", "gpu": str(card)} for card in range(cards)]
    run = {"scraped": [{"file": "hardware.csv", "host": host, "devices": devices}]} | run
    maker.write(folder, maker.closed_loop(e2e=2.0), maker.boundaries(10, 2, 60, 62), **run)
    lines = [HEADER]
    for second in range(62):
        for card in range(cards):
            for metric, even, odd in (("power_watts", 300, 100), ("utilization_ratio", 0.5, 0.3)):
                value = odd if second % 2 else even
                lines.append(f"{T0 + second:.6f},{host},GPU-{card},{metric},{value},,\n")
            lines.append(f"{T0 + second:.6f},{host},GPU-{card},energy_joules_total,{1e6 + 200 * second},,\n")
    (folder / "hardware.csv").write_text("".join([*lines, *more]))
    return folder


def chart(directory: Path, clients: tuple[str, ...] = ("client-1",)) -> Any:
    run = read.load(directory)
    return together.chart(run, phases.find(run), clients, ENGLISH)


def titles(found: Any) -> list[str]:
    """Of the rows, from above."""
    return [note["text"] for note in found["layout"]["annotations"] if "weight" in note["font"]]


def row(found: Any, title: str) -> dict[str, Any]:
    """The traces of a row, by their names."""
    number = titles(found).index(title) + 1
    axis = "y" if number == 1 else f"y{number}"
    return {trace["name"]: trace for trace in found["data"] if trace["yaxis"] == axis and "name" in trace}


# One time axis


def test_hardware_stands_under_tokens_and_ttft_on_one_axis(tmp_path: Path) -> None:
    found = chart(
        made(tmp_path, 2, f"{T0 + 9},client-1,host,cpu_busy_ratio,0.5,,\n{T0 + 9},gpu1,host,cpu_busy_ratio,0.2,,\n")
    )
    assert titles(found) == [
        "Output tokens",
        "TTFT, by the time a request started",
        "GPU utilization",
        "GPU power",
        "CPU of the machines",
    ]
    assert {trace["xaxis"] for trace in found["data"]} == {"x"}
    assert set(row(found, "GPU power")) == {"gpu1/gpu0", "gpu1/gpu1"}
    assert row(found, "GPU utilization")["gpu1/gpu0"]["y"][:2] == [50, 30]
    assert set(row(found, "CPU of the machines")) == {"client-1 (client)", "gpu1 (GPUs)"}
    json.dumps(found, allow_nan=False)


def test_a_client_that_has_the_gpus_is_called_both(tmp_path: Path) -> None:
    found = chart(made(tmp_path, 1, f"{T0 + 9},gpu1,host,cpu_busy_ratio,0.5,,\n"), ("gpu1",))
    assert set(row(found, "CPU of the machines")) == {"gpu1 (client, with GPUs)"}


def test_many_gpus_are_a_mean_and_a_band(tmp_path: Path) -> None:
    directory = made(tmp_path, 5)
    text = (directory / "hardware.csv").read_text()
    (directory / "hardware.csv").write_text(text.replace("GPU-3,power_watts,300", "GPU-3,power_watts,700"))
    found = row(chart(directory), "GPU power")
    assert set(found) == {"lowest to highest", "mean of 5 GPUs"}
    assert found["mean of 5 GPUs"]["y"][:2] == [380, 100]
    assert found["lowest to highest"]["y"][:2] == [700, 100]


def test_many_machines_are_a_mean_and_a_band_of_machines(tmp_path: Path) -> None:
    hosts = {f"client-{number}": number / 10 for number in range(1, 6)}
    more = (f"{T0 + at},{host},host,cpu_busy_ratio,{busy},,\n" for at in range(60) for host, busy in hosts.items())
    found = row(chart(made(tmp_path, 1, *more)), "CPU of the machines")
    assert set(found) == {"lowest to highest", "mean of 5 machines"}
    assert (found["mean of 5 machines"]["y"][0], found["lowest to highest"]["y"][0]) == (30, 50)
    assert len(found["mean of 5 machines"]["x"]) == 60, "a sample a second of each is a point a second"


def test_a_line_is_broken_where_nothing_was_told(tmp_path: Path) -> None:
    directory = made(tmp_path, 1)
    lines = (directory / "hardware.csv").read_text().splitlines(keepends=True)
    gone = [f"{T0 + second:.6f}" for second in range(20, 30)]
    (directory / "hardware.csv").write_text("".join(line for line in lines if line.split(",")[0] not in gone))
    y = row(chart(directory), "GPU power")["gpu1/gpu0"]["y"]
    assert (len(y), y[20], y[19], y[21]) == (53, None, 100, 300)


def test_without_hardware_and_server_there_is_no_such_chart(tmp_path: Path) -> None:
    maker.write(tmp_path, maker.closed_loop(e2e=2.0), maker.boundaries(10, 2, 60, 62))
    run = read.load(tmp_path)
    summary = summarise.summarise(run)
    assert chart(tmp_path) is None
    assert summary["gpus"] == []
    assert summary["energy"] is summary["per_gpu"] is summary["server"] is None
    text = report.render(run, summary)
    for heading in ("On one time axis", "Hardware", "Energy", "own figures"):
        assert f"{heading}</h2>" not in text


# GPUs together, and each one's share


def test_gpus_together_are_the_mean_of_shares_and_the_sum_of_power(tmp_path: Path) -> None:
    run = read.load(made(tmp_path, 4))
    found = {one["metric"]: one for one in gpus.together(run.hardware, phases.find(run))}
    power, use = found["power_watts"], found["utilization_ratio"]
    assert (power["as"], power["of"], power["samples"]) == ("sum", 4, 48)
    assert (power["mean"], power["min"], power["max"], power["p50"]) == (800, 400, 1200, 800)
    assert power["std"] == pytest.approx(400 * (48 / 47) ** 0.5)
    assert (use["as"], use["mean"], use["p95"]) == ("mean", pytest.approx(40), pytest.approx(50))


def test_a_moment_without_one_of_the_gpus_is_not_summed(tmp_path: Path) -> None:
    directory = made(tmp_path, 2)
    lines = (directory / "hardware.csv").read_text().splitlines(keepends=True)
    left = [line for line in lines if not ("GPU-1" in line and line.startswith(f"{T0 + 20:.0f}"))]
    (directory / "hardware.csv").write_text("".join(left))
    run = read.load(directory)
    (power,) = (one for one in gpus.together(run.hardware, phases.find(run)) if one["metric"] == "power_watts")
    assert (power["samples"], power["min"]) == (47, 200)


def test_one_gpu_alone_is_not_told_twice_and_hosts_are_no_gpus(tmp_path: Path) -> None:
    more = "".join(f"{T0 + 20},{host},host,memory_used_bytes,1e9,,\n" for host in ("a", "b"))
    run = read.load(made(tmp_path, 1, more))
    assert gpus.together(run.hardware, phases.find(run)) == []


def test_each_gpus_share_of_what_was_served(tmp_path: Path) -> None:
    summary = summarise.summarise(read.load(made(tmp_path, 4)))
    assert summary["per_gpu"]["gpus"] == 4
    assert summary["per_gpu"]["output_tokens_per_s"] == summary["throughput"]["output_tokens_per_s"] / 4
    assert summary["per_gpu"]["requests_per_s"] == pytest.approx(1.25)


# Energy


def test_energy_is_in_summary_console_and_report(tmp_path: Path) -> None:
    run = read.load(made(tmp_path, 2))
    summary = summarise.summarise(run)
    used = summary["energy"]["all"]
    assert used["joules"] == pytest.approx(2 * 200 * 48)
    assert used["joules_per_output_token"] == pytest.approx(400 / 55, rel=0.03)
    (line,) = [line for line in console.table(summary).splitlines() if line.startswith("Energy")]
    assert line == (
        f"Energy (GPU boards only, GPUs: 2): {used['joules_per_output_token']:.2f} J per output token; 400 W on average"
    )
    text = report.render(run, summary, parts=[contents.energy])
    assert "J per output token" in text
    assert "energy_joules_total" in text
    assert "J per output token, net of idle" not in text, "nobody knows what they use when idle"


def test_unknown_energy_says_why(tmp_path: Path) -> None:
    directory = made(tmp_path, 1)
    lines = (directory / "hardware.csv").read_text().splitlines(keepends=True)
    (directory / "hardware.csv").write_text(
        "".join(line for line in lines if not line.startswith(f"{T0 + 20:.0f}"[:-1]))
    )
    summary = summarise.summarise(read.load(directory))
    (line,) = [line for line in console.table(summary).splitlines() if line.startswith("Energy")]
    assert "unknown. The energy of gpu1/gpu0 is unknown" in line
    assert "unknown</td>" in report.render(read.load(directory), summary, parts=[contents.energy])


# Distributions


def test_itl_is_drawn_from_its_histograms() -> None:
    merged = histogram.merge([histogram.encode_ns([10_000_000] * 60 + [20_000_000] * 30 + [300_000_000] * 10)])
    spread = distributions.of_histogram(merged)
    assert spread is not None
    assert spread.so_far.tolist() == [60, 90, 100]
    assert spread.values.tolist() == pytest.approx([10, 20, 300], rel=0.005)
    assert spread.at_most(spread.values).tolist() == [60, 90, 100]
    found = {"p50": 10.0, "p95": 300.0, "p99": 300.0, "unsure": ["p99"]}
    drawn = distributions.chart(spread, found, "ITL", "gaps", "#000", ENGLISH)
    bars, curve = drawn["data"]
    assert sum(bars["y"]) == 100
    assert (curve["y"][0], curve["y"][-1]) == (60, 100)
    assert [note["text"] for note in drawn["layout"]["annotations"]] == ["p50 10.0", "p95 300"]


def test_four_latencies_are_drawn_alike_and_none_that_was_not_measured(tmp_path: Path) -> None:
    def whole(record: maker.Record, index: int) -> None:
        record.ttft_ms = record.tpot_ms = None

    streamed = read.load(maker.write(tmp_path / "a", maker.closed_loop(e2e=2.0), maker.boundaries(10, 2, 60, 62)))
    text = report.render(streamed, summarise.summarise(streamed), parts=[contents.distributions])
    assert [name for name in ("ttft", "tpot", "itl", "e2e") if f'id="chart-{name}_ms"' in text] == [
        "ttft",
        "tpot",
        "itl",
        "e2e",
    ]
    maker.write(tmp_path / "b", maker.closed_loop(e2e=2.0, change=whole), maker.boundaries(10, 2, 60, 62), itl_ms=0)
    (tmp_path / "b" / "intervals.jsonl").unlink()
    unstreamed = read.load(tmp_path / "b")
    text = report.render(unstreamed, summarise.summarise(unstreamed), parts=[contents.distributions])
    assert [name for name in ("ttft", "tpot", "itl", "e2e") if f'id="chart-{name}_ms"' in text] == ["e2e"]
