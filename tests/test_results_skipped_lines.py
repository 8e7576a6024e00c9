"""Lines with too many cells, in files that are read at the same time."""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pandas as pd
import run_directory_maker as maker

from tokenswarm.results import read
from tokenswarm.results.files import skipped_lines


def test_each_thread_counts_its_own_and_nothing_is_left_behind() -> None:
    before, together = (warnings.showwarning, list(warnings.filters)), Barrier(2, timeout=60)

    def skip(bad: int) -> int:
        with skipped_lines.counted() as skipped:
            together.wait()
            pd.read_csv(io.StringIO("a,b\n1,2\n" + "1,2,3\n" * bad), on_bad_lines="warn")
            together.wait()
            return skipped()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(skip, (3, 5))) == [3, 5]
    assert (warnings.showwarning, list(warnings.filters)) == before


def test_a_line_too_long_in_each_of_two_files_is_told_of_each(tmp_path: Path) -> None:
    run = maker.write(tmp_path, maker.closed_loop(users=2, seconds=20), users=2)
    with (run / "requests.csv").open("a") as file:
        file.write("," * 200 + "\n")
    sample = f"{maker.T0},host,GPU-0,power_watts,300,310,320\n"
    long = sample.replace("320", "320,1,2") * 2
    (run / "hardware.csv").write_text("time,host,device,metric,value,mean,max\n" + sample * 300_000 + long)
    found = read.load(run)
    assert "hardware.csv: 2 lines are damaged and were left out." in found.defects
    assert "requests.csv: 1 rows are damaged and were left out." in found.defects
