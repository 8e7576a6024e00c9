"""Hardware samples that somebody else wrote: times, units, names, and what is said of files that will not do."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenswarm.errors import AnalysisError
from tokenswarm.results import hardware
from tokenswarm.results.merge import foreign
from tokenswarm.results.merge.command import zone

AT = 1_795_275_414.25
"""2026-11-21T15:36:54.250 UTC."""


def read(folder: Path, text: str, name: str = "gpu1.csv", **wish: Any) -> tuple[list[tuple[Any, ...]], list[str]]:
    """(time, host, device, metric, value) of each sample, and the defects."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    defects: list[str] = []
    frame = foreign.read(path, defects, hardware.KEPT.__contains__, **wish)
    rows = frame[["time", "host", "device", "metric", "value"]].itertuples(index=False, name=None)
    return [(round(time, 6), *rest) for time, *rest in rows], defects


NVIDIA_SMI = """\
timestamp, index, uuid, name, utilization.gpu [%], memory.used [MiB], power.draw [W], temperature.gpu, fan.speed [%]
2026/11/21 15:36:54.250, 0, GPU-a, NVIDIA H100, 45 %, 1024 MiB, 312.50 W, 61, 30 %
2026/11/21 15:36:55.250, 0, GPU-a, NVIDIA H100, [N/A], 2048 MiB, 300.00 W, 62, [N/A]
"""


def test_nvidia_smi_with_its_units(tmp_path: Path) -> None:
    rows, defects = read(tmp_path, NVIDIA_SMI)
    assert rows == [
        (AT, "gpu1", "GPU-a", "utilization_ratio", 0.45),
        (AT, "gpu1", "GPU-a", "memory_used_bytes", 2**30),
        (AT + 1, "gpu1", "GPU-a", "memory_used_bytes", 2**31),
        (AT, "gpu1", "GPU-a", "power_watts", 312.5),
        (AT + 1, "gpu1", "GPU-a", "power_watts", 300),
        (AT, "gpu1", "GPU-a", "temperature_celsius", 61),
        (AT + 1, "gpu1", "GPU-a", "temperature_celsius", 62),
        (AT, "gpu1", "GPU-a", "fan.speed_percent", 30),
    ]
    assert defects == ["gpu1.csv: its times tell no zone and were taken as UTC; --timezone names another."]


def test_nvidia_smi_without_units_in_the_cells(tmp_path: Path) -> None:
    text = "timestamp, utilization.gpu [%], power.draw [W]\n2026/11/21 15:36:54.250, 45, 312.50\n"
    rows, _ = read(tmp_path, text)
    assert [(metric, value) for *_, metric, value in rows] == [("utilization_ratio", 0.45), ("power_watts", 312.5)]


@pytest.mark.parametrize(
    "when",
    [
        "1795275414.25",
        "1795275414250",
        "1795275414250000",
        "1795275414250000000",
        "2026-11-21T15:36:54.250Z",
        "2026-11-21T17:36:54.250+02:00",
        "2026-11-21 15:36:54.250+00:00",
        "2026-11-21 15:36:54.250+00",
        "2026-11-21 23:36:54.250+0800",
        "2026-11-21 15:36:54.250",
    ],
)
def test_times_as_people_write_them(tmp_path: Path, when: str) -> None:
    rows, _ = read(tmp_path, f"Time;load\n{when};1.5\n")
    assert rows == [(AT, "gpu1", "host", "load", 1.5)]


def test_times_without_a_zone_are_of_the_one_that_is_named(tmp_path: Path) -> None:
    rows, defects = read(tmp_path, "time,x\n2026-07-01 12:00:00,1\n", zone=ZoneInfo("Europe/Berlin"))
    assert rows[0][0] == datetime(2026, 7, 1, 10, tzinfo=UTC).timestamp()
    assert defects == []


def test_an_hour_that_a_zone_has_twice_is_no_time(tmp_path: Path) -> None:
    text = "time,x\n2026-10-25 02:30:00,1\n2026-10-25 04:30:00,2\n"
    rows, defects = read(tmp_path, text, zone=ZoneInfo("Europe/Berlin"))
    assert [row[-1] for row in rows] == [2]
    assert defects == ["gpu1.csv: 1 lines have no time and were left out."]


def test_a_clock_that_is_ahead_is_set_right(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, f"time,x\n{AT + 3.5},1\n", offset=3.5)
    assert rows[0][0] == AT


def test_the_exporters_own_file_is_known_by_its_columns(tmp_path: Path) -> None:
    text = "time,host,source,seq,device,metric,value,mean,max\n1.5,gpu9,gpu,7,GPU-a,power_watts,300,299,310\n"
    text += "1.5,gpu9,gpu,7,GPU-a,pcie_link_width,16,,\n"
    rows, defects = read(tmp_path, text)
    assert rows == [(1.5, "gpu9", "GPU-a", "power_watts", 300)]
    assert defects == []


def test_columns_that_name_host_and_device_do(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, f"timestamp,Hostname,gpu,watts\n{AT},a,0,100\n{AT},a,1,200\n{AT},b,0,300\n")
    assert [row[1:3] for row in rows] == [("a", "gpu0"), ("a", "gpu1"), ("b", "gpu0")]


def test_what_is_no_number_is_counted(tmp_path: Path) -> None:
    rows, defects = read(tmp_path, f"time,watts\n{AT},100\n{AT + 1},lots\n{AT + 2},\n{AT + 3},-\n")
    assert len(rows) == 1
    assert defects == ["gpu1.csv: 1 cells of 'watts' are no numbers and count for nothing."]


def test_a_torn_line_is_no_sample(tmp_path: Path) -> None:
    rows, defects = read(tmp_path, f"time,watts\n{AT},100\n{AT + 1},20")
    assert [row[-1] for row in rows] == [100]
    assert "the last row is torn" in defects[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2026/11/21 15:36:54.250, 45 %\n", "the first line must name the columns"),
        ("time,x\n12.5,1\n13.5,1\n", "do not count from 1970"),
        ("time,x\n11/21/2026 15:36,1\n", "is no time that can be read"),
        ("time,name\n1795275414,a\n", "there is no column of numbers"),
        ("", "cannot be read as a CSV file"),
    ],
)
def test_a_file_that_will_not_do_is_refused_with_its_name(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(AnalysisError, match=rf"gpu1\.csv: .*{says}"):
        read(tmp_path, text)


def test_a_fixed_offset_is_a_zone() -> None:
    assert zone("+05:30").utcoffset(None) == timedelta(hours=5, minutes=30)


@settings(max_examples=20, deadline=None)
@given(st.integers(-(10**9), 10**9), st.lists(st.integers(0, 10**8), min_size=1, max_size=20, unique=True))
def test_a_shift_of_the_clock_by_a_known_offset_is_undone(offset_ms: int, at_ms: list[int]) -> None:
    def shifted(by: int) -> str:
        return "epoch_ms,watts\n" + "".join(f"{1_795_275_414_000 + ms + by},{ms}\n" for ms in at_ms)

    with tempfile.TemporaryDirectory() as folder:
        right, _ = read(Path(folder), shifted(0))
        undone, _ = read(Path(folder), shifted(offset_ms), offset=offset_ms / 1e3)
    assert undone == [(pytest.approx(time, abs=1e-5), *rest) for time, *rest in right]
