"""The slowest requests: which they are, whom that makes suspect, and what surrounded them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import run_directory_maker as maker
from pytest import approx

from tokenswarm.results import phases, read
from tokenswarm.results.figures import slowest

USUAL = 40
"""Requests like one another: TTFT 100 ms, 1 s in all, 11 tokens, gaps of 90 ms, one every second."""


def usual(**fields: Any) -> list[maker.Record]:
    return [maker.request(index, float(index), 0.1, 1.0, itl_max_ms=90.0, **fields) for index in range(USUAL)]


def figures(folder: Path, records: list[maker.Record], health: dict[str, Any] | None = None, **run: Any) -> Any:
    """`health`: what is otherwise with worker 0 in second 20."""
    directory = maker.write(
        folder,
        records,
        maker.boundaries(2, 0, 60, 60),
        health=lambda worker, second: health or {} if (worker, second) == (0, 20) else {},
        **run,
    )
    found = read.load(directory)
    within = phases.find(found)
    cohort = found.rows[within.contain(phases.intended(found))]
    return slowest.figures(found, within, cohort)


def slow(ttft_ms: float = 900.0, low_ms: float | None = None, **fields: Any) -> maker.Record:
    return maker.request(
        99, 20.3, ttft_ms / 1e3, ttft_ms / 1e3 + 0.9, itl_max_ms=90.0,
        **{"ttft_low_ms": ttft_ms if low_ms is None else low_ms} | fields,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("record", "health", "suspect"),
    [
        (slow(), {}, "server"),
        (slow(low_ms=400), {}, "client"),  # 500 ms of which it does not know, 300 ms above the median at most besides
        (slow(pool_ms=700), {}, "connection"),
        (slow(tcp_ms=300, tls_ms=400), {}, "connection"),
        (slow(pool_ms=700), {"loop_lag_ms": 650.0}, "client"),
        (slow(pool_ms=300), {"loop_lag_ms": 650.0}, "server"),  # 300 ms of its own, 500 ms of the server's
        (slow(ttft_ms=149), {}, None),
        (slow(ttft_ms=152), {}, "server"),
    ],
)
def test_suspect_is_whoever_has_the_largest_part(
    tmp_path: Path, record: maker.Record, health: dict[str, Any], suspect: str | None
) -> None:
    first, second, *_ = figures(tmp_path, [*usual(), record], health)["ttft_ms"]
    assert (first["id"], first["suspect"]) == ("r99", suspect)
    assert first["times_median"] == approx(record.ttft_ms / 100)  # type: ignore[operator]
    assert second["suspect"] is None


@pytest.mark.parametrize(
    ("changed", "suspect"),
    [
        ({"tokens": 111, "e2e": 10.0}, "length"),  # 100 tokens more, 90 ms each
        ({"tokens": 11, "e2e": 10.0}, "server"),
        ({"tokens": 31, "e2e": 10.0}, "server"),  # 1.8 s of 9 s
        ({"tokens": 11, "e2e": 10.0, "pool_ms": 6000.0}, "connection"),
    ],
)
def test_a_long_reply_is_not_the_servers_fault(tmp_path: Path, changed: dict[str, Any], suspect: str) -> None:
    record = maker.request(99, 20.3, 0.1, **changed)
    found = figures(tmp_path, [*usual(), record])["e2e_ms"][0]
    assert (found["id"], found["suspect"]) == ("r99", suspect)


@pytest.mark.parametrize(
    ("clock", "health", "suspect"),
    [
        ("kernel", {}, "server"),
        ("kernel", {"loop_lag_ms": 900.0}, "server"),  # the kernel's times know nothing of the loop
        ("user", {"loop_lag_ms": 900.0}, "client"),
        ("user", {"loop_lag_ms": 200.0}, "server"),
        ("kernel", {"ring_full_ms": 5.0}, "client"),
    ],
)
def test_a_gap_is_the_clients_only_if_it_read_nothing(
    tmp_path: Path, clock: str, health: dict[str, Any], suspect: str
) -> None:
    record = maker.request(99, 20.3, 0.1, 1.0, itl_max_ms=800.0, clock=clock)
    found = figures(tmp_path, [*usual(), record], health)["itl_max_ms"][0]
    assert (found["id"], found["suspect"]) == ("r99", suspect)


def test_the_ten_slowest_the_worst_first_each_over_its_own_population(tmp_path: Path) -> None:
    records = [maker.request(n, float(n), 0.1 + n / 100, 2.0 - n / 100, itl_max_ms=50.0 + n) for n in range(USUAL)]
    records[15].status = "failed"
    records[17].ttft_ms = None
    found = figures(tmp_path, records)
    assert [one["id"] for one in found["ttft_ms"]] == [f"r{n}" for n in range(39, 29, -1)]
    assert [one["id"] for one in found["itl_max_ms"]] == [f"r{n}" for n in range(39, 29, -1)]
    assert [one["id"] for one in found["e2e_ms"]] == [f"r{n}" for n in (10, 11, 12, 13, 14, 16, 17, 18, 19, 20)]
    assert found["ttft_ms"][0]["times_median"] == approx(490 / 350), "n = 25, the middle of 29 in the window"


def test_what_surrounded_a_request_by_hand(tmp_path: Path) -> None:
    """A (0) from 10 to 14 s, B (1) from 11 to 15, C (0) from 12 to 13, and the slow one (0) from 13 to 16."""
    spans = {"a": (10.0, 14.0, 0), "b": (11.0, 15.0, 1), "c": (12.0, 13.0, 0), "slow": (13.0, 16.0, 0)}
    records = []
    for index, (name, (start, end, worker)) in enumerate(spans.items()):
        records.append(maker.request(index, start, 0.1, end - start, id=name, worker=worker))
    records[-1].ttft_ms, records[-1].conn_reused, records[-1].step = 2000.0, True, 3
    folder = tmp_path / "run"
    maker.write(
        folder, records, maker.boundaries(2, 0, 16, 16),
        health=lambda worker, second: {"cpu_percent": 10.0 * second, "loop_lag_ms": 5.0 * worker + second},
    )  # fmt: skip
    at = maker.T0
    gpus = "".join(
        f"{at + second},gpu1,GPU-{gpu},utilization_ratio,{second / 20},,\n" for second in range(16) for gpu in "ab"
    )
    (folder / "hardware.csv").write_text("time,host,device,metric,value,mean,max\n" + gpus)
    pages = "".join(f"{at + second},http://s:1/metrics,up,,1\n" for second in range(16))
    pages += f"{at + 12},http://s:1/metrics,vllm:num_requests_waiting,,7\n"
    (folder / "server_metrics.csv").write_text("time,source,metric,labels,value\n" + pages)
    run = read.load(folder)
    found = slowest.figures(run, phases.find(run), run.rows)["ttft_ms"][0]
    assert found["id"] == "slow"
    told = {
        "at_s": 13.0,
        "in_flight": 2,  # A and B; C ended in that moment
        "in_flight_worker": 1,
        "started_nearby": 1,  # C
        "cpu_percent": 140.0,  # of the seconds 13 and 14, in which it waited
        "loop_lag_ms": 14.0,
        "ring_full": False,
        "gpu_percent": 70.0,  # 65, 70 and 75 %
        "server_waiting": 7,
        "conn_reused": True,
        "step": 3,
        "worker": 0,
        "input_tokens": 100.0,
        "before_sent_ms": 0.2,
    }
    assert {name: found[name] for name in told} == approx(told)


def test_what_was_not_measured_is_not_told(tmp_path: Path) -> None:
    folder = maker.write(tmp_path, usual())
    (folder / "intervals.jsonl").unlink()
    run = read.load(folder)
    found = slowest.figures(run, phases.find(run), run.rows)["ttft_ms"][0]
    for name in ("cpu_percent", "loop_lag_ms", "ring_full", "gpu_percent", "server_waiting", "conn_reused", "step"):
        assert found[name] is None, name


def test_what_began_nobody_knows_when_is_left_out(tmp_path: Path) -> None:
    run = read.load(maker.write(tmp_path, [*usual(), slow(start_time=None)]))
    found = slowest.figures(run, phases.find(run), run.rows)
    assert "r99" not in {one["id"] for kind in found.values() for one in kind}


def test_no_request_is_the_slowest_of_none(tmp_path: Path) -> None:
    run = read.load(maker.write(tmp_path, []))
    assert slowest.figures(run, phases.find(run), run.rows) == {"ttft_ms": [], "e2e_ms": [], "itl_max_ms": []}
