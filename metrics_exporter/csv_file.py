"""`--csv FILE`: every sample as rows, one a value, written beside the sampling and never in its way."""

from __future__ import annotations

import csv
import io
import logging
import os
import threading
from pathlib import Path
from typing import Final

from metrics_exporter.ring import Ring, Sample

log = logging.getLogger("metrics_exporter")

COLUMNS: Final = ("time", "host", "source", "seq", "device", "metric", "value", "mean", "max")
_PAUSE_SECONDS: Final = 1.0


class CsvFile:
    """Follows the ring as a client would, so that a slow or full disk costs rows at worst.

    A file that is there is appended to, if it begins with the same columns. Raises OSError, or ValueError for a file
    of another kind.
    """

    def __init__(self, path: Path, ring: Ring, host: str) -> None:
        self._ring = ring
        self._host = host
        self._path = path
        self._next = 0
        self.up = True
        self.lost = 0
        """Samples that the ring gave up before the disk took them."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._size = self._begin()
        except BaseException:
            os.close(self._fd)
            raise
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="csv", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Write what the ring still has, for at most `timeout` seconds."""
        self._stop.set()
        self._thread.join(timeout)

    def _begin(self) -> int:
        """Check or write the header; where to go on."""
        header = (",".join(COLUMNS) + "\n").encode()
        there = os.pread(self._fd, len(header), 0)
        if not there:
            os.pwrite(self._fd, header, 0)
            return len(header)
        if there != header:
            raise ValueError("the file is there, and holds something else")
        size = os.fstat(self._fd).st_size
        tail = os.pread(self._fd, 65536, max(0, size - 65536))
        whole = size - (len(tail) - tail.rfind(b"\n") - 1)
        os.ftruncate(self._fd, whole)  # without a row that was cut off
        return whole

    def _run(self) -> None:
        while not self._stop.is_set():
            self._ring.wait(self._next, _PAUSE_SECONDS)
            self._write_new()
            if not self.up:
                self._stop.wait(_PAUSE_SECONDS)
        self._write_new()
        os.close(self._fd)

    def _write_new(self) -> None:
        new = self._ring.since(self._next)
        if not new.samples:
            return
        data = _rows(new.samples, self._host)
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], self._size + written)
        except OSError as error:
            self._say_down(error)
            return
        self._size += len(data)
        self._next = new.next
        self.lost += new.dropped
        if not self.up:
            self.up = True
            log.warning("--csv %s: written again; %d samples were lost", self._path, self.lost)

    def _say_down(self, error: OSError) -> None:
        if self.up:
            log.error("--csv %s: %s; it is tried again each second", self._path, error.strerror)
        self.up = False
        try:
            os.ftruncate(self._fd, self._size)  # no half rows
        except OSError as problem:
            log.debug("--csv %s: %s", self._path, problem)


def _rows(samples: list[Sample], host: str) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for sample in samples:
        time = f"{sample.wall_ns // 1_000_000_000}.{sample.wall_ns % 1_000_000_000 // 1000:06}"
        means, most_of_all = sample.mean, sample.max
        for device, values in sample.values.items():
            mean, most = means.get(device, {}), most_of_all.get(device, {})
            for key, value in values.items():
                cells = (time, host, sample.source, sample.seq, device, key)
                writer.writerow((*cells, _number(value), _number(mean.get(key)), _number(most.get(key))))
    return text.getvalue().encode()


def _number(value: float | None) -> str:
    """As short as it can be without losing anything: whole numbers without `.0`."""
    return "" if value is None else repr(int(value)) if value.is_integer() else repr(value)
