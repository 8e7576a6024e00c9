"""Several servers of one model: each request goes to the next, and the rows tell which."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from locust_process import headless
from simulator_process import simulator


def test_requests_go_round(tmp_path: Path) -> None:
    with simulator(tmp_path) as one, simulator(tmp_path) as two:
        run = headless(tmp_path, f"{one.url},{two.url}", "-u", "4", "-t", "2s", "--output-tokens", "20")
        served = [len(server.log_path.read_text().splitlines()) for server in (one, two)]
    rows = run.rows()
    counted = Counter(row["remote_addr"] for row in rows)
    assert counted.keys() == {f"127.0.0.1:{server.port}" for server in (one, two)}
    assert abs(counted[f"127.0.0.1:{one.port}"] - counted[f"127.0.0.1:{two.port}"]) <= 1
    assert sum(served) == len(rows) + 2, "each was checked once"
    assert run.json("run.json")["target"]["host"] == f"{one.url},{two.url}"
    assert sum(row["conn_reused"] == "false" for row in rows) <= 8, "each user keeps one connection to each"


def test_a_replica_that_is_down_is_told_before_the_load(tmp_path: Path) -> None:
    with simulator(tmp_path) as one:
        run = headless(tmp_path, f"{one.url},http://127.0.0.1:9", "-u", "1", "-t", "2s", exit_code=2)
    assert "http://127.0.0.1:9" in run.output
    assert "refused" in run.output


def test_replicas_of_different_models_need_a_name(tmp_path: Path) -> None:
    with simulator(tmp_path) as one, simulator(tmp_path, "--model", "other") as two:
        run = headless(tmp_path, f"{one.url},{two.url}", "-u", "1", "-t", "2s", exit_code=2)
    assert "different models" in run.output
    assert "'other'" in run.output
