"""Samples of hardware from a CSV file that somebody else wrote: nvidia-smi, a script, another exporter.

Any CSV with a header and a column of times will do. Ours (hardware.csv, and what the exporter's --csv writes) is known
by its columns. What becomes of values is in `units`.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from tokenswarm.errors import AnalysisError
from tokenswarm.results import hardware
from tokenswarm.results.files import long_csv, whole_lines
from tokenswarm.results.files.long_csv import Wanted
from tokenswarm.results.flow import Floats
from tokenswarm.results.merge import units

TIMES: Final = ("time", "timestamp", "datetime", "date_time", "utc", "epoch", "unix_time", "unixtime", "ts", "date")
HOSTS: Final = ("host", "hostname", "node", "instance")
DEVICES: Final = ("uuid", "gpu_uuid", "device", "index", "gpu", "gpu_id", "gpu_index", "pci.bus_id")
_TIMELY: Final = ("time", "epoch", "unix")
"""Beginnings of other names of a column of times."""
_SEPARATORS: Final = (",", ";", "\t")
_OLDEST: Final = 1e8
"""As seconds: March 1973. Smaller numbers are no epoch, but count from something else."""
_ZONED: Final = r"(?:[Zz]|:\d{2}(?:[.,]\d+)?\s*[+-]\d{2}(?::?\d{2})?)$"


def read(
    path: Path, defects: list[str], wanted: Wanted, *, offset: float = 0.0, zone: tzinfo | None = None
) -> pd.DataFrame:
    """Samples as `hardware.LAYOUT` has them, `offset` (seconds by which that clock is ahead) taken out of their times.

    `zone`: of times that tell none; None for UTC, which is then said. Of our own files come the metrics that are
    `wanted`, of others all columns of numbers, under the exporter's names and units where they are known. Raises
    AnalysisError if there is no such file, or no column of times in it.
    """
    lines = whole_lines.opened(path, defects, needed=False)
    if lines is None:
        raise AnalysisError(f"{path}: there is no such file, or it cannot be read")
    first = lines.readline().decode("utf-8-sig", "replace")
    separator = next((each for each in _SEPARATORS if each in first), ",")
    header = [name.strip() for name in next(csv.reader([first], delimiter=separator), [])]
    lines.seek(0)
    if {"time", *hardware.LAYOUT.text, "value"} <= {*header}:
        samples = long_csv.read(lines, path.name, hardware.LAYOUT, wanted, defects)
    else:
        table = _table(lines, separator, path)
        table.columns = pd.Index(header[: len(table.columns)])
        samples = _samples(table, path, defects, zone)
    samples["time"] -= offset
    return samples


def _table(lines: Any, separator: str, path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(
            lines,
            sep=separator,
            dtype=str,
            keep_default_na=False,
            skipinitialspace=True,
            on_bad_lines="skip",
            index_col=False,
            encoding="utf-8-sig",
            encoding_errors="replace",
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise AnalysisError(f"{path}: this cannot be read as a CSV file: {error}") from error


def _samples(table: pd.DataFrame, path: Path, defects: list[str], zone: tzinfo | None) -> pd.DataFrame:
    names = {name.lower(): name for name in table.columns}
    when = _first(names, TIMES) or next((name for low, name in names.items() if low.startswith(_TIMELY)), None)
    if when is None:
        raise AnalysisError(
            f"{path}: none of its columns ({', '.join(map(repr, table.columns[:12]))}) is a time: the first line must "
            f"name the columns, and one of them must be called {', '.join(TIMES[:3])} or similar"
        )
    times = instants(table[when], zone, path, defects)
    whole = np.isfinite(times)
    if not whole.all():
        defects.append(f"{path.name}: {int((~whole).sum()):,} lines have no time and were left out.")
    table = table[whole].reset_index(drop=True)
    host, device = _first(names, HOSTS), _first(names, DEVICES)
    about: dict[str, Any] = {
        "time": times[whole],
        "host": table[host].str.strip() if host else path.stem,
        "device": _devices(table[device].str.strip()) if device else "host",
    }
    metrics: list[pd.DataFrame] = []
    for name in table.columns:
        if name == when or name.lower() in (*HOSTS, *DEVICES):
            continue
        if (column := units.column(name, table[name])) is not None:
            told = column.values.notna().to_numpy()
            part = pd.DataFrame(
                about | {"metric": column.metric, "value": column.values, "mean": np.nan, "max": np.nan}
            )
            metrics.append(part[told])
            if column.strange:
                defects.append(
                    f"{path.name}: {column.strange:,} cells of {name!r} are no numbers and count for nothing."
                )
    if not metrics:
        raise AnalysisError(f"{path}: beside the times there is no column of numbers in it")
    return pd.concat(metrics, ignore_index=True).astype(dict.fromkeys(hardware.LAYOUT.text, "category"))


def _devices(names: pd.Series[Any]) -> pd.Series[Any]:
    return names.where(~names.str.fullmatch(r"\d+"), "gpu" + names)


def _first(names: dict[str, str], known: Sequence[str]) -> str | None:
    return next((names[name] for name in known if name in names), None)


def instants(cells: pd.Series[Any], zone: tzinfo | None, path: Path, defects: list[str]) -> Floats:
    """UTC epoch seconds from seconds, ms, µs or ns since 1970, or from dates with times as ISO 8601 and nvidia-smi
    write them; NaN for what is none. Raises AnalysisError if none is."""
    numbers = pd.to_numeric(cells, errors="coerce").astype("float64")
    if numbers.notna().sum() * 2 > len(cells):
        return _since_1970(np.asarray(numbers, dtype=np.float64), path)
    text = cells.str.strip().str.replace(r"^(\d{4})/(\d\d)/(\d\d)", r"\1-\2-\3", regex=True)
    zoned = text.str.contains(_ZONED, regex=True)
    parsed = pd.Series(pd.NaT, index=text.index, dtype="datetime64[us, UTC]")
    parsed[zoned] = pd.to_datetime(text[zoned], format="ISO8601", errors="coerce", utc=True)
    bare = pd.to_datetime(text[~zoned], format="ISO8601", errors="coerce")
    parsed[~zoned] = bare.dt.tz_localize(zone or UTC, ambiguous="NaT", nonexistent="NaT").dt.tz_convert(UTC)
    if parsed.notna().sum() == 0:
        example = next(iter(cells), "")
        raise AnalysisError(
            f"{path}: {example!r} is no time that can be read: seconds or milliseconds since 1970 will do, and dates "
            "such as 2026-11-21T15:36:54.123Z or 2026/11/21 15:36:54.123"
        )
    if bare.notna().any() and zone is None:
        defects.append(f"{path.name}: its times tell no zone and were taken as UTC; --timezone names another.")
    since = (parsed - pd.Timestamp(0, tz=UTC)) / pd.Timedelta(seconds=1)
    return np.asarray(since, dtype=np.float64)


def _since_1970(numbers: Floats, path: Path) -> Floats:
    middle = float(np.nanmedian(np.abs(numbers)))
    if middle < _OLDEST:
        raise AnalysisError(
            f"{path}: times such as {middle:g} do not count from 1970, so that nothing tells when that was"
        )
    scale = next((scale for scale in (1.0, 1e3, 1e6) if middle < 1e11 * scale), 1e9)
    return numbers / scale
