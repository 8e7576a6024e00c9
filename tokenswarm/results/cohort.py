"""Some of a run's requests, as those that were due in its steady windows. METRICS.md, "Cohort"."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt
import pandas as pd

from tokenswarm.record import STATUSES

Mask: TypeAlias = npt.NDArray[np.bool_]


class Cohort:
    """Rows of a run, taken from it a column or a few at a time, since a table of them all may be as large as the run's.

    What is taken is as a data frame has it, with the run's own index.
    """

    def __init__(self, rows: pd.DataFrame, chosen: Mask) -> None:
        self._rows = rows
        self._chosen = None if chosen.all() else chosen
        self._count = int(np.count_nonzero(chosen))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, names: str) -> pd.Series[Any]: ...
    @overload
    def __getitem__(self, names: list[str]) -> pd.DataFrame: ...
    def __getitem__(self, names: str | list[str]) -> pd.Series[Any] | pd.DataFrame:
        every = self._rows[names]
        if self._chosen is None or isinstance(every, pd.DataFrame):
            return every if self._chosen is None else every[self._chosen]
        return pd.Series(every.array[self._chosen], index=self.index, name=every.name, copy=False)

    @cached_property
    def index(self) -> pd.Index[Any]:
        """Of what is taken."""
        return self._rows.index if self._chosen is None else self._rows.index[self._chosen]

    @cached_property
    def states(self) -> npt.NDArray[np.int8]:
        """What became of each: its status, by where that is in `record.STATUSES`."""
        known = self["status"].astype("category").cat.set_categories(list(STATUSES))
        return np.asarray(known.cat.codes, dtype=np.int8)

    def among(self, some: Mask) -> Cohort:
        """Some of them, by a mask over these."""
        if self._chosen is None:
            return Cohort(self._rows, some)
        chosen = self._chosen.copy()
        chosen[chosen] = some
        return Cohort(self._rows, chosen)

    def take(self, places: npt.NDArray[np.int64]) -> pd.DataFrame:
        """Whole rows, by where they are among these."""
        return self._rows.take(places if self._chosen is None else np.flatnonzero(self._chosen)[places])


Rows: TypeAlias = pd.DataFrame | Cohort
"""Requests, one each row."""


def among(rows: Rows, some: Mask) -> Cohort:
    """Some of these requests, by a mask over them."""
    return rows.among(some) if isinstance(rows, Cohort) else Cohort(rows, some)


def tally(texts: pd.Series[Any]) -> dict[str, int]:
    """How often each text is there, the most frequent first; of equally frequent ones, the one that came first."""
    codes, words = pd.factorize(texts)
    counts = np.bincount(codes, minlength=len(words))
    return {str(words[place]): int(counts[place]) for place in np.argsort(-counts, kind="stable").tolist()}


def ended_as(rows: Rows, *statuses: str) -> Mask:
    """Which of them have one of these statuses."""
    if isinstance(rows, Cohort):
        return np.isin(rows.states, [STATUSES.index(status) for status in statuses])
    return rows["status"].isin(statuses).to_numpy()
