"""Locust's own CSVs, in the run directory and complete to the last second."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from locust.stats import PERCENTILES_TO_REPORT, StatsCSVFileWriter


class LocustCsv:
    """Writes locust_stats.csv and its siblings from now on; `finish` rewrites them with the final numbers.

    `say` takes a sentence if the disk refuses; the run itself goes on.
    """

    def __init__(self, environment: Any, directory: Path, say: Callable[[str], None]) -> None:
        self._say = say
        self._directory = directory
        self._writer: Any = None
        self._greenlet: Any = None
        try:
            # With full history, for the rows beside Aggregated.
            self._writer = StatsCSVFileWriter(environment, PERCENTILES_TO_REPORT, str(directory / "locust"), True)
        except OSError as error:
            self._refused(error)
            return
        self._greenlet = gevent.spawn(self._write)

    def finish(self) -> None:
        """The last numbers, then close. Switches no greenlet."""
        if self._writer is None:
            return
        self._greenlet.kill(block=False)
        writer = self._writer
        try:
            for handle, rewrite, rows in (
                (writer.requests_csv_filehandle, writer.requests_csv, writer.requests_csv_writer),
                (writer.failures_csv_filehandle, writer.failures_csv, writer.failures_csv_writer),
                (writer.exceptions_csv_filehandle, writer.exceptions_csv, writer.exceptions_csv_writer),
            ):
                handle.seek(0)
                rewrite(rows)
                handle.truncate()
            writer._stats_history_data_rows(writer.stats_history_csv_writer, time.time())
            writer.close_files()
        except OSError as error:
            self._refused(error)

    def _write(self) -> None:
        try:
            self._writer.stats_writer()
        except OSError as error:
            self._refused(error)

    def _refused(self, error: OSError) -> None:
        self._say(f"Locust's CSVs cannot be written to {self._directory}: {error.strerror}; our own files go on.")
