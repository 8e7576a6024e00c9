"""What a server says about its own times, beside what we measured of the same requests."""

from __future__ import annotations

import itertools
import json
import statistics
from pathlib import Path

import pytest

from conformance import scenario
from conformance.hf_model import LETTERS
from conformance.histograms import Histogram, growth
from conformance.page import Seen
from conformance.server import Running, Server

pytestmark = [pytest.mark.servers, pytest.mark.slow]

TOKENS = 100
VISIBLE = {"allowed_token_ids": list(range(3, 3 + LETTERS))}
"""Every token is a letter, which can be sent as soon as it is there."""
RUNS = {
    "1 user": (1, VISIBLE),
    "4 users": (4, VISIBLE),
    "4 users, parts of characters": (4, {}),
    "12 users, 4 at once": (12, VISIBLE),
}


@pytest.mark.only("vLLM")
@pytest.mark.parametrize("name", RUNS)
def test_vllms_histograms(server: Server, running: Running, seen: Seen, tmp_path: Path, name: str) -> None:
    users, body = RUNS[name]
    before = running.metrics()
    asked = ("--output-tokens", str(TOKENS), "--extra-body", json.dumps({**server.long_body, **body}))
    options = ("--no-check", "-u", str(users), "-r", str(users), "-t", "10s", *asked)
    process = scenario.run(server, running, tmp_path, *options)
    after = running.metrics()
    rows = process.rows()
    ttft, itl, e2e = (
        growth(before, after, f"vllm:{name}_seconds")
        for name in ("time_to_first_token", "inter_token_latency", "e2e_request_latency")
    )
    assert {row["status"] for row in rows} == {"ok"}
    assert ttft.count == e2e.count == len(rows), "the same requests"
    assert itl.count == len(rows) * (TOKENS - 1), "it counts tokens"
    if body:
        assert sum(int(row["output_chars"]) for row in rows) == len(rows) * TOKENS, "and none of them is lost"

    ours = [float(row["ttft_sent_ms"]) for row in rows]
    low = [sent - unsure([row]) for sent, row in zip(ours, rows, strict=True)]
    last = [float(row["last_token_ms"]) - float(row["ttft_ms"]) + float(row["ttft_sent_ms"]) for row in rows]
    decoding = [float(row["last_token_ms"]) - float(row["ttft_ms"]) for row in rows]
    gaps = sum(int(row["chunks"]) - 1 for row in rows)
    # It begins to count when it has read the request, and ends when it has a token, not when it sends that.
    assert statistics.fmean(ours) > ttft.mean_ms
    assert statistics.fmean(last) > e2e.mean_ms * 0.95
    assert gaps <= itl.count
    assert 0.95 * sum(decoding) <= itl.total * 1e3 <= 1.05 * (sum(decoding) + unsure(rows))
    seen[name] = " | ".join(
        (
            str(len(rows)),
            f"{bounds(statistics.fmean(low), statistics.fmean(ours))} / {ttft.mean_ms:.1f}",
            *(
                f"{bounds(percentile(low, share), percentile(ours, share))} / {bucket(ttft, share)}"
                for share in (0.5, 0.95)
            ),
            f"{gaps + len(rows):,} / {itl.count + len(rows):,.0f}",
            f"{sum(decoding) / gaps:.2f} / {itl.mean_ms:.2f}",
            f"{bounds(sum(decoding) / len(rows), (sum(decoding) + unsure(rows)) / len(rows))}"
            f" / {itl.total / len(rows) * 1e3:.1f}",
            f"{statistics.fmean(last):.0f} / {e2e.mean_ms:.0f}",
        )
    )


@pytest.mark.only("llama.cpp")
@pytest.mark.parametrize("users", [1, 4])
def test_llama_cpps_timings(server: Server, running: Running, seen: Seen, tmp_path: Path, users: int) -> None:
    body = json.dumps({"timings_per_token": True, **server.long_body})
    options = ("-u", str(users), "-r", str(users), "-t", "8s", "--output-tokens", str(TOKENS), "--extra-body", body)
    process = scenario.run(server, running, tmp_path, *options, "--no-check", text=scenario.TIMED)
    times = [json.loads(line[5:]) for line in process.output.splitlines() if line.startswith("TIMED")]
    theirs = [late - early for reply in times for early, late in itertools.pairwise(reply)]
    ours = process.json("summary.json")["latency"]["itl_ms"]
    rows = process.rows()
    decoding = [float(row["last_token_ms"]) - float(row["ttft_ms"]) for row in rows]
    assert len(times) == len(rows) > 0
    assert 0.95 * sum(decoding) <= sum(theirs) <= 1.05 * (sum(decoding) + unsure(rows))
    seen[f"{users} users" if users > 1 else "1 user"] = " | ".join(
        (
            str(len(rows)),
            f"{statistics.fmean(decoding) / (TOKENS - 1):.3f} / {statistics.fmean(theirs):.3f}",
            *(f"{ours[name]:.3f} / {percentile(theirs, share):.3f}" for name, share in (("p50", 0.5), ("p99", 0.99))),
        )
    )


def unsure(rows: list[dict[str, str]]) -> float:
    """By how much decoding may have taken longer: on a busy machine a first token has bounds only."""
    return sum(float(row["ttft_ms"]) - float(row["ttft_low_ms"]) for row in rows)


def bounds(low: float, high: float) -> str:
    """Two bounds in ms, or one number where they agree."""
    return f"{high:.1f}" if high - low < 0.01 * high else f"{low:.1f}–{high:.1f}"


def percentile(values: list[float], share: float) -> float:
    """Linear between ranks."""
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


def bucket(histogram: Histogram, share: float) -> str:
    """The bounds between which a percentile lies, in ms."""
    low, high = histogram.percentile_ms(share)
    return f"{low:g}–{high:g}"
