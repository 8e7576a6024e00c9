"""Every figure of summary.json, computed anew by code that shares none with tokenswarm (`recount.py`): of a run of the
real Locust, which Locust's own CSVs are held against as well, and of a made one with many rows and everything in them.
"""

from __future__ import annotations

import csv
import math
from functools import cached_property
from pathlib import Path
from typing import Any

import made_run
import pytest
from differences import differences
from locust_process import headless
from recount import Recount
from simulator_process import simulator

from tokenswarm.results import read, summarise

pytestmark = pytest.mark.slow
TABLES = ("requests", "errors", "latency", "throughput", "concurrency", "tokens", "client", "windows", "groups")
TABLES += ("slo", "goodput", "hardware")
SLO = {"ttft_p95<500ms": ("ttft_ms", 95, 500), "e2e_p50<2s": ("e2e_ms", 50, 2000)}
ERRORS = {"error_rate<1%": 0.01}
GOODPUT = {"ttft<400ms": ("ttft_ms", 400), "tpot<30ms": ("tpot_ms", 30), "e2e<3s": ("e2e_ms", 3000)}
GOALS = ("--slo", " ".join([*SLO, *ERRORS]), "--goodput", " ".join(GOODPUT))


class Told:
    """What tokenswarm says of a run, and what the recount does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.summary = summarise.summarise(read.load(directory))
        self.recount = Recount(directory)

    @cached_property
    def recounted(self) -> dict[str, Any]:
        again = self.recount
        cohort = again.inside("due", again.windows)
        whole = {"slo": self._slo(cohort), "goodput": again.goodput(cohort, again.seconds, GOODPUT)}
        return whole | {
            "requests": {"all": again.statuses("true"), "cohort": again.statuses(cohort), "unaccounted": 0},
            "errors": again.errors(cohort),
            "latency": again.latency(cohort),
            "throughput": again.throughput(cohort, again.windows),
            "concurrency": again.concurrency(again.windows),
            "tokens": again.tokens(cohort),
            "client": again.client(cohort),
            "groups": again.groups(cohort),
            "windows": [self._window(window) for window in again.windows],
            "hardware": again.hardware(),
        }

    def _slo(self, cohort: str) -> dict[str, Any]:
        found = [self.recount.objective(text, cohort, *goal) for text, goal in SLO.items()]
        found += [self.recount.error_rate(text, cohort, allowed) for text, allowed in ERRORS.items()]
        return {"attained": all(one["attained"] for one in found), "objectives": found, "classes": []}

    def _window(self, window: tuple[float, float, int, int]) -> dict[str, Any]:
        again, (start, end, users, step) = self.recount, window
        cohort = again.inside("due", [window])
        return {
            "start": start,
            "end": end,
            "users": users,
            "step": step,
            "requests": again.statuses(cohort),
            "ttft_ms": again.distribution("ttft_ms", cohort, "ttft_low_ms"),
            "tpot_ms": again.distribution("tpot_ms", f"{cohort} AND status = 'ok'"),
            "e2e_ms": again.distribution("e2e_ms", f"{cohort} AND status = 'ok'"),
            "throughput": again.throughput(cohort, [window]),
            "concurrency": again.concurrency([window]),
            "slo": self._slo(cohort),
            "goodput": again.goodput(cohort, end - start, GOODPUT),
        }


def hold(told: Told, table: str) -> None:
    """The table of both, equal to a part in a million."""
    found, expected = told.summary[table], told.recounted[table]
    if table == "hardware":
        names = ("host", "device", "metric", "mean", "min", "max", "std", "p50", "p95", "samples")
        found = sorted(({name: one[name] for name in names} for one in found), key=who)
        expected = sorted(expected, key=who)
    assert found, "nothing would be proven"
    assert differences(found, expected, table) == []


def who(figure: dict[str, Any]) -> tuple[str, ...]:
    return figure["host"], figure["device"], figure["metric"]


# A run of the real Locust

TWO_CLASSES = """
from tokenswarm.users import ChatUser


class Reader(ChatUser):
    weight = 2
    options = {"output_tokens": "12"}

    def task(self):
        self.chat("What is a lighthouse for?", name="read")

    tasks = [task]


class Writer(ChatUser):
    def task(self):
        self.chat("Write about rain.", name="write", max_tokens=30)

    tasks = [task]
"""
FAULTS = ("--fault", "status:0.05", "--fault", "truncate:0.03", "--fault", "stream-error:0.03")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Two steps of four and eight users of two classes, some of whom leave, at a server some of whose replies fail."""
    folder = tmp_path_factory.mktemp("real")
    scenario = folder / "two_classes.py"
    scenario.write_text(TWO_CLASSES)
    steps = ("--steps", "4,8", "--step-time", "3s", "--warmup", "0.5", "--hardware", "local")
    steps += ("--cancel-rate", "0.05", "--cancel-after", "5t")
    with simulator(folder, *FAULTS) as server:
        done = headless(folder, server.url, *steps, *GOALS, locustfile=scenario, exit_code=None)
    return Told(done.run_dir)


@pytest.mark.parametrize("table", TABLES)
def test_a_run_of_the_real_locust_is_recounted_to_the_same_figures(real: Told, table: str) -> None:
    hold(real, table)


def test_the_real_run_has_of_everything(real: Told) -> None:
    statuses = real.summary["requests"]["all"]
    assert statuses["due"] > 200 and statuses["failed"] > 5 and statuses["cancelled"]
    assert len(real.summary["windows"]) == 2
    assert {group["value"] for group in real.summary["groups"]["name"]} == {"read", "write"}


def test_locusts_own_statistics_are_of_the_same_requests(real: Told) -> None:
    """Locust rounds times to two digits before it counts them, and its percentiles are of those."""
    with (real.directory / "locust_stats.csv").open(newline="") as file:
        lines = {line["Name"]: line for line in csv.DictReader(file) if line["Type"] in ("POST", "")}
    for name in ("read", "write", "Aggregated"):
        ended = "status NOT IN ('cancelled', 'incomplete', 'shed')"
        ended += "" if name == "Aggregated" else f" AND name = '{name}'"
        count, failures, mean, least, most, size = real.recount.ask(
            "SELECT count(*), count(*) FILTER (status <> 'ok'), avg(e2e_ms), min(e2e_ms), max(e2e_ms), "
            f"avg(response_bytes) FROM rows WHERE {ended}"
        )[0]
        line = lines[name]
        assert (int(line["Request Count"]), int(line["Failure Count"])) == (count, failures), name
        assert float(line["Average Response Time"]) == pytest.approx(mean, rel=1e-3)
        assert float(line["Min Response Time"]) == pytest.approx(least, abs=0.01)
        assert float(line["Max Response Time"]) == pytest.approx(most, abs=0.01)
        assert float(line["Average Content Size"]) == pytest.approx(size, rel=0.02)
        times = [e2e for (e2e,) in real.recount.ask(f"SELECT e2e_ms FROM rows WHERE {ended} ORDER BY 1")]
        for column, rank in (("50%", 0.5), ("90%", 0.9), ("95%", 0.95), ("99%", 0.99)):
            assert near(float(line[column]), times, rank), (name, column)


def near(told: float, times: list[float], rank: float) -> bool:
    """Whether a percentile of Locust's is, within its rounding, one of the times around that rank."""
    at = rank * (len(times) - 1)
    low, high = times[max(0, math.floor(at) - 1)], times[min(len(times) - 1, math.ceil(at) + 1)]
    rounding = max(1.0, 0.051 * high)
    return low - rounding <= told <= high + rounding


# A made run, of many rows and everything in them


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Told:
    directory = tmp_path_factory.mktemp("large")
    made_run.write(directory, slo=GOALS[1], goodput=GOALS[3])
    return Told(directory)


@pytest.mark.parametrize("table", TABLES)
def test_fifty_thousand_rows_are_recounted_to_the_same_figures(large: Told, table: str) -> None:
    hold(large, table)


def test_the_recount_finds_the_windows_that_the_summary_has(large: Told) -> None:
    edges = [
        (window["start"] - made_run.T0, window["end"] - made_run.T0) for window in large.summary["phases"]["windows"]
    ]
    assert edges == [(17.5, 100), (112.5, 200), (212.5, 279.75)]
    assert [(start - made_run.T0, end - made_run.T0) for start, end, *_ in large.recount.windows] == edges
    assert large.summary["defects"] == []
