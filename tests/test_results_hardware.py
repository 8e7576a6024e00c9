"""hardware.csv in results: figures that were computed by hand, damage that is told, and the report that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import run_directory_maker as maker

from tokenswarm.results import hardware, read, report, summarise

HEADER = "time,host,device,metric,value,mean,max\n"


def sample(
    second: float, device: str, metric: str, value: float, mean: float | str = "", most: float | str = ""
) -> str:
    return f"{maker.T0 + second:.6f},gpu1,{device},{metric},{value},{mean},{most}\n"


def made(tmp_path: Path, *lines: str) -> Path:
    """Ten users, steady from 12 s to 60 s."""
    run = maker.write(tmp_path, maker.closed_loop(), maker.boundaries(10, 2, 60, 60))
    (run / "hardware.csv").write_text(HEADER + "".join(lines))
    return run


def figure(summary: dict[str, Any], metric: str) -> dict[str, Any]:
    (found,) = (one for one in summary["hardware"] if one["metric"] == metric)
    return dict(found)


def test_figures_are_of_the_window_in_the_units_that_people_read(tmp_path: Path) -> None:
    run = made(
        tmp_path,
        sample(5, "GPU-1", "utilization_ratio", 1, 1, 1),  # the ramp
        sample(20, "GPU-1", "utilization_ratio", 0.1, 0.4, 0.9),
        sample(21, "GPU-1", "utilization_ratio", 0.2, 0.6, 0.7),
        sample(20, "GPU-1", "power_watts", 300),
        sample(30, "GPU-1", "memory_used_bytes", 8 * 2**30),
        sample(30, "GPU-1", "pcie_link_width", 16),  # not among the main ones
    )
    summary = summarise.summarise(read.load(run))
    use = figure(summary, "utilization_ratio")
    assert (use["host"], use["device"], use["label"], use["unit"]) == ("gpu1", "GPU-1", "GPU utilization", "%")
    assert (use["mean"], use["min"], use["max"], use["samples"]) == (50, 40, 90, 2)
    assert use["std"] == pytest.approx(14.142, abs=1e-3)
    power = figure(summary, "power_watts")
    assert (power["mean"], power["max"], power["std"], power["samples"]) == (300, 300, None, 1)
    assert figure(summary, "memory_used_bytes")["mean"] == 8
    assert len(summary["hardware"]) == 3


def test_damaged_lines_are_told_and_left_out(tmp_path: Path) -> None:
    run = made(tmp_path, sample(20, "GPU-1", "power_watts", 300), "x,gpu1,GPU-1,power_watts,1,,\n", "17636460")
    found = read.load(run)
    assert len(found.hardware) == 1
    assert "hardware.csv: 1 lines are damaged and were left out." in found.defects


def test_a_file_of_another_kind_is_told(tmp_path: Path) -> None:
    run = made(tmp_path)
    (run / "hardware.csv").write_text("when,what\n1,2\n")
    assert any(defect.startswith("hardware.csv lacks the columns time") for defect in read.load(run).defects)


def test_the_report_shows_what_was_told_as_text(tmp_path: Path) -> None:
    line = sample(20, "<script>alert(1)</script>", "cpu_busy_ratio", 0.5, 0.5, 0.75)
    run = read.load(made(tmp_path, line, sample(21, "host", "cpu_busy_ratio", 0.25)))
    page = report.render(run, summarise.summarise(run))
    assert "chart-together" in page
    assert "CPU, %" in page
    assert "<script>alert(1)" not in page


def test_without_samples_there_is_no_section(tmp_path: Path) -> None:
    run = read.load(maker.write(tmp_path, maker.closed_loop(), maker.boundaries(10, 2, 60, 60)))
    summary = summarise.summarise(run)
    assert summary["hardware"] == []
    assert "chart-together" not in report.render(run, summary)


def test_gpus_go_by_their_index_and_by_uuid_where_it_is_not_unique() -> None:
    def gpu(uuid: str, index: str) -> dict[str, str]:
        return {"device": uuid, "kind": "gpu", "gpu": index}

    sources = [
        {"host": "a", "devices": [gpu("GPU-1", "0"), gpu("GPU-2", "1"), gpu("GPU-3", "1"), {"device": "host"}]},
        {"host": "b", "devices": [gpu("GPU-4", "0"), {"device": "MIG-1", "kind": "mig", "gpu": "0"}]},
        {"host": "c", "devices": None},
    ]
    assert hardware.names(sources) == {
        ("a", "GPU-1"): "a/gpu0",
        ("a", "GPU-2"): "a/GPU-2",
        ("a", "GPU-3"): "a/GPU-3",
        ("b", "GPU-4"): "b/gpu0",
    }
