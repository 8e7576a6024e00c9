"""What must hold of any run's figures: who measured what, in which order it was written down and when all of it was,
says nothing of the server.
"""

from __future__ import annotations

import copy
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import run_directory_maker as maker
from differences import differences
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tokenswarm.record import csv_header, csv_rows
from tokenswarm.results import read, summarise
from tokenswarm.results.merge import foreign

few = settings(
    max_examples=2,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to make an example smaller takes minutes
)
USERS, SPAWNED, STOPPING, STOPPED = 4, 1.0, 20.0, 30.0
WARMUP, EDIT = 2.0, 11.0
"""Steady from second 3 to 11 and, the load having been changed at 11 and reached at 12, from 14 to 20."""
OPTIONS = {"warmup": WARMUP, "slo": "ttft_p95<500ms error_rate<5%", "goodput": "ttft<300ms e2e<1500ms"}
pytestmark = pytest.mark.slow  # not one of them, but all together
FIGURES = ("requests", "latency", "throughput", "concurrency", "tokens", "slo", "goodput", "windows", "questions")
TIMES = ("start_time", "intended_time", "first_token_time", "end_time")
Records = list[maker.Record]


def drawn(seed: int) -> Records:
    """From five to forty requests of two classes of users, of all statuses, in half a minute."""
    draw = random.Random(seed)
    records: Records = []
    for index in range(draw.randint(5, 40)):
        start, ttft = draw.randrange(24_000) / 1000, draw.randint(20, 900) / 1000
        e2e = ttft + draw.randint(1, 3000) / 1000
        record = maker.request(index, start, ttft, e2e, draw.randint(1, 40))
        record.status = draw.choice(["ok", "ok", "ok", "failed", "timeout", "cancelled", "incomplete", "shed"])
        record.user_class = draw.choice(["Reader", "Writer"])
        record.ttft_low_ms = draw.choice([None, ttft * 1e3, ttft * 800])
        if record.status in ("failed", "timeout"):
            record.error_class, record.error = draw.choice([("http_5xx", "busy"), ("stall_timeout", "still")])
        if record.status == "shed":
            record = maker.Record(id=record.id, status="shed", intended_time=record.intended_time, user_class="Reader")
        records.append(record)
    return records


def runs() -> st.SearchStrategy[Records]:
    """By a seed, which is all that a failure needs to tell."""
    return st.integers(0, 2**32).map(drawn)


def boundaries() -> list[dict[str, Any]]:
    plain = maker.boundaries(USERS, SPAWNED, STOPPING, STOPPED)
    edit = [("target", EDIT, 2), ("spawned", EDIT + 1, 2)]
    edited = [{"event": event, "time": maker.T0 + at, "users": users} for event, at, users in edit]
    return plain[:3] + edited + plain[3:]


def summary(
    records: Sequence[maker.Record], lines: Sequence[dict[str, Any]] | None = None, shift: float = 0.0
) -> dict[str, Any]:
    """Of a run of these rows and interval lines; without lines, of those that a recorder would have written."""
    moved = [bound | {"time": bound["time"] + shift} for bound in boundaries()]
    ends = {name: {"time": maker.T0 + at + shift} for name, at in (("start", 0.0), ("end", STOPPED))}
    with tempfile.TemporaryDirectory() as folder:
        directory = maker.write(Path(folder), [], moved, USERS, options=OPTIONS, **ends)
        (directory / "requests.csv").write_text(csv_header() + csv_rows(records), encoding="utf-8")
        written = interval_lines(records) if lines is None else lines
        (directory / "intervals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))
        return summarise.summarise(read.load(directory))


def interval_lines(records: Sequence[maker.Record]) -> list[dict[str, Any]]:
    timed = [record for record in records if record.start_time is not None]
    found = maker.intervals(timed, [], USERS, 40.0)
    return [line | {"itl": ""} for line in found]  # they take long to add up


def same(one: dict[str, Any], other: dict[str, Any], tables: Sequence[str] = FIGURES) -> None:
    for table in tables:
        assert differences(one[table], other[table], table) == []
    counted = [{e["class"]: (e["count"], e["share"], e["cohort"]) for e in found["errors"]} for found in (one, other)]
    assert counted[0] == counted[1]


def distributions(table: Any) -> Iterator[dict[str, Any]]:
    if isinstance(table, dict):
        if "p99.9" in table and "max" in table:
            yield table
        for inner in table.values():
            yield from distributions(inner)
    elif isinstance(table, list):
        for inner in table:
            yield from distributions(inner)


@few
@given(runs(), st.integers(1, 5))
def test_over_how_many_workers_a_run_was_split_changes_nothing(records: Records, workers: int) -> None:
    whole = summary(records)
    split = copy.deepcopy(records)
    for index, record in enumerate(split):
        record.worker = index % workers
    same(whole, summary(split))


@few
@given(runs(), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_lines_changes_nothing(records: Records, chance: Any) -> None:
    lines = interval_lines(records)
    whole = summary(records, lines)
    mixed_rows, mixed_lines = [*records], [*lines]
    chance.shuffle(mixed_rows)
    chance.shuffle(mixed_lines)
    same(whole, summary(mixed_rows, mixed_lines), (*FIGURES, "client"))


@few
@given(runs(), st.sampled_from([-86_400 * 365, -1, 1, 3600, 86_400 * 365 * 5]))
def test_shifting_all_clocks_shifts_times_and_nothing_else(records: Records, seconds: int) -> None:
    lines = interval_lines(records)
    whole = summary(records, lines)
    later = copy.deepcopy(records)
    for record in later:
        for name in TIMES:
            if (at := getattr(record, name)) is not None:
                setattr(record, name, at + seconds)
    moved_lines = [
        line
        | {"time": line["time"] + seconds}
        | {what: [[at + seconds, n] for at, n in line[what]] for what in ("tokens", "input_tokens")}
        for line in lines
    ]
    moved = summary(later, moved_lines, shift=seconds)
    for window in moved["windows"]:
        window["start"] -= seconds
        window["end"] -= seconds
    for rates in (moved["throughput"], *(window["throughput"] for window in moved["windows"])):
        if rates["peak_second"] is not None:
            rates["peak_second"] -= seconds
    same(whole, moved)
    assert [(e["first_s"], e["last_s"]) for e in moved["errors"]] == [
        (pytest.approx(e["first_s"], abs=1e-5), pytest.approx(e["last_s"], abs=1e-5)) for e in whole["errors"]
    ]


@few
@given(st.lists(st.integers(0, 60_000), min_size=2, max_size=20, unique=True), st.integers(-7_200_000, 7_200_000))
def test_a_known_offset_of_a_clock_is_taken_out_of_its_samples(at_ms: list[int], offset_ms: int) -> None:
    """`tokenswarm merge --hardware FILE --offset SECONDS`."""
    found = []
    for offset in (0.0, offset_ms / 1000):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gpu.csv"
            lines = [f"{maker.T0 + ms / 1000 + offset:.6f},{ms % 700}" for ms in at_ms]
            path.write_text("time,power.draw [W]\n" + "\n".join(lines) + "\n")
            defects: list[str] = []
            found.append(foreign.read(path, defects, lambda metric: True, offset=offset))
            assert defects == []
    assert found[0]["value"].tolist() == found[1]["value"].tolist()
    assert found[0]["time"].to_numpy() == pytest.approx(found[1]["time"].to_numpy(), abs=2e-6)


@few
@given(runs(), st.integers(1, 30))
def test_rows_outside_of_the_windows_change_no_figure_of_the_cohort(records: Records, more: int) -> None:
    lines = interval_lines(records)
    whole = summary(records, lines)
    before = [maker.request(1000 + i, i * 0.05, 0.2, 0.5) for i in range(more)]
    after = [maker.request(2000 + i, STOPPING + 1 + i * 0.05, 9.0, 9.5, status="failed") for i in range(more)]
    others = summary([*before, *records, *after], lines)
    same_cohort = ("latency", "tokens", "slo", "goodput", "groups")
    for table in same_cohort:
        assert differences(others[table], whole[table], table) == []
    assert others["requests"]["cohort"] == whole["requests"]["cohort"]
    assert others["requests"]["all"]["due"] == len(records) + 2 * more


@few
@given(runs(), st.data())
def test_rows_and_lines_that_are_there_twice_count_once(records: Records, data: st.DataObject) -> None:
    lines = interval_lines(records)
    whole = summary(records, lines)
    rows_again = data.draw(st.lists(st.sampled_from(records), min_size=1, unique_by=id))
    lines_again = data.draw(st.lists(st.sampled_from(lines), min_size=1, unique_by=id)) if lines else []
    twice = summary([*records, *rows_again], [*lines, *lines_again])
    same(whole, twice, (*FIGURES, "client", "groups"))
    assert any(f"{len(rows_again)} rows are there twice" in defect for defect in twice["defects"])


@few
@given(runs())
def test_percentiles_rise_and_bounds_enclose(records: Records) -> None:
    found = list(distributions(summary(records)))
    for one in found:
        rising = [one[name] for name in ("min", "p50", "p90", "p95", "p99", "p99.9", "max")]
        assert rising == sorted(rising)
        assert one["min"] - 1e-9 <= one["mean"] <= one["max"] + 1e-9
        for name, low in one.get("low", {}).items():
            assert low <= one[name]


@few
@given(runs())
def test_each_request_that_was_due_has_one_status_in_one_window_and_one_group(records: Records) -> None:
    found = summary(records)
    every = [found["requests"]["all"], found["requests"]["cohort"], *(one["requests"] for one in found["windows"])]
    for counts in every:
        assert counts["due"] == sum(count for status, count in counts.items() if status != "due")
    assert len(found["windows"]) == 2
    assert sum(counts["due"] for counts in every[2:]) == found["requests"]["cohort"]["due"]
    assert found["requests"]["all"]["due"] == len(records)
    for members in found["groups"].values():
        assert sum(member["due"] for member in members) == found["requests"]["cohort"]["due"]
