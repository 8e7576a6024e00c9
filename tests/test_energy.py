"""Joules: every figure computed by hand, and what becomes of samples that are damaged."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import run_directory_maker as maker

from tokenswarm.errors import AnalysisError
from tokenswarm.results import phases, read
from tokenswarm.results.energy_command import main
from tokenswarm.results.figures import energy, joules
from tokenswarm.results.figures.energy import Wish

ROOT = Path(__file__).resolve().parent.parent
HEADER = "time,host,device,metric,value,mean,max\n"
COUNTER, INSTANT, POWER = joules.COUNTER, joules.INSTANT, joules.POWER

# Ten users, each two requests a second of 11 output and 100 input tokens; steady from 12 s to 60 s of a run of 62 s.
OUTPUT_PER_S = 220
INPUT_PER_S = 2000
WINDOW_S = 48
NOTHING = Wish()

Value = Callable[[float], float]


def samples(device: str, metric: str, value: Value, at: list[float] | None = None, mean: Value | None = None) -> str:
    times = [second + 0.5 for second in range(62)] if at is None else at
    more = [f"{mean(t)!r},{mean(t)!r}" if mean else "," for t in times]
    return "".join(
        f"{maker.T0 + t:.6f},gpu1,{device},{metric},{value(t)!r},{m}\n" for t, m in zip(times, more, strict=True)
    )


def steady(watts: float) -> Value:
    """A counter that grows by so much a second, having begun long ago."""
    return lambda t: 1e6 + watts * t


def made(folder: Path, *lines: str, gpus: dict[str, int] | None = None, **run: Any) -> Path:
    devices = [{"device": uuid, "kind": "gpu", "gpu": str(index), "uuid": uuid} for uuid, index in (gpus or {}).items()]
    run = {"scraped": [{"file": "hardware.csv", "host": "gpu1", "devices": devices}]} | run
    directory = maker.write(folder, maker.closed_loop(), maker.boundaries(10, 2, 60, 62), **run)
    (directory / "hardware.csv").write_text(HEADER + "".join(lines))
    return directory


def figures(directory: Path, wish: Wish = NOTHING, **given: Any) -> dict[str, Any]:
    run = read.load(directory)
    return energy.figures(run, phases.find(run), wish, **given)


# By hand


def test_every_figure_of_two_cards(tmp_path: Path) -> None:
    directory = made(tmp_path, samples("GPU-a", COUNTER, steady(300)), samples("GPU-b", COUNTER, steady(100)))
    told = figures(directory, Wish(idle_watts=150, price_per_gpu_hour=3))
    (window,) = told["windows"]
    output, total = OUTPUT_PER_S * WINDOW_S, (OUTPUT_PER_S + INPUT_PER_S) * WINDOW_S
    used, net = 400 * WINDOW_S, 250 * WINDOW_S
    cost = 3 * 2 * WINDOW_S / 3600
    expected = {
        "seconds": WINDOW_S,
        "output_tokens": output,
        "total_tokens": total,
        "joules": used,
        "watts": 400,
        "joules_per_output_token": used / output,
        "joules_per_total_token": used / total,
        "output_tokens_per_joule": output / used,
        "total_tokens_per_joule": total / used,
        "net_joules": net,
        "net_joules_per_output_token": net / output,
        "net_joules_per_total_token": net / total,
        "net_output_tokens_per_joule": output / net,
        "cost": cost,
        "cost_per_million_output_tokens": cost / output * 1e6,
        "cost_per_million_total_tokens": cost / total * 1e6,
    }
    assert {name: window[name] for name in expected} == pytest.approx(expected)
    assert told["all"] == pytest.approx(expected)
    assert [gpu["joules"] for gpu in window["gpus"]] == pytest.approx([300 * WINDOW_S, 100 * WINDOW_S])
    assert (told["scope"], told["idle_from"], told["notes"]) == ("GPU boards only", "given", [])


def test_a_counter_is_interpolated_at_the_edges() -> None:
    frame = pd.DataFrame({"time": [9.5, 10.5, 11.5, 12.5], "value": [100.0, 200.0, 500.0, 900.0], "mean": float("nan")})
    told = joules.readings(frame)
    # At 10.0 it stood at 150, at 12.25 three quarters of the way from 500 to 900.
    assert joules.by_counter(told, 10.0, 12.25) == pytest.approx(800 - 150)


def test_power_that_is_averaged_holds_since_the_sample_before() -> None:
    frame = pd.DataFrame({"time": [1.0, 2.0, 3.0, 4.0], "value": 0.0, "mean": [9.0, 100.0, 200.0, 400.0]})
    # From 1.5 to 3.25: half of the second at 100 W, the one at 200 W, a quarter of that at 400 W.
    assert joules.by_power(joules.readings(frame), 1.5, 3.25) == pytest.approx(50 + 200 + 100)


def test_power_of_an_instant_is_a_line_between_instants() -> None:
    frame = pd.DataFrame({"time": [1.0, 2.0, 3.0], "value": [100.0, 200.0, 200.0], "mean": float("nan")})
    # From 1.5, at 150 W, to 2 at 200 W: 87.5 J; then half a second at 200 W.
    assert joules.by_power(joules.readings(frame), 1.5, 2.5) == pytest.approx(87.5 + 100)


def test_without_a_counter_power_is_integrated_and_that_is_said(tmp_path: Path) -> None:
    power = samples("GPU-a", INSTANT, lambda t: 250.0, mean=lambda t: 300.0), samples("GPU-a", POWER, lambda t: 1.0)
    told = figures(made(tmp_path, *power))
    assert told["all"]["joules"] == pytest.approx(300 * WINDOW_S)
    assert told["gpus"][0]["method"] == INSTANT
    assert told["notes"] == ["gpu1/GPU-a has no energy counter: its energy is the integral of power_instant_watts."]


@pytest.mark.parametrize(("watts", "flagged"), [(312, False), (318, True), (282, True)])
def test_counter_and_power_that_differ_by_more_than_5_percent_are_flagged(
    tmp_path: Path, watts: float, flagged: bool
) -> None:
    lines = samples("GPU-a", COUNTER, steady(300)), samples("GPU-a", INSTANT, lambda t: watts)
    told = figures(made(tmp_path, *lines))
    assert told["all"]["joules"] == pytest.approx(300 * WINDOW_S)
    assert told["windows"][0]["gpus"][0]["power_off_by"] == pytest.approx(watts / 300 - 1)
    assert any("doubt one of them" in note for note in told["notes"]) == flagged


def test_idle_is_measured_before_the_first_request(tmp_path: Path) -> None:
    before = [float(second) for second in range(-20, 62)]
    # 120 W until the load begins at 0, 500 W from then on.
    lines = samples("GPU-a", COUNTER, lambda t: 1e6 + (120 if t < 0 else 500) * t, at=before)
    told = figures(made(tmp_path, lines))
    assert (told["idle_watts"], told["idle_from"]) == (pytest.approx(120), "measured")
    assert told["all"]["net_joules"] == pytest.approx((500 - 120) * WINDOW_S)


def test_without_ten_seconds_before_the_load_there_is_no_net_figure(tmp_path: Path) -> None:
    lines = samples("GPU-a", COUNTER, steady(300), at=[float(second) for second in range(-9, 62)])
    told = figures(made(tmp_path, lines))
    assert (told["idle_watts"], told["all"]["net_joules"]) == (None, None)
    assert told["all"]["joules"] == pytest.approx(300 * WINDOW_S)


def test_idle_of_more_than_was_used_gives_no_net_figure_and_is_said(tmp_path: Path) -> None:
    told = figures(made(tmp_path, samples("GPU-a", COUNTER, steady(300))), Wish(idle_watts=301))
    assert told["all"]["net_joules"] is None
    assert told["notes"] == ["Idle GPUs would have used 301 W, not less than the window's 300 W."]


def test_each_window_has_its_own_figures_and_all_their_sum(tmp_path: Path) -> None:
    events = [("start", 0, 0), ("target", 0, 5), ("spawned", 0, 5), ("target", 45, 10), ("spawned", 45, 10)]
    events += [("stopping", 90, 10), ("stopped", 92, 0)]
    bounds = [{"event": event, "time": maker.T0 + at, "users": users} for event, at, users in events]
    directory = maker.write(tmp_path, maker.closed_loop(seconds=90), bounds, end={"time": maker.T0 + 92})
    lines = samples(
        "GPU-a", COUNTER, lambda t: 100 * t if t < 45 else 4500 + 200 * (t - 45), at=[*map(float, range(93))]
    )
    (directory / "hardware.csv").write_text(HEADER + lines)
    told = figures(directory)
    assert [(w["users"], w["seconds"], w["joules"]) for w in told["windows"]] == [
        (5, pytest.approx(35), pytest.approx(3500)),
        (10, pytest.approx(35), pytest.approx(7000)),
    ]
    assert told["all"]["joules_per_output_token"] == pytest.approx(10500 / (70 * OUTPUT_PER_S))


def test_gpus_are_chosen_by_uuid_or_name_and_idle_ones_count(tmp_path: Path) -> None:
    lines = [samples(uuid, COUNTER, steady(watts)) for uuid, watts in (("GPU-aa", 300), ("GPU-ab", 50), ("GPU-c", 7))]
    directory = made(tmp_path, *lines, gpus={"GPU-aa": 0, "GPU-ab": 1, "GPU-c": 2})
    assert figures(directory)["all"]["watts"] == pytest.approx(357)
    assert figures(directory, Wish(gpus=("GPU-aa", "gpu1")))["all"]["watts"] == pytest.approx(350)
    assert figures(directory, Wish(gpus=("gpu1/gpu2",)))["all"]["watts"] == pytest.approx(7)
    with pytest.raises(AnalysisError, match=r"--gpus GPU-a may be any of gpu1/gpu0, gpu1/gpu1: write more of it"):
        figures(directory, Wish(gpus=("GPU-a",)))


# Damaged


def only_note(told: dict[str, Any]) -> str:
    assert told["all"]["joules"] is None
    assert told["all"]["joules_per_output_token"] is None
    (note,) = told["notes"]
    return str(note)


def test_a_gap_of_more_than_two_seconds_is_unknown(tmp_path: Path) -> None:
    times = [second + 0.5 for second in range(62)]
    fine = [t for t in times if t != 30.5]
    gap = [t for t in times if t not in (30.5, 31.5)]
    assert figures(made(tmp_path / "fine", samples("GPU-a", COUNTER, steady(300), fine)))["all"]["joules"] is not None
    note = only_note(figures(made(tmp_path / "gap", samples("GPU-a", COUNTER, steady(300), gap))))
    assert note == "The energy of gpu1/GPU-a is unknown: it has no sample for 3.0 s, from 17.5 s into the window on."


def test_a_gap_outside_of_the_window_does_no_harm(tmp_path: Path) -> None:
    times = [second + 0.5 for second in range(62) if second not in (4, 5, 6)]
    assert figures(made(tmp_path, samples("GPU-a", COUNTER, steady(300), times)))["all"]["joules"] == 300 * WINDOW_S


def test_a_counter_that_begins_anew_is_unknown(tmp_path: Path) -> None:
    told = figures(made(tmp_path, samples("GPU-a", COUNTER, lambda t: 9e5 + 300 * t if t < 30 else 300 * t)))
    assert "its energy counter fell from 908,850 to 9,150 J" in only_note(told)


def test_a_reset_is_not_papered_over_with_power(tmp_path: Path) -> None:
    lines = samples("GPU-a", COUNTER, lambda t: 9e5 + t if t < 30 else t), samples("GPU-a", POWER, lambda t: 300.0)
    assert "fell from" in only_note(figures(made(tmp_path, *lines)))


def test_a_card_without_samples_makes_all_unknown_but_not_the_others(tmp_path: Path) -> None:
    directory = made(tmp_path, samples("GPU-a", COUNTER, steady(300)), gpus={"GPU-a": 0, "GPU-lost": 1})
    told = figures(directory)
    assert only_note(told) == "The energy of gpu1/gpu1 is unknown: it tells neither its energy nor its power."
    assert [gpu["joules"] for gpu in told["windows"][0]["gpus"]] == [pytest.approx(300 * WINDOW_S), None]
    assert figures(directory, Wish(gpus=("GPU-a",)))["all"]["joules"] == pytest.approx(300 * WINDOW_S)


def test_a_card_that_was_asked_for_and_is_not_there_is_named(tmp_path: Path) -> None:
    directory = made(tmp_path, samples("GPU-a", COUNTER, steady(300)))
    with pytest.raises(AnalysisError, match=r"--gpus GPU-x is none of the GPUs that are known: gpu1/GPU-a$"):
        figures(directory, Wish(gpus=("GPU-a", "GPU-x")))
    with pytest.raises(AnalysisError, match="GPU-x"):
        figures(directory, Wish(gpus=("GPU-x",)))


def test_nan_is_no_sample(tmp_path: Path) -> None:
    told = figures(made(tmp_path, samples("GPU-a", COUNTER, lambda t: float("nan") if 30 < t < 33 else 300 * t)))
    assert "it has no sample for 4.0 s" in only_note(told)
    assert "hardware.csv: 3 lines are damaged and were left out." in read.load(tmp_path).defects


def test_a_clock_that_was_set_back_is_unknown_and_one_set_ahead_a_gap(tmp_path: Path) -> None:
    def jump(by: float) -> list[float]:
        return [second + 0.5 + (by if second >= 30 else 0) for second in range(70)]

    for name, by, why in (("back", -20.0, "go back by 19.0 s: a clock was set"), ("ahead", 8.0, "no sample for 9.0 s")):
        lines = samples("GPU-a", POWER, lambda t: 300.0, at=jump(by))
        assert why in " ".join(figures(made(tmp_path / name, lines))["notes"])


def test_rows_that_are_there_twice_change_nothing(tmp_path: Path) -> None:
    lines = samples("GPU-a", COUNTER, steady(300)).splitlines(keepends=True)
    twice = "".join(line + line for line in lines)
    assert figures(made(tmp_path, twice))["all"]["joules"] == pytest.approx(300 * WINDOW_S)


def test_a_torn_last_value_is_no_value(tmp_path: Path) -> None:
    directory = made(tmp_path, samples("GPU-a", COUNTER, steady(300), at=[*map(float, range(61))]))
    path = directory / "hardware.csv"
    path.write_text(path.read_text()[:-8])  # the sample at the window's end: a counter that falls, if it were taken
    told = figures(directory)
    assert told["all"]["seconds"] == pytest.approx(WINDOW_S - 1), "energy and tokens of what is sampled"
    assert told["all"]["joules_per_output_token"] == pytest.approx(300 / OUTPUT_PER_S)


def test_samples_that_miss_more_than_a_gap_of_the_window_are_unknown(tmp_path: Path) -> None:
    told = figures(made(tmp_path, samples("GPU-a", COUNTER, steady(300), at=[*map(float, range(57))])))
    assert "do not reach over all of the window" in only_note(told)


def test_a_window_of_less_than_30_seconds_is_too_short(tmp_path: Path) -> None:
    directory = maker.write(tmp_path, maker.closed_loop(seconds=40), maker.boundaries(10, 2, 40, 41))
    (directory / "hardware.csv").write_text(HEADER + samples("GPU-a", COUNTER, steady(300)))
    assert only_note(figures(directory)) == "A window of 28.0 s is too short for energy: it takes 30 s."


def test_when_all_requests_fail_there_is_energy_but_none_a_token(tmp_path: Path) -> None:
    records = [maker.failed(index, index / 10, 0.1, "http_5xx", "no") for index in range(600)]
    directory = maker.write(tmp_path, records, maker.boundaries(10, 2, 60, 62))
    (directory / "hardware.csv").write_text(HEADER + samples("GPU-a", COUNTER, steady(300)))
    told = figures(directory, Wish(price_per_gpu_hour=1))
    assert told["all"]["joules"] == pytest.approx(300 * WINDOW_S)
    assert told["all"]["joules_per_output_token"] is None
    assert told["all"]["cost_per_million_output_tokens"] is None


def test_the_cost_of_so_many_gpus_needs_no_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = maker.write(tmp_path / "run", maker.closed_loop(), maker.boundaries(10, 2, 60, 62))
    told = figures(directory, Wish(price_per_gpu_hour=2.5, gpu_count=4))["all"]
    cost = 2.5 * 4 * WINDOW_S / 3600
    assert (told["cost"], told["joules"]) == (pytest.approx(cost), None)
    assert told["cost_per_million_output_tokens"] == pytest.approx(cost * 1e6 / (OUTPUT_PER_S * WINDOW_S))
    assert main([str(directory), "--price-per-gpu-hour", "2.5", "--gpu-count", "4"]) == 0
    said = capsys.readouterr().out
    assert "No GPU was sampled" in said and re.search(r"^  energy, J +unknown$", said, re.MULTILINE)
    assert re.search(rf"^  cost +{cost:.4g}$", said, re.MULTILINE)
    assert main([str(directory)]) == 0
    assert "written meanwhile by --hardware FILE" in capsys.readouterr().out
    sampled = made(tmp_path / "sampled", samples("GPU-a", COUNTER, steady(300)))
    both = figures(sampled, Wish(price_per_gpu_hour=2.5, gpu_count=4))["all"]
    assert (both["cost"], both["watts"]) == (pytest.approx(cost), 300)


def test_without_gpus_there_is_nothing(tmp_path: Path) -> None:
    told = figures(made(tmp_path))
    assert (told["gpus"], told["all"]["joules"], told["notes"]) == ([], None, [])


# The command


def test_the_command_prints_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = str(made(tmp_path, samples("GPU-a", COUNTER, steady(300))))
    assert main([directory, str(tmp_path / "nowhere"), "--idle", "100", "--price-per-gpu-hour", "2"]) == 2
    table, errors = capsys.readouterr()
    assert "nowhere is not a directory" in errors
    assert re.search(r"\n  per output token, J +1\.364\n", table)
    assert re.search(r"\n  net, per output token, J +0\.9091\n", table)
    assert "GPU boards only" in table
    assert main([directory, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["all"]["joules"] == pytest.approx(300 * WINDOW_S)


def test_a_file_of_nvidia_smi_will_do_for_the_gpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = made(tmp_path)
    at = [pd.Timestamp(maker.T0 + second, unit="s").strftime("%Y/%m/%d %H:%M:%S.000") for second in range(62)]
    lines = "".join(f"{when}, GPU-a, 250.00 W, [N/A]\n" for when in at)
    (tmp_path / "smi.csv").write_text("timestamp, uuid, power.draw [W], fan.speed [%]\n" + lines)
    main([str(directory), "--hardware", str(tmp_path / "smi.csv"), "--timezone", "UTC", "--json"])
    assert json.loads(capsys.readouterr().out)["all"]["joules"] == pytest.approx(250 * WINDOW_S)


def test_the_script_starts_and_its_cells_run(tmp_path: Path) -> None:
    script = ROOT / "analysis" / "energy.py"
    directory = made(tmp_path, samples("GPU-a", COUNTER, steady(300)))
    done = subprocess.run([sys.executable, script, directory], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "per output token, J" in done.stdout
    cells: dict[str, Any] = {"__name__": "cells"}
    exec(compile(script.read_text().replace("runs/20261120T134000Z-chat", str(directory)), script, "exec"), cells)
    assert cells["window"]["joules_per_output_token"] == pytest.approx(300 / OUTPUT_PER_S)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--idle", "x"], "'x' is no number of 0 or more"),
        (["--price-per-gpu-hour", "-1"], "'-1' is no number of 0 or more"),
        (["--timezone", "Nowhere"], "'Nowhere' is no time zone"),
        (["--hardware", "nowhere.csv"], "nowhere.csv: there is no such file"),
    ],
)
def test_a_wrong_command_line_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    maker.write(tmp_path, maker.closed_loop(users=1, seconds=1))
    try:
        status = main([str(tmp_path), *arguments])
    except SystemExit as refused:
        status = int(refused.code or 0)
    assert status == 2
    assert says in capsys.readouterr().err
