"""Stalls in runs small enough to count by hand, and of a real server that stood still."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import run_directory_maker as maker
from locust_process import locust
from pytest import approx
from simulator_process import simulator

from tokenswarm import histogram
from tokenswarm.results import phases, read, report, summarise
from tokenswarm.results.figures import stalls

LONG_S = 8.0


def replies(starts: Sequence[float], workers: int = 2, **fields: Any) -> list[maker.Record]:
    """Replies of 8 s, their first token after 0.1 s, gaps of 40 ms; dealt out to the workers in turn."""
    usual = {"itl_p50_ms": 40.0, "itl_max_ms": 45.0}
    return [
        maker.request(index, start, 0.1, LONG_S, tokens=101, worker=index % workers, **usual | fields)
        for index, start in enumerate(starts)
    ]


def figures(folder: Path, records: list[maker.Record], gaps: dict[tuple[int, int], float] | None = None) -> Any:
    """Of a run in which the (worker, second) have a gap of so many ms."""

    def line(worker: int, second: int) -> dict[str, Any]:
        gap = (gaps or {}).get((worker, second))
        return {} if gap is None else {"itl": histogram.encode_ns([40_000_000] * 9 + [round(gap * 1e6)])}

    run = read.load(maker.write(folder, records, maker.boundaries(2, 0, 60, 60), health=line))
    return stalls.figures(run, phases.find(run))


def with_gaps(records: list[maker.Record], gap_ms: float, which: Sequence[int]) -> list[maker.Record]:
    for index in which:
        records[index].itl_max_ms = gap_ms
    return records


def test_a_pause_of_the_whole_server_is_one_moment(tmp_path: Path) -> None:
    records = replies([16, 16.5, 17, 16, 16.5, 17, 40, 41])
    found = figures(tmp_path, with_gaps(records, 1500, range(6)), {(0, 19): 1500, (1, 19): 1500})
    assert (found["threshold_ms"], found["streamed"], found["requests"], found["share"]) == (1000, 8, 6, 0.75)
    assert (found["longest_ms"], found["longest_id"], found["placed"]) == (1500, "r0", 6)
    assert found["workers"] == [{"worker": w, "streamed": 4, "requests": 3} for w in (0, 1)]
    assert found["one_worker"] is None
    (moment,) = found["moments"]
    assert moment["at_s"] == approx(19.5, abs=1e-3), "between 19 s and 20 s, where the histogram has it"
    assert {name: moment[name] for name in ("requests", "streaming", "workers", "median_ms", "suspect")} == {
        "requests": 6, "streaming": 6, "workers": [0, 1], "median_ms": 1500, "suspect": "server",
    }  # fmt: skip
    for stall in found["each"]:
        assert (stall["from_s"], stall["to_s"], stall["at_s"]) == approx((19, 20, 19.5), abs=1e-3)


def test_one_worker_that_stands_still_while_another_goes_on_is_suspect(tmp_path: Path) -> None:
    records = replies([16, 16, 16.5, 16.5, 17, 17])
    found = figures(tmp_path, with_gaps(records, 1500, (1, 3, 5)), {(1, 19): 1500})
    (moment,) = found["moments"]
    assert (moment["requests"], moment["streaming"], moment["workers"]) == (3, 6, [1])
    assert moment["suspect"] == "worker"
    assert found["one_worker"] is None, "three of three is chance in one case of eight"


def test_a_single_worker_cannot_be_told_from_the_server(tmp_path: Path) -> None:
    records = with_gaps(replies([16, 16, 17, 17], workers=1), 1500, range(4))
    (moment,) = figures(tmp_path, records, {(0, 19): 1500})["moments"]
    assert (moment["workers"], moment["suspect"]) == ([0], "server")


def test_each_stall_belongs_to_one_moment(tmp_path: Path) -> None:
    """Two of worker 0 in second 17; one of worker 1 in second 17 or 18; three of worker 0 in second 18, after 18.3."""
    records = replies([12, 12, 12, 16.6, 16.6, 16.6], workers=1)
    records[2].worker = 1
    records = with_gaps(with_gaps(records, 1500, range(3)), 1600, range(3, 6))
    found = figures(tmp_path, records, {(0, 17): 1500, (1, 17): 1500, (1, 18): 1500, (0, 18): 1600})
    told = sorted((moment["at_s"], moment["requests"], moment["workers"]) for moment in found["moments"])
    assert told == [(approx(17.5, abs=1e-3), 3, [0, 1]), (approx(18.65, abs=1e-3), 3, [0])]


def test_so_many_of_one_worker_are_no_chance(tmp_path: Path) -> None:
    records = replies([6.0 * (n // 2) for n in range(14)])
    mine = range(1, 14, 2)
    found = figures(tmp_path, with_gaps(records, 2000, mine))
    assert found["one_worker"] == 1, "half of all requests, to the seventh: 0.8 %"
    assert found["moments"] == []


def test_a_few_of_many_are_single_requests_that_were_put_off(tmp_path: Path) -> None:
    records = replies([16.0] * 8)
    found = figures(tmp_path, with_gaps(records, 1500, (0, 1, 2)), {(0, 19): 1500, (1, 19): 1500})
    (moment,) = found["moments"]
    assert (moment["requests"], moment["streaming"], moment["suspect"]) == (3, 8, None)


def test_what_ended_in_different_seconds_is_no_moment(tmp_path: Path) -> None:
    records = with_gaps(replies([16.0] * 4), 1500, (0, 1))
    records = with_gaps(records, 1800, (2, 3))
    at = {(0, 18): 1500, (1, 18): 1500, (0, 22): 1800, (1, 22): 1800}
    found = figures(tmp_path, records, at)
    assert found["moments"] == []
    assert [stall["at_s"] for stall in found["each"]] == approx([22.5, 22.5, 18.5, 18.5], abs=1e-3)


def test_a_slow_stream_has_no_stalls_merely_because_it_is_slow(tmp_path: Path) -> None:
    records = replies([16, 17, 18], itl_p50_ms=150.0, itl_max_ms=1400.0)
    found = figures(tmp_path, records)
    assert (found["threshold_ms"], found["requests"], found["longest_ms"]) == (1500, 0, 1400)


def test_without_a_histogram_it_is_known_only_between_when(tmp_path: Path) -> None:
    found = figures(tmp_path, with_gaps(replies([16, 17, 18, 19]), 1500, range(4)))
    assert (found["requests"], found["placed"], found["moments"]) == (4, 0, [])
    first = next(stall for stall in found["each"] if stall["id"] == "r0")
    assert (first["from_s"], first["to_s"]) == approx((16 + 0.1 + 1.5, 16 + LONG_S))


def test_the_same_gap_in_two_seconds_leaves_both_open(tmp_path: Path) -> None:
    found = figures(tmp_path, with_gaps(replies([16, 16]), 1500, (0,)), {(0, 18): 1500, (0, 19): 1500})
    (stall,) = found["each"]
    assert (stall["from_s"], stall["to_s"]) == approx((18, 20), abs=1e-3)


def test_a_damaged_histogram_places_nothing(tmp_path: Path) -> None:
    records = with_gaps(replies([16, 16]), 1500, (0,))
    directory = maker.write(tmp_path, records, health=lambda worker, second: {"itl": "no histogram"})
    run = read.load(directory)
    found = stalls.figures(run, phases.find(run))
    assert found is not None
    assert (found["requests"], found["placed"]) == (1, 0)


def test_a_reply_that_never_went_on_is_silent_and_no_stall(tmp_path: Path) -> None:
    gone = {"status": "timeout", "error_class": "stall_timeout", "last_token_ms": 2000.0}
    records = [*replies([16, 17]), *replies([18], **gone), *replies([19], **gone | {"last_token_ms": 7500.0})]
    found = figures(tmp_path, records)
    assert (found["requests"], found["silent"]) == (0, 1)


def test_what_stood_still_nobody_knows_when_did_not_go_on(tmp_path: Path) -> None:
    """Four of worker 0 stood still in second 19; so did worker 1's, of which no histogram tells when."""
    records = with_gaps(replies([16.0] * 8), 1500, range(8))
    (moment,) = figures(tmp_path / "none", records, {(0, 19): 1500})["moments"]
    assert (moment["requests"], moment["streaming"], moment["workers"]) == (4, 8, [0])
    assert moment["suspect"] == "server", "half of all"
    (moment,) = figures(tmp_path / "fewer", with_gaps(records, 45, (0,)), {(0, 19): 1500})["moments"]
    assert (moment["requests"], moment["suspect"]) == (3, "unknown")
    (moment,) = figures(tmp_path / "others", with_gaps(records, 45, (1, 3, 5)), {(0, 19): 1500})["moments"]
    assert moment["suspect"] == "worker", "three of the other worker's are known to have gone on"


def test_a_stall_just_before_the_last_token_is_one_of_those_in_progress(tmp_path: Path) -> None:
    records = replies([16.0] * 3)
    for record in records:
        record.itl_max_ms, record.last_token_ms = 1500.0, 1599.999  # rounded: first token + gap is 1600
    (moment,) = figures(tmp_path, records)["moments"]
    assert (moment["requests"], moment["streaming"]) == (3, 3)


def test_a_stall_of_an_unknown_worker_is_told_without_one(tmp_path: Path) -> None:
    directory = maker.write(tmp_path, with_gaps(replies([16, 17, 18]), 1500, (0, 1)), maker.boundaries(2, 0, 60, 60))
    table = pd.read_csv(directory / "requests.csv", dtype=str, keep_default_na=False)
    table.loc[0, "worker"] = "?"
    table.to_csv(directory / "requests.csv", index=False)
    run = read.load(directory)
    summary = summarise.summarise(run)
    found = summary["stalls"]
    assert (found["requests"], found["streamed"], found["one_worker"]) == (2, 3, None)
    assert [(one["worker"], one["streamed"], one["requests"]) for one in found["workers"]] == [(0, 1, 0), (1, 1, 1)]
    assert [stall["worker"] for stall in found["each"]] == [None, 1]
    assert 'id="chart-stalls"' in report.render(run, summary)


def test_which_seconds_a_stall_touches_is_what_looking_at_each_gives() -> None:
    rnd = np.random.default_rng(1)
    owners, ends = rnd.integers(0, 3, 300).astype(float), rnd.uniform(0, 100, 300)
    starts = ends - rnd.uniform(0.5, 4, 300)
    of_worker = stalls._lines_of(owners, starts, ends)
    for start, length in zip(rnd.uniform(-5, 105, 50).tolist(), rnd.uniform(0, 9, 50).tolist(), strict=True):
        for worker in (0.0, 1.0, 2.0):
            each = np.flatnonzero((owners == worker) & (ends > start) & (starts < start + length))
            assert sorted(of_worker[worker].touching(start, start + length)) == each.tolist()


def test_nothing_is_said_where_no_gap_is_known(tmp_path: Path) -> None:
    assert figures(tmp_path, replies([16], itl_p50_ms=None, itl_max_ms=None)) is None
    run = read.load(maker.write(tmp_path / "empty", []))
    assert stalls.figures(run, phases.find(run)) is None


@pytest.mark.slow
def test_a_server_that_is_stopped_for_a_while_is_seen_to_have_paused(tmp_path: Path) -> None:
    users, paused_s = 6, 1.5
    with (
        simulator(tmp_path, "--decode-base", "20") as server,
        locust(
            tmp_path, "--headless", "-u", str(users), "-r", str(users), "-t", "4s", "--host", server.url,
            "--output-tokens", "150", "--ignore-eos",
        ) as run,
    ):  # fmt: skip
        run.until(lambda: any(line["chunks"] and line["in_flight"] == users for line in run.intervals()))
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(paused_s)
        went_on = time.time()
        server.process.send_signal(signal.SIGCONT)
        assert run.wait() == 0, run.output
        summary = run.json("summary.json")
    found = summary["stalls"]
    moment = found["moments"][0]
    assert moment["suspect"] == "server"
    assert moment["requests"] >= users - 2, "one or two may have been between replies"
    assert moment["median_ms"] >= paused_s * 1e3
    assert summary["run"]["start"] + moment["at_s"] == approx(went_on, abs=2)
