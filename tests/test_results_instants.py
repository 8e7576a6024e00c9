"""How many instants, and how much of what they carry, fall into a window."""

from __future__ import annotations

import numpy as np
import pytest

from tokenswarm.results.flow import Instants


@pytest.mark.parametrize("seed", range(3))
def test_a_window_holds_what_looking_at_each_instant_gives(seed: int) -> None:
    rnd = np.random.default_rng(seed)
    times, amounts = np.round(rnd.uniform(0, 20, 300), 1), rnd.uniform(0, 9, 300)
    times[::7], amounts[::11] = np.nan, np.nan
    found = Instants(times, amounts)
    for start, end in [(0.0, 20.0), (3.0, 3.1), (5.5, 5.5), (-9.0, -1.0), (19.9, 99.0)]:
        inside = (times >= start) & (times < end) & ~np.isnan(amounts)
        assert found.between(start, end) == (inside.sum(), pytest.approx(amounts[inside].sum()))
    assert Instants(times).between(0, 99)[0] == (~np.isnan(times)).sum()


def test_without_instants_nothing_is_in_a_window() -> None:
    assert Instants(np.array([])).between(0, 9) == (0, 0)
