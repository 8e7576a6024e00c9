"""tokenswarm/results/cohort.py, and what is kept with a run."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import run_directory_maker as maker

from tokenswarm.results import distribution, flow, phases, read
from tokenswarm.results.cohort import Cohort, among, tally


@pytest.mark.parametrize("dtype", ["str", "category"])
def test_of_equally_frequent_texts_the_one_that_came_first_is_told_first(dtype: str) -> None:
    texts = pd.Series(["z", "a", "m", "a", "z", ""], dtype=dtype)
    assert list(tally(texts).items()) == [("z", 2), ("a", 2), ("m", 1), ("", 1)]
    assert list(tally(texts[texts != "a"])) == ["z", "m", ""], "and what is not among them is not told"


def test_some_of_some_requests_are_those_of_the_run() -> None:
    rows = pd.DataFrame({"ttft_ms": np.arange(6.0), "status": ["ok", "failed"] * 3})
    late = Cohort(rows, rows["ttft_ms"].to_numpy() > 1)
    good = among(late, (late["status"] == "ok").to_numpy())
    assert good["ttft_ms"].tolist() == [2.0, 4.0] and len(good) == 2
    assert good["ttft_ms"].index.tolist() == [2, 4]
    assert among(rows, np.array([True] + [False] * 5))["ttft_ms"].tolist() == [0.0]


def test_what_is_made_of_a_run_is_made_once_and_anew_of_a_run_with_other_rows(tmp_path: Path) -> None:
    run = read.load(maker.write(tmp_path, maker.closed_loop(users=2, seconds=5)))
    assert phases.intended(run) is phases.intended(run)
    assert flow.in_flight(run, 1e9) is not flow.in_flight(run, 2e9)
    other = dataclasses.replace(run, rows=run.rows[:3])
    assert len(phases.intended(other)) == 3


def test_values_between_edges_are_parted_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    at, values, edges = rng.uniform(-1, 11, 500), rng.random(500), np.linspace(0, 10, 6)
    at[:3] = [0.0, 10.0, np.nan]
    found = distribution.between(edges, at, values)
    expected = [values[(at >= low) & (at < high)] for low, high in pairwise(edges)]
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]
