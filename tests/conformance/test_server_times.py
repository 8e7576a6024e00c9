"""What a server says about its own times, beside what we measured of the same requests."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from locust_process import headless

from conformance import scenario
from conformance.hf_model import LETTERS
from conformance.histograms import Histogram, growth
from conformance.page import Seen
from conformance.server import Running, Server

pytestmark = [pytest.mark.servers, pytest.mark.slow]

TOKENS = 100
PRINTABLE = list(range(3, 3 + LETTERS))
"""Each of these has a text, and so a chunk, of its own."""
RUNS = {
    "one user": ("1", {"allowed_token_ids": PRINTABLE}),
    "four users": ("4", {"allowed_token_ids": PRINTABLE}),
    "four users, any token": ("4", {}),
    "twelve users, four at once": ("12", {"allowed_token_ids": PRINTABLE}),
}
PREFIX = "vllm:"


@pytest.mark.only("vLLM")
@pytest.mark.parametrize("name", RUNS)
def test_vllms_histograms(server: Server, running: Running, seen: Seen, tmp_path: Path, name: str) -> None:
    users, body = RUNS[name]
    options = (
        "--model",
        server.model,
        "--no-check",
        "--output-tokens",
        str(TOKENS),
        "-u",
        users,
        "-r",
        users,
        "-t",
        "10s",
    )
    asked = json.dumps({**server.long_body, **body})
    before = running.metrics()
    process = headless(
        tmp_path,
        running.url,
        *options,
        "--extra-body",
        asked,
        locustfile=scenario.write(tmp_path, scenario.SHORT),
        env={"LLM_API_KEY": server.key or ""},
    )
    rows = process.rows()
    after = running.metrics()
    assert {row["status"] for row in rows} == {"ok"}
    ours = {
        column: [float(row[column]) for row in rows]
        for column in ("ttft_sent_ms", "e2e_ms", "last_token_ms", "ttft_ms")
    }
    sending = [float(row["ttft_ms"]) - float(row["ttft_sent_ms"]) for row in rows]
    theirs = {
        "ttft": growth(before, after, f"{PREFIX}time_to_first_token_seconds"),
        "itl": growth(before, after, f"{PREFIX}inter_token_latency_seconds"),
        "e2e": growth(before, after, f"{PREFIX}e2e_request_latency_seconds"),
    }
    assert theirs["ttft"].count == theirs["e2e"].count == len(rows), "the same requests"
    assert theirs["itl"].count == len(rows) * (TOKENS - 1), "it counts tokens"
    gaps = sum(int(row["chunks"]) - 1 for row in rows)
    spans = [float(row["last_token_ms"]) - float(row["ttft_ms"]) for row in rows]
    latency = process.json("summary.json")["latency"]
    # It begins to count when the request has reached it, and ends when it has a token, not when that is sent.
    assert statistics.fmean(ours["ttft_sent_ms"]) >= theirs["ttft"].mean_ms
    if "allowed_token_ids" in body:
        assert sum(int(row["output_chars"]) for row in rows) == len(rows) * TOKENS
    assert gaps <= theirs["itl"].count
    assert sum(spans) == pytest.approx(theirs["itl"].total * 1e3, rel=0.1)
    last = [total - before_sent for total, before_sent in zip(ours["last_token_ms"], sending, strict=True)]
    assert statistics.fmean(last) >= theirs["e2e"].mean_ms * 0.95
    seen[name] = json.dumps(
        {
            "requests": len(rows),
            "TTFT from sent": beside(ours["ttft_sent_ms"], theirs["ttft"]),
            "ITL": [sum(spans) / gaps, theirs["itl"].mean_ms, *percentiles(theirs["itl"])],
            "our ITL": latency["itl_ms"],
            "chunks, tokens": [gaps + len(rows), theirs["itl"].count + len(rows)],
            "last token from sent": beside(last, theirs["e2e"]),
        }
    )


def beside(ours: list[float], theirs: Histogram) -> list[Any]:
    """Means, then our p50 and p95 and the buckets in which theirs lie."""
    cuts = statistics.quantiles(ours, n=20, method="inclusive")
    return [
        statistics.fmean(ours),
        theirs.mean_ms,
        cuts[9],
        theirs.percentile_ms(0.5),
        cuts[18],
        theirs.percentile_ms(0.95),
    ]


def percentiles(theirs: Histogram) -> list[Any]:
    """The buckets of p50 and p95."""
    return [theirs.percentile_ms(0.5), theirs.percentile_ms(0.95)]
