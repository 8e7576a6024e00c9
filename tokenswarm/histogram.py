"""Mergeable histograms of durations: HdrHistogram, microseconds, three significant digits, 1 µs to one hour.

Used for what is too much to keep raw (gaps between chunks); percentiles of requests come from their rows instead.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram
from pyhdrh import decode as decode_counts  # of the same distribution

Counts = npt.NDArray[np.uint64]

LOWEST_US = 1
HIGHEST_US = 3_600_000_000
DIGITS = 3
_KEPT_BITS = 8
_EXACT_BITS = 11
"""Values of so many bits have a step to themselves: 2 × 10^3 of them, to the next power of two."""


def new() -> HdrHistogram:
    """An empty histogram of microseconds."""
    return HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)


_COUNTS = new().counts_len
_OUTER = 8
"""Bytes before the compressed part of a text."""
_HEAD = zlib.decompress(base64.b64decode(new().encode())[_OUTER:])
"""What is before the counts of all histograms like ours, but for their length."""


def encode_ns(durations_ns: Sequence[int]) -> str:
    """Durations in nanoseconds, as one HdrHistogram V2 text (compressed, base64). Out-of-range values are clamped.

    Recording costs microseconds a value in Python, and this runs while tokens arrive: values are first brought to the
    middle of steps of at most 0.8 % of their size, so that few different ones are left.
    """
    histogram = new()
    micros = np.clip(np.asarray(durations_ns, dtype=np.int64) // 1000, LOWEST_US, HIGHEST_US)
    shift = np.maximum(np.frexp(micros.astype(np.float64))[1].astype(np.int64) - _KEPT_BITS, 0)
    steps = ((micros >> shift) << shift) + ((1 << shift) >> 1)
    for value, count in zip(*np.unique(steps, return_counts=True), strict=True):
        histogram.record_value(min(int(value), HIGHEST_US), int(count))
    encoded: bytes = histogram.encode()
    return encoded.decode("ascii")


def decode(text: str) -> HdrHistogram:
    """What `encode_ns` made. Raises ValueError on a damaged text, and on a histogram of another range or precision."""
    try:
        histogram = HdrHistogram.decode(text.encode("ascii"))
    except Exception as error:
        raise ValueError(f"not an HdrHistogram V2 text: {text[:40]!r} ({error})") from error
    if histogram.counts_len != _COUNTS:  # to add it would go value by value, and could take very long
        raise ValueError(f"not an HdrHistogram of 1 µs to 1 h with {DIGITS} digits: {text[:40]!r}")
    return histogram


def merge(encoded: Iterable[str]) -> HdrHistogram:
    """The sum of several encoded histograms; empty strings are skipped. Raises ValueError as `decode` does."""
    total, one = new(), np.zeros(_COUNTS, dtype=np.uint64)
    counts = _counts(total)
    count, lowest, highest = 0, _COUNTS, -1
    for text in filter(None, encoded):
        first, last = _decode_into(one, text)
        some = one[first : last + 1]
        counts[first : last + 1] += some
        count, lowest, highest = count + int(some.sum()), min(lowest, first), max(highest, last)
        some[:] = 0
    if count:
        total.set_internal_tacking_values(lowest, highest, count)
    return total


def _decode_into(counts: Counts, text: str) -> tuple[int, int]:
    """Put what was encoded into counts that are all 0; the first and the last index that is not, (0, -1) if none is.
    Raises ValueError as `decode` does.

    The library's own way makes a histogram with room for all counts of each text, which takes five times as long.
    """
    try:
        data = zlib.decompress(base64.b64decode(text)[_OUTER:])
        if data[:4] == _HEAD[:4] and data[8 : len(_HEAD)] == _HEAD[8:]:  # between them is the length
            found = decode_counts(data, len(_HEAD), counts.ctypes.data, _COUNTS, counts.itemsize)
            return max(0, found["min_nonzero_index"]), found["max_nonzero_index"]
    except Exception:  # whatever it is, `decode` says it
        counts[:] = 0
    counts += _counts(decode(text))
    there = np.flatnonzero(counts)
    return (int(there[0]), int(there[-1])) if len(there) else (0, -1)


def _counts(histogram: HdrHistogram) -> Counts:
    return np.ctypeslib.as_array(histogram.encoder.payload.counts)


def recorded(histogram: HdrHistogram) -> tuple[np.ndarray, np.ndarray]:
    """The values that are in it, in microseconds, rising, and how often each is."""
    everywhere = _counts(histogram)
    indices = np.flatnonzero(everywhere)
    values = np.array([histogram.get_value_from_index(int(index)) for index in indices], dtype=np.int64)
    return values, everywhere[indices]


def mean_and_deviation_ms(histogram: HdrHistogram) -> tuple[float, float]:
    """Mean and standard deviation (of all, n) in milliseconds, each value taken for the middle of its step, as hdrh's
    own methods do, which walk through every value up to the largest. NaN when the histogram is empty."""
    values, counts = recorded(histogram)
    if not len(values):
        return float("nan"), float("nan")
    shift = np.maximum(np.frexp(values.astype(np.float64))[1].astype(np.int64) - _EXACT_BITS, 0)
    middles = values + ((1 << shift) >> 1)
    mean = np.average(middles, weights=counts)
    return float(mean) / 1e3, float(np.sqrt(np.average((middles - mean) ** 2, weights=counts))) / 1e3


def percentile_ms(histogram: HdrHistogram, percentile: float) -> float | None:
    """A percentile (0 to 100) in milliseconds, within 0.5 % of the value; None when the histogram is empty."""
    if not histogram.get_total_count():
        return None
    return float(histogram.get_value_at_percentile(percentile)) / 1000.0
