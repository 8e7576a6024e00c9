"""The verdict on the measuring side and on steadiness, from recorded runs: each rule fires for its cause alone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import run_directory_maker as maker
from test_results_summarise import RAMP, rules, summary

from tokenswarm.results import phases, read
from tokenswarm.results.figures import steadiness
from tokenswarm.results.phases import Phase


def sick(tmp_path: Path, **health: Any) -> dict[str, Any]:
    """The summary of a run in good order but for what worker 1 says of its health, in each second of 20 to 29."""

    def changed(worker: int, second: int) -> dict[str, Any]:
        return health if worker == 1 and 20 <= second < 30 else {}

    return summary(maker.write(tmp_path, maker.closed_loop(), maker.boundaries(*RAMP), health=changed))


TEN_OF_48_SECONDS = [
    ({"steal_percent": 3.0}, "cpu_steal", None),  # 0.7 % of the window
    ({"steal_percent": 10.0}, "cpu_steal", "degraded"),
    ({"steal_percent": 30.0}, "cpu_steal", "invalid"),
    ({"throttled_percent": 10.0}, "cgroup_throttling", "degraded"),
    ({"throttled_percent": 30.0}, "cgroup_throttling", "invalid"),
    ({"clock_jump_ms": 0.4}, "clock_jump", None),
    ({"clock_jump_ms": -0.6}, "clock_jump", "degraded"),
    ({"clock_jump_ms": 3.6e6}, "clock_jump", "degraded"),
    ({"tcp_trouble": {"PruneCalled": 1}}, "tcp_trouble_nearby", "note"),
    ({"tcp_trouble": {"TCPBacklogDrop": 1}}, "tcp_trouble", "degraded"),
    ({"ring_full": 1, "ring_full_ms": 5.0}, "ring_full", "note"),
    ({"ring_full": 1, "ring_full_ms": 100.0}, "ring_full", "degraded"),
    ({"descriptors": 960}, "descriptors", None),
    ({"descriptors": 1000}, "descriptors", "degraded"),
    ({"descriptors": 1000, "descriptor_limit": None}, "descriptors", None),
    ({"sockets": 27_000}, "ports", "degraded"),
    ({"loop_wait_percent": 60.0}, "cpu_contention", "note"),
    ({"loop_lag_ms": 600.0}, "loop_blocked", "note"),
    ({"loop_lag_ms": 1500.0}, "loop_blocked", "degraded"),
]


@pytest.mark.parametrize(("health", "rule", "level"), TEN_OF_48_SECONDS)
def test_a_sick_worker_is_found_by_its_rule_alone(
    tmp_path: Path, health: dict[str, Any], rule: str, level: str | None
) -> None:
    found = sick(tmp_path, **health)
    assert rules(found) == ({} if level is None else {rule: level})
    if level is not None and not rule.startswith("tcp"):
        assert "worker 1" in found["verdict"]["reasons"][0]["text"].lower()


def test_a_worker_that_was_stopped_did_not_see_it_but_reported_late(tmp_path: Path) -> None:
    """As by SIGSTOP, or a virtual machine that was paused."""

    def changed(worker: int, second: int) -> dict[str, Any]:
        return {"seconds": 5.0, "loop_lag_ms": 2.4} if (worker, second) == (1, 30) else {}

    found = summary(maker.write(tmp_path, maker.closed_loop(), maker.boundaries(*RAMP), health=changed))
    assert rules(found) == {"loop_blocked": "degraded"}
    (reason,) = found["verdict"]["reasons"]
    assert (reason["value"], reason["subject"]) == (4000.0, "worker 1")


def test_the_only_process_is_called_the_client(tmp_path: Path) -> None:
    records = maker.closed_loop(users=1)
    found = summary(
        maker.write(
            tmp_path, records, maker.boundaries(1, 2, 60, 60), users=1, health=lambda *_: {"loop_lag_ms": 2000.0}
        )
    )
    assert found["verdict"]["reasons"][0]["text"].startswith(
        "The event loop of the client stood still for up to 2,000 ms"
    )


BUSY = {"loop_cpu_percent": 60.0, "loop_wait_percent": 38.0}


def run_of(tmp_path: Path, health: dict[str, Any], clock: str = "kernel", **run: Any) -> dict[str, str]:
    def change(record: maker.Record, index: int) -> None:
        record.clock = clock

    records = maker.closed_loop(change=change)
    directory = maker.write(tmp_path, records, maker.boundaries(*RAMP), health=lambda *_: health, **run)
    return rules(summary(directory))


def test_a_busy_client_is_noted_where_its_load_is_known_to_have_held(tmp_path: Path) -> None:
    assert run_of(tmp_path, BUSY) == {"client_busy": "note", "cpu_contention": "note"}


def test_a_busy_client_is_degraded_where_users_may_have_waited_for_it(tmp_path: Path) -> None:
    thinks = [{"name": "ChatUser", "think_time": True}]
    assert run_of(tmp_path, BUSY, user_classes=thinks)["client_too_busy"] == "degraded"


def test_in_the_open_loop_the_schedule_tells_whether_a_busy_client_was_late(tmp_path: Path) -> None:
    thinks = [{"name": "ChatUser", "think_time": True}]
    load = {"arrivals": "poisson", "users": 10, "rate_per_user": 1.0}
    assert "client_too_busy" not in run_of(tmp_path, BUSY, user_classes=thinks, load=load)


@pytest.mark.parametrize(("busy", "level"), [(70.0, None), (85.0, "degraded"), (98.0, "invalid")])
def test_a_busy_client_that_stamps_by_itself_cannot_tell_latencies(
    tmp_path: Path, busy: float, level: str | None
) -> None:
    assert run_of(tmp_path, {"loop_cpu_percent": busy}, "user").get("busy_user_clock") == level
    assert "busy_user_clock" not in run_of(tmp_path / "kernel", {"loop_cpu_percent": busy})


def test_without_the_thread_s_own_figure_the_process_s_tells(tmp_path: Path) -> None:
    old = {"loop_cpu_percent": None, "loop_wait_percent": None, "cpu_percent": 99.0}
    assert run_of(tmp_path, old) == {"client_busy": "note"}


def test_nothing_known_of_the_client_is_nothing_said(tmp_path: Path) -> None:
    unknown = dict.fromkeys(maker.HEALTHY)
    found = summary(maker.write(tmp_path, maker.closed_loop(), maker.boundaries(*RAMP), health=lambda *_: unknown))
    assert rules(found) == {}
    assert found["client"]["steal_share"] is None
    assert found["client"]["tcp_trouble"] is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(("hosts", "count"), [(("one", "one"), 7), (("one", "two"), 12)])
def test_what_workers_on_one_host_all_see_counts_once(tmp_path: Path, hosts: tuple[str, str], count: int) -> None:
    def health(worker: int, second: int) -> dict[str, Any]:
        return {"tcp_trouble": {"PruneCalled": 7 if worker else 5}} if second == 30 else {}

    workers = [{"index": index, "hostname": host} for index, host in enumerate(hosts)]
    directory = maker.write(tmp_path, maker.closed_loop(), maker.boundaries(*RAMP), health=health, workers=workers)
    assert summary(directory)["client"]["tcp_trouble"] == {"PruneCalled": count}


WITHOUT_THE_THREAD = {"ring_full": None, "ring_full_ms": None}


@pytest.mark.parametrize(
    ("health", "rule"),
    [
        ({}, "tcp_trouble_nearby"),
        ({"loop_lag_ms": 400.0}, "tcp_trouble_nearby"),
        ({"ring_full_ms": 3.0}, "tcp_trouble"),
        (WITHOUT_THE_THREAD, "tcp_trouble_nearby"),
        (WITHOUT_THE_THREAD | {"loop_lag_ms": 400.0}, "tcp_trouble"),
    ],
)
def test_unread_data_on_the_machine_is_the_clients_only_if_it_let_it_pile_up(
    tmp_path: Path, health: dict[str, Any], rule: str
) -> None:
    def nearby(worker: int, second: int) -> dict[str, Any]:
        return health | ({"tcp_trouble": {"TCPToZeroWindowAdv": 2}} if second == 30 else {})

    found = rules(summary(maker.write(tmp_path, maker.closed_loop(), maker.boundaries(*RAMP), health=nearby)))
    assert {name for name in found if name.startswith("tcp")} == {rule}


# The load


def test_users_that_are_missing_are_missed(tmp_path: Path) -> None:
    def gone(worker: int, second: int) -> dict[str, Any]:
        return {"users": 4} if worker == 1 and second > 20 else {}

    found = summary(maker.write(tmp_path, maker.closed_loop(), maker.boundaries(*RAMP), health=gone))
    assert rules(found) == {"users_share": "invalid"}


def test_a_slow_ramp_is_noted(tmp_path: Path) -> None:
    def spawned(at: float) -> dict[str, str]:
        load = {"arrivals": "closed", "users": 10, "spawn_rate": 2.0, "run_time": 60.0}
        bounds = maker.boundaries(10, at, 60, 60)
        return rules(summary(maker.write(tmp_path, maker.closed_loop(), bounds, load=load, options={"warmup": 5.0})))

    assert spawned(6.5) == {}
    assert spawned(10.0) == {"spawn_rate": "note"}


# What the server says of its tokens


def with_usage(tmp_path: Path, change: Callable[[maker.Record, int], None]) -> dict[str, str]:
    return rules(summary(maker.write(tmp_path, maker.closed_loop(change=change), maker.boundaries(*RAMP))))


def test_usage_below_the_chunks_that_came_is_not_believed(tmp_path: Path) -> None:
    def halved(record: maker.Record, index: int) -> None:
        record.chunks, record.output_tokens = 40, 20 if index % 20 == 0 else 40

    assert with_usage(tmp_path, halved) == {"usage_disagrees": "degraded"}


def test_usage_above_what_the_text_can_hold_is_not_believed(tmp_path: Path) -> None:
    def swollen(record: maker.Record, index: int) -> None:
        record.output_chars, record.output_tokens = 40, 400

    assert with_usage(tmp_path, swollen)["usage_disagrees"] == "invalid"


def test_hidden_reasoning_and_a_token_more_or_less_are_no_disagreement(tmp_path: Path) -> None:
    def honest(record: maker.Record, index: int) -> None:
        if index % 2:
            record.output_tokens, record.reasoning_tokens, record.tpot_ms = 1011, 1000, 0.1
        else:
            record.output_tokens = 9

    assert with_usage(tmp_path, honest) == {}


def test_usage_of_nothing_though_output_came_is_told(tmp_path: Path) -> None:
    def counted_ourselves(record: maker.Record, index: int) -> None:
        record.token_source = "chunks"

    assert with_usage(tmp_path, counted_ourselves) == {"usage_zero": "degraded", "tokens_estimated": "note"}


# Steady or not


def drifting(tmp_path: Path, ttft_at: Callable[[float], float]) -> dict[str, Any]:
    """A run whose TTFT, in seconds, is a function of the time."""
    records = []
    for user in range(10):
        at = 0.05 * user
        while at < 60:
            ttft = ttft_at(at)
            records.append(maker.request(len(records), at, ttft, ttft + 0.4, worker=user % 2))
            at += ttft + 0.4
    return summary(maker.write(tmp_path, records, maker.boundaries(*RAMP)))


def test_a_ttft_that_grows_is_no_steady_state(tmp_path: Path) -> None:
    found = drifting(tmp_path, lambda at: 0.1 + 0.01 * at)
    assert rules(found) == {"no_steady_state": "degraded"}
    (reason,) = found["verdict"]["reasons"]
    assert "TTFT went from" in reason["text"]
    assert reason["value"] > 0.5


def test_a_server_that_was_still_warming_up_is_no_steady_state(tmp_path: Path) -> None:
    assert rules(drifting(tmp_path, lambda at: 0.4 if at < 36 else 0.1)) == {"no_steady_state": "degraded"}


def test_a_drift_of_some_milliseconds_is_no_matter(tmp_path: Path) -> None:
    assert rules(drifting(tmp_path, lambda at: 0.010 + at / 60 * 0.008)) == {}


def test_a_pause_in_one_half_is_not_a_drift(tmp_path: Path) -> None:
    assert rules(drifting(tmp_path, lambda at: 1.0 if 40 < at < 43 else 0.1)) == {}


def test_noise_is_no_drift(tmp_path: Path) -> None:
    """Sixty runs of requests of very different length that have nothing to do with the time."""
    draw = random.Random(1)
    for number in range(60):
        users, seconds = draw.choice([3, 10, 30]), draw.choice([20.0, 40.0, 60.0])
        records = []
        for user in range(users):
            at = draw.random()
            while at < seconds:
                ttft, rest = draw.lognormvariate(-2.3, 0.5), draw.lognormvariate(0, 0.6)
                records.append(maker.request(len(records), at, ttft, ttft + rest, worker=user % 2))
                at += ttft + rest
        directory = maker.write(tmp_path / str(number), records, maker.boundaries(users, 1, seconds, seconds), users)
        run = read.load(directory)
        large = [change for change in steadiness.changes(run, phases.find(run)) if change.share >= 0.2]
        assert large == [], (number, users, seconds)


@pytest.mark.parametrize(
    ("users", "rows", "seconds", "batches"),
    [
        (10, 1000, 60.0, 8),  # a turn of 0.6 s
        (100, 900, 46.0, 4),  # of 5.1 s
        (100, 600, 46.0, 3),  # of 7.7 s
        (1, 200, 60.0, 5),  # twenty rows take 6 s
        (10, 0, 60.0, 0),
    ],
)
def test_batches_are_long_enough_to_differ_from_one_another(
    users: int, rows: int, seconds: float, batches: int
) -> None:
    assert steadiness.batches_a_half(Phase("steady", 0.0, seconds, users), rows) == batches
