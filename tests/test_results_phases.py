"""Windows and cohorts from boundaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_directory_maker as maker

from tokenswarm.results import phases, read
from tokenswarm.results.phases import Phase, Phases, Settling


def found(tmp_path: Path, bounds: list[dict[str, Any]], e2e: float = 0.5, seconds: float = 60, **run: Any) -> Phases:
    records = maker.closed_loop(users=2, seconds=seconds, e2e=e2e)
    return phases.find(read.load(maker.write(tmp_path, records, bounds, users=2, **run)))


def spans(found: Phases) -> list[tuple[float, float]]:
    return [(round(w.start - maker.T0, 6), round(w.end - maker.T0, 6)) for w in found.windows]


@pytest.mark.parametrize("seed", range(4))
def test_an_instant_is_in_a_window_if_it_is_in_any_of_them(seed: int) -> None:
    rnd = np.random.default_rng(seed)
    begins, lengths = rnd.integers(0, 50, seed * 5), rnd.integers(0, 9, seed * 5)
    windows = tuple(
        Phase("steady", float(at), float(at + length), 1) for at, length in zip(begins, lengths, strict=True)
    )
    run = Phases(0, 60, Settling(0, 0), (), (), windows, False, "")
    times = np.append(rnd.integers(-5, 65, 400).astype(float), np.nan)
    assert run.contain(times).tolist() == [any(w.start <= at < w.end for w in windows) for at in times.tolist()]


def test_steady_starts_ten_seconds_after_the_target_was_reached(tmp_path: Path) -> None:
    windows = found(tmp_path, maker.boundaries(2, 5, 60, 61))
    assert windows.settling.seconds == 10.0
    assert spans(windows) == [(15, 60)]
    assert [phase.kind for phase in windows.phases] == ["ramp", "steady", "drain"]
    assert not windows.whole_run


def test_settling_takes_twice_the_median_e2e_when_that_is_longer(tmp_path: Path) -> None:
    assert spans(found(tmp_path, maker.boundaries(2, 5, 60, 61), e2e=6)) == [(17, 60)]


def test_settling_takes_a_third_of_the_run_at_most(tmp_path: Path) -> None:
    windows = found(tmp_path, maker.boundaries(2, 1, 12, 12), seconds=12)
    assert windows.settling.seconds == pytest.approx(4.0)
    assert spans(windows) == [(5, 12)]


def test_the_warmup_option_wins(tmp_path: Path) -> None:
    assert spans(found(tmp_path, maker.boundaries(2, 5, 60, 61), options={"warmup": 30.0})) == [(35, 60)]


def test_the_warmup_may_be_requests_that_have_ended_since_the_users_were_there(tmp_path: Path) -> None:
    # Two users from 0 s on, half a second a request: those that end at 5.5, 6.0 … 7.5 s are the ten after 5.2 s.
    windows = found(tmp_path, maker.boundaries(2, 5.2, 60, 61), options={"warmup": {"requests": 10}})
    assert spans(windows) == [(7.5, 60)]
    assert str(windows.settling) == "10 requests"


def test_a_warmup_of_more_requests_than_there_are_falls_back_to_the_whole_run(tmp_path: Path) -> None:
    windows = found(tmp_path, maker.boundaries(2, 5, 60, 61), options={"warmup": {"requests": 1000}})
    assert windows.whole_run
    assert "settling time of 1,000 requests" in windows.note


def test_each_step_settles_anew_and_says_why_nothing_of_it_counts(tmp_path: Path) -> None:
    events = [("start", 0, 0), ("target", 0, 2), ("spawned", 1, 2), ("target", 20, 8), ("target", 30, 4)]
    events += [("spawned", 32, 4), ("target", 40, 0), ("spawned", 40, 0), ("target", 45, 6), ("spawned", 46, 6)]
    events += [("stopping", 60, 6), ("stopped", 61, 0)]
    bounds = [{"event": event, "time": maker.T0 + at, "users": users} for event, at, users in events]
    windows = found(tmp_path, bounds)
    assert spans(windows) == [(11, 20), (56, 60)]
    assert [(window.users, window.step) for window in windows.windows] == [(2, 0), (6, 4)]
    steps = [(step.number, step.users, step.unmeasured) for step in windows.steps]
    assert steps == [
        (0, 2, ""),
        (1, 8, "its users were never all there"),
        (2, 4, "it did not last longer than the settling time of 10 s"),
        (3, 0, "nobody was asked for"),
        (4, 6, ""),
    ]


def test_settling_takes_a_third_of_a_step_at_most(tmp_path: Path) -> None:
    options = {"steps": [2, 4], "step_time": 15.0}
    windows = found(tmp_path, maker.boundaries(2, 5, 60, 61), options=options)
    assert spans(windows) == [(10, 60)]
    assert spans(found(tmp_path, maker.boundaries(2, 5, 60, 61), options=options | {"warmup": 12.0})) == [(17, 60)]


def test_edits_in_the_web_ui_make_several_windows(tmp_path: Path) -> None:
    events = [("start", 0, 0), ("target", 0, 2), ("spawned", 1, 2), ("target", 25, 8), ("spawned", 27, 8)]
    events += [("target", 40, 20), ("target", 41, 30), ("stopping", 60, 30), ("stopped", 61, 0)]
    bounds = [{"event": event, "time": maker.T0 + at, "users": users} for event, at, users in events]
    windows = found(tmp_path, bounds)
    assert spans(windows) == [(11, 25), (37, 40)]
    assert [window.users for window in windows.windows] == [2, 8]


def test_a_target_that_is_never_reached_falls_back_to_the_whole_run_and_says_so(tmp_path: Path) -> None:
    bounds = [b for b in maker.boundaries(2, 5, 60, 60) if b["event"] != "spawned"]
    windows = found(tmp_path, bounds)
    assert windows.whole_run
    assert spans(windows) == [(0, 60)]
    assert "never reached" in windows.note


def test_a_warmup_as_long_as_the_run_falls_back_too(tmp_path: Path) -> None:
    windows = found(tmp_path, maker.boundaries(2, 5, 60, 60), options={"warmup": 90})
    assert windows.whole_run
    assert "settling time of 90 s" in windows.note


def test_a_killed_run_ends_where_its_files_end(tmp_path: Path) -> None:
    bounds = [b for b in maker.boundaries(2, 5, 60, 61) if not b["event"].startswith("stop")]
    assert spans(found(tmp_path, bounds, end=None)) == [(15, 60)]


def test_a_kill_that_took_the_boundaries_leaves_those_that_the_workers_saw(tmp_path: Path) -> None:
    start_only = maker.boundaries(2, 5, 60, 61)[:1]
    windows = found(tmp_path, start_only, end=None)
    assert spans(windows) == [(11, 60)]  # the first interval ends, and tells of the users, at 1 s
    assert windows.windows[0].users == 2


def test_without_run_json_the_rows_give_the_span(tmp_path: Path) -> None:
    maker.write(tmp_path, maker.closed_loop(users=1, seconds=10))
    (tmp_path / "run.json").unlink()
    (tmp_path / "intervals.jsonl").unlink()
    windows = phases.find(read.load(tmp_path))
    assert spans(windows) == [(0, 10)]


def test_the_cohort_is_chosen_by_when_a_request_was_due_not_by_its_end(tmp_path: Path) -> None:
    records = [maker.request(i, at, 0.1, 30.0) for i, at in enumerate((14.999, 15.0, 59.999, 60.0))]
    records[1].start_time = maker.T0 + 61  # late, but due in the window
    run = read.load(maker.write(tmp_path, records, maker.boundaries(2, 5, 60, 90), options={"warmup": 10}))
    assert phases.find(run).contain(phases.intended(run)).tolist() == [False, True, True, False]
