"""What docs/analysis.md says is true: its commands run, its columns and options are those of the scripts."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest
import run_directory_maker as maker
from exporter_process import ROOT
from test_documentation import EXAMPLE_RUN, commands, first_cells, options_in, section

from tokenswarm.results import __main__ as report_command
from tokenswarm.results import energy_command
from tokenswarm.results.merge import command as merge_command

PAGE = ROOT / "docs" / "analysis.md"
HISTORY = "Timestamp,User Count,Type,Name,Requests/s,Failures/s,50%,Total Request Count,Total Failure Count\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With all that the commands name."""
    run = maker.write(tmp_path / EXAMPLE_RUN, maker.closed_loop(users=2, seconds=5), users=2)
    at = int(maker.T0)
    gpus = "".join(
        f"{at + second},gpu1,{gpu}-1,power_watts,300,,\n" for second in range(5) for gpu in ("GPU-5ae1", "GPU-77c0")
    )
    (run / "hardware.csv").write_text("time,host,device,metric,value,mean,max\n" + gpus)
    (run / "server_metrics.csv").write_text("time,source,metric,labels,value\n")
    history = f"{HISTORY}{at},2,,Aggregated,1,0,10,1,0\n"
    (run / "locust_stats_history.csv").write_text(history)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "soak_stats_history.csv").write_text(history)
    (tmp_path / "smi.csv").write_text("timestamp, uuid, power.draw [W]\n2025/11/20 14:40:00.000, GPU-a, 300.00 W\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", commands(PAGE))
def test_commands_run(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python, script, *arguments = shlex.split(command)
    assert (python, (ROOT / script).parent) == ("python", ROOT / "analysis")
    if ".parquet" in command:
        pytest.importorskip("pyarrow")
    monkeypatch.setattr("sys.argv", [script, *arguments])
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as ended:
        assert not ended.code


def test_every_option_is_told_and_exists() -> None:
    parsers = report_command.parser(), merge_command.parser(), energy_command.parser()
    ours = {flag for parser in parsers for action in parser._actions for flag in action.option_strings} - {
        "-h",
        "--help",
    }
    elsewhere = {"--help", "--csv", "--query-gpu", "--format"}
    assert options_in(PAGE) - elsewhere == ours


def test_every_column_is_explained(folder: Path) -> None:
    told = set(first_cells(section(PAGE, "## One timeline")))
    table = merge_command.merged(EXAMPLE_RUN, merge_command.parser().parse_args([EXAMPLE_RUN])).table
    names = {re.sub(r"^locust_p[\d.]+_ms$", "locust_p50_ms", str(name)) for name in table if "/" not in str(name)}
    assert names <= told
    made_up = {"run", "gpu1/gpu0/power_watts", "server:8000/vllm:num_requests_running", "…_per_s"}
    of_locust = {name for name in told if name.startswith("locust_")}
    assert told - names - made_up - of_locust == set()
