"""The exporter's CSV file: what it holds, and what becomes of it when the disk does not play along."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exporter_process import FakeNvml, exporter, until, uuid

from metrics_exporter.csv_file import COLUMNS, CsvFile
from metrics_exporter.ring import Ring

HEADER = ",".join(COLUMNS) + "\n"


def rows(path: Path) -> list[dict[str, str]]:
    """All of the file, which must be whole."""
    text = path.read_text()
    assert text.endswith("\n")
    read = list(csv.DictReader(text.splitlines()))
    assert all(None not in row and None not in row.values() for row in read)
    return read


def put(ring: Ring, number: int, **more: Any) -> None:
    told = {"values": {"it": {"level": float(number)}}, "mean": {"it": {"level": 0.5}}, "max": {}} | more
    ring.append("thing", number * 1_000_000_000 + 2_000, number, window_s=1.0, readings=1, **told)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB. Skips where none can be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_each_sample_is_in_the_file_as_it_is_in_the_api(tmp_path: Path) -> None:
    path = tmp_path / "hardware.csv"
    nvml = FakeNvml(tmp_path, "cards 0", "0 utilization 37", "0 ecc_corrected error 3")
    with exporter("--csv", str(path), env=nvml.env) as running:
        until(lambda: running.samples("gpu"), lambda found: len(found) >= 3)
        told = running.json("/samples?since=0")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0
    found = rows(path)
    for sample in told["samples"]:
        written = [row for row in found if int(row["seq"]) == sample["seq"]]
        assert {(row["device"], row["metric"]): float(row["value"]) for row in written} == {
            (device, metric): value for device, keys in sample["values"].items() for metric, value in keys.items()
        }
        assert {row["source"] for row in written} == {sample["source"]}
        assert all(float(row["time"]) == pytest.approx(sample["wall_ns"] / 1e9, abs=2e-6) for row in written)
        assert {row["host"] for row in written} == {told["host"]}
    utilization = next(row for row in found if (row["device"], row["metric"]) == (uuid(0), "utilization_ratio"))
    assert [utilization[name] for name in ("value", "mean", "max")] == ["0.37", "0.37", "0.37"]
    assert not [row for row in found if row["metric"].startswith("ecc")]  # what is not supported has no row


def test_the_last_samples_are_written_at_the_end(tmp_path: Path) -> None:
    ring = Ring(100)
    file = CsvFile(tmp_path / "x.csv", ring, "here")
    file.start()
    for number in range(50):
        put(ring, number)
    file.close(10)
    assert [row["value"] for row in rows(tmp_path / "x.csv")] == [str(number) for number in range(50)]


def test_a_row_has_whole_numbers_whole_and_no_mean_where_there_is_none(tmp_path: Path) -> None:
    ring = Ring(100)
    file = CsvFile(tmp_path / "x.csv", ring, "here")
    file.start()
    put(ring, 1, values={"it": {"energy_joules_total": 12345678901.0, "ratio": 0.1}}, mean={}, max={})
    file.close(10)
    assert (tmp_path / "x.csv").read_text() == HEADER + (
        "1.000002,here,thing,0,it,energy_joules_total,12345678901,,\n1.000002,here,thing,0,it,ratio,0.1,,\n"
    )


def test_a_second_run_appends_and_mends_a_row_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(HEADER + "1.0,here,thing,0,it,level,7,,\n2.0,here,thing,1," + "it" * 500)
    ring = Ring(100)
    file = CsvFile(path, ring, "here")
    file.start()
    put(ring, 3)
    file.close(10)
    assert [row["value"] for row in rows(path)] == ["7", "3"]


def test_a_disk_that_is_full_leaves_no_half_rows_and_is_said_once(small_disk: Path) -> None:
    path, ballast = small_disk / "x.csv", small_disk / "ballast"
    with exporter("--csv", str(path), "--window", "0.1") as running:
        until(lambda: path.read_text(), lambda text: text.count("\n") > 20)
        with ballast.open("wb", buffering=0) as file:
            while True:
                try:
                    if not file.write(b"x" * 4096):
                        break
                except OSError:
                    break
        running.page_when(lambda page: page.one("tokenswarm_exporter_csv_up") == 0)
        assert rows(path)
        seqs = running.json("/samples?since=0")["next"]
        until(lambda: running.json("/samples")["next"], lambda following: following > seqs + 10)  # sampling goes on
        assert running.log.count("No space left on device; it is tried again each second") == 1
        ballast.unlink()
        running.page_when(lambda page: page.one("tokenswarm_exporter_csv_up") == 1)
        assert running.page().one("tokenswarm_exporter_csv_lost_samples_total") == 0  # the ring still had them
        found = rows(path)
    seen = sorted({int(row["seq"]) for row in found})
    assert seen == list(range(seen[-1] + 1))


def test_what_the_ring_gave_up_meanwhile_is_counted(tmp_path: Path) -> None:
    ring = Ring(3)
    file = CsvFile(tmp_path / "x.csv", ring, "here")
    for number in range(10):
        put(ring, number)
    file.start()
    file.close(10)
    assert file.lost == 7
    assert [row["seq"] for row in rows(tmp_path / "x.csv")] == ["7", "8", "9"]


def test_a_file_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("precious")
    with pytest.raises(ValueError, match="holds something else"):
        CsvFile(path, Ring(2), "here")
    assert path.read_text() == "precious"
    assert len(os.listdir("/proc/self/fd")) < 200
