"""Two sides compared: figures by hand, what identical and shifted runs show, repeated runs, what must be warned of."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_directory_maker as maker

from tokenswarm.errors import RunDirectoryError
from tokenswarm.results import read, summarise
from tokenswarm.results.compare import bootstrap, comparable, differences, metrics, sides, wording
from tokenswarm.results.compare.differences import BETTER, SAME, UNMEASURED, UNSURE, WORSE, Comparison, Difference
from tokenswarm.results.compare.sides import Observed, Side

LATENCY_COLUMNS = ("ttft_ms", "ttft_low_ms", "ttft_due_ms", "ttft_sent_ms", "ttfo_ms")


def scaled(factor: float, seed: int, spread: float = 0.25) -> Callable[[maker.Record, int], None]:
    """TTFTs around 100 ms times the factor, the same for the same seed."""
    random = np.random.default_rng(seed)

    def change(record: maker.Record, index: int) -> None:
        ttft = round(100 * factor * math.exp(random.normal() * spread), 3)
        for name in LATENCY_COLUMNS:
            setattr(record, name, ttft)

    return change


def made(directory: Path, factor: float = 1.0, seed: int = 1, users: int = 10, **run: Any) -> Path:
    """Ten users for 60 s: 980 requests due in the steady window, 50 s long."""
    records = maker.closed_loop(users=users, change=scaled(factor, seed))
    return maker.write(directory, records, users=users, **{"run_id": directory.name} | run)


def side(role: str, *paths: Path) -> Side:
    return sides.side(role, paths)


def compared(baseline: Path | Sequence[Path], candidate: Path | Sequence[Path], **asked: Any) -> Comparison:
    first, second = ([one] if isinstance(one, Path) else one for one in (baseline, candidate))
    return differences.compare(side("baseline", *first), side("candidate", *second), **asked)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Observed:
    """One run, read once for all tests that need no other files."""
    return sides.observe(made(tmp_path_factory.mktemp("known") / "a"))


def told(run: Observed, factor: float, seed: int, role: str = "candidate") -> Observed:
    """The same run with other TTFTs, as another seed and a server that takes `factor` times as long would give, and
    nothing else measured."""
    ttft = run.samples["ttft"]
    values = 100 * factor * np.exp(np.random.default_rng(seed).normal(0, 0.25, len(ttft.values)))
    other = bootstrap.sample(values, np.sort(ttft.batch), ttft.strata)
    return dataclasses.replace(run, name=f"{role}{seed}", samples={"ttft": other}, ratios={})


def against(known: Observed, path: Path) -> Comparison:
    return differences.compare(Side("baseline", (known,)), side("candidate", path))


def of(comparison: Comparison, name: str) -> Difference:
    return next(one for one in comparison.differences if one.metric == name)


def warned(comparison: Comparison, level: str = comparable.WARNING) -> str:
    return "\n".join(caution.text for caution in comparison.cautions if caution.level == level)


# Figures


def test_figures_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    # TTFTs cycle through 100, 200, 300 and 120, 240, 360: p50 is the middle one of each.
    paths = [
        maker.write(tmp_path / name, maker.closed_loop(ttfts=ttfts))
        for name, ttfts in (("a", (0.1, 0.2, 0.3)), ("b", (0.12, 0.24, 0.36)))
    ]
    found = compared(*paths, also=["ttft_mean"])
    median = of(found, "ttft_p50")
    assert (median.baseline.value, median.candidate.value) == (pytest.approx(200), pytest.approx(240))
    assert median.relative and median.relative.estimate == pytest.approx(0.2)
    assert median.absolute and median.absolute.estimate == pytest.approx(40)
    mean = of(found, "ttft_mean").relative
    assert mean and mean.low and mean.high and mean.low < 0.2 < mean.high
    # Of 3 × 3 pairs: 120 is longer than 100; 240 than 100 and 200; 360 than all three.
    (effect,) = [one for one in found.effects if one.of == "ttft"]
    assert effect.candidate_longer == pytest.approx(6 / 9, abs=0.01)
    assert effect.size == "medium"
    # Ten users, 0.5 s a request: 20 a second, of 11 tokens each.
    assert of(found, "requests_per_s").baseline.value == pytest.approx(20, rel=0.01)
    assert of(found, "output_tokens_per_s").baseline.value == pytest.approx(220, rel=0.01)
    assert of(found, "error_rate").baseline.value == 0


def test_figures_are_those_of_the_summary(tmp_path: Path) -> None:
    path = made(tmp_path / "run")
    summary = summarise.summarise(read.load(path))
    found = compared(path, path, also=["ttft_p99.9", "tpot_mean", "total_tokens_per_s", "input_tokens_per_s"])
    for one in found.differences:
        if one.metric in summary["throughput"]:
            expected, tolerance = summary["throughput"][one.metric], 1e-9
        elif one.metric != "error_rate":
            latency, statistic = one.metric.rsplit("_", 1)
            expected = summary["latency"][f"{latency}_ms"][statistic]
            tolerance = 0.01 if latency == "itl" else 1e-9
        else:
            expected, tolerance = 0.0, 0.0
        assert one.baseline.value == pytest.approx(expected, rel=tolerance), one.metric


def test_failures_are_a_share_of_what_was_due_and_cancelled_ones_are_out(tmp_path: Path) -> None:
    def some(record: maker.Record, index: int) -> None:
        record.status = {0: "failed", 1: "timeout", 2: "cancelled", 3: "incomplete"}.get(index % 10, "ok")

    path = maker.write(tmp_path / "run", maker.closed_loop(change=some))
    rate = of(compared(path, path), "error_rate").baseline
    assert rate.value == pytest.approx(2 / 8, abs=0.001)


# What runs show


def test_identical_runs_show_no_difference(tmp_path: Path, known: Observed) -> None:
    found = against(known, made(tmp_path / "b"))
    assert {one.outcome for one in found.differences} == {SAME}
    assert "no difference that these runs can show (−" in wording.line(of(found, "ttft_p95"))


def test_runs_of_one_distribution_seldom_show_a_difference(known: Observed) -> None:
    shown = []
    for seed in range(0, 60, 2):
        pair = [Side("one", (told(known, 1.0, number),)) for number in (seed, seed + 1)]
        found = differences.compare(*pair)
        shown += [of(found, name).outcome != SAME for name in ("ttft_p50", "ttft_p95", "ttft_p99")]
    assert sum(shown) <= 10  # of 90, with one in 20 to be expected


def test_a_slower_run_is_worse_and_a_faster_one_better(known: Observed) -> None:
    fast, slow = (Side("one", (told(known, factor, seed),)) for factor, seed in ((1.0, 1), (1.18, 2)))
    worse, better = (of(differences.compare(*pair), "ttft_p50") for pair in ((fast, slow), (slow, fast)))
    assert (worse.outcome, better.outcome) == (WORSE, BETTER)
    assert worse.relative and worse.relative.low and worse.relative.high
    assert 0.1 < worse.relative.low < 0.18 < worse.relative.high < 0.26
    assert wording.line(worse).startswith("TTFT p50 +") and wording.line(worse).endswith("], worse")


def test_more_a_second_is_better(tmp_path: Path, known: Observed) -> None:
    many = side("many", maker.write(tmp_path / "many", maker.closed_loop(e2e=0.4)))
    more = differences.compare(Side("few", (known,)), many)
    assert of(more, "requests_per_s").outcome == of(more, "e2e_p50").outcome == BETTER
    assert of(differences.compare(many, Side("few", (known,))), "output_tokens_per_s").outcome == WORSE


def test_too_few_requests_for_a_percentile_say_so_and_judge_nothing(tmp_path: Path, known: Observed) -> None:
    # Two users for the 50 s of the window, two requests a second each.
    few = maker.write(tmp_path / "few", maker.closed_loop(users=2, change=scaled(2.0, 3)))
    found = against(known, few)
    p95, p99 = (of(found, name) for name in ("ttft_p95", "ttft_p99"))
    assert p95.outcome == WORSE
    assert p99.outcome == UNSURE and p99.candidate.rows == 200
    assert wording.line(p99) == "TTFT p99: too few requests to tell: 200 of the 368 that each side needs"
    assert wording.figure(p99, p99.candidate).startswith("~")


def test_what_one_side_did_not_measure_is_told_and_not_zero(tmp_path: Path, known: Observed) -> None:
    def failed(record: maker.Record, index: int) -> None:
        record.status, record.error_class = "failed", "http_5xx"
        for name in (*LATENCY_COLUMNS, "tpot_ms", "first_token_time", "output_tokens", "input_tokens"):
            setattr(record, name, None)

    bad = side("candidate", maker.write(tmp_path / "bad", maker.closed_loop(change=failed)))
    found = differences.compare(Side("baseline", (known,)), bad)
    assert of(found, "ttft_p50").outcome == UNMEASURED
    assert wording.line(of(found, "ttft_p50")) == "TTFT p50: not measured in candidate"
    assert of(found, "error_rate").outcome == WORSE
    assert "0.0 % of the baseline's requests failed, 100.0 % of the candidate's" in warned(found)
    back = differences.compare(bad, Side("candidate", (known,)))
    assert wording.line(of(back, "requests_per_s")) == "Requests/s: the baseline is 0: there is no change in %"


def test_an_open_loop_is_compared_from_when_requests_were_due(tmp_path: Path, known: Observed) -> None:
    found = against(known, made(tmp_path / "b", load={"arrivals": "poisson", "users": 10}))
    assert found.differences[0].metric == "ttft_due_p50"
    assert "Other arrivals: closed against poisson." in warned(found)


def test_intervals_are_counted_and_the_count_is_told(known: Observed) -> None:
    found = differences.compare(Side("baseline", (known,)), Side("candidate", (known,)))
    assert found.intervals == 15
    assert "15 intervals, each at 95 % by itself" in wording.intervals(found)
    assert "about 0.8 of them" in wording.intervals(found)


# Repeated runs


def repeated(known: Observed, role: str, factors: Sequence[float], seed: int) -> Side:
    return Side(role, tuple(told(known, factor, seed + n, role) for n, factor in enumerate(factors)))


def test_repeated_runs_are_taken_together(known: Observed) -> None:
    baseline = repeated(known, "baseline", (0.9, 1.1), 10)
    found = differences.compare(baseline, Side("candidate", (known,)))
    figure = of(found, "ttft_p50").baseline
    values = [one.samples["ttft"].values for one in baseline.runs]
    assert figure.value == pytest.approx(np.median(np.concatenate(values)))
    assert figure.runs == tuple(pytest.approx(np.median(one)) for one in values)
    low, high = (float(np.median(one)) for one in values)
    assert figure.between == pytest.approx((high - low) / math.sqrt(2) / ((high + low) / 2))
    assert found.baseline.name == "2 runs of chat"


def test_a_change_that_is_as_large_as_what_runs_vary_is_not_shown(known: Observed) -> None:
    # Each run has 1,000 rows, so that by its rows alone a tenth would be plain.
    baseline = repeated(known, "baseline", (0.9, 1.0, 1.12), 10)
    candidate = repeated(known, "candidate", (1.0, 1.08, 1.22), 20)
    assert of(differences.compare(baseline, candidate), "ttft_p50").outcome == SAME
    alone = [Side(one.role, one.runs[1:2]) for one in (baseline, candidate)]
    assert of(differences.compare(*alone), "ttft_p50").outcome == WORSE


def test_a_change_beyond_what_runs_vary_is_shown(known: Observed) -> None:
    baseline = repeated(known, "baseline", (0.98, 1.0, 1.02), 10)
    candidate = repeated(known, "candidate", (1.28, 1.3, 1.32), 20)
    found = of(differences.compare(baseline, candidate), "ttft_p50")
    assert found.outcome == WORSE
    assert found.relative and found.relative.estimate == pytest.approx(0.3, abs=0.04)


# Comparable?


def test_runs_that_were_made_alike_are_not_warned_of(tmp_path: Path, known: Observed) -> None:
    found = against(known, made(tmp_path / "b", seed=2))
    assert warned(found) == ""
    assert "One run a side" in warned(found, comparable.NOTE)


TARGET = {"host": "http://10.0.0.9:8000", "protocol": "openai-chat", "model": "a-model", "transport": "fast"}
CHANGED: dict[str, dict[str, Any]] = {
    "Other kinds of target: a server against the built-in simulator.": {"target": TARGET | {"simulator": True}},
    "Other transports: fast against portable.": {"target": TARGET | {"transport": "portable"}},
    "Other seeds, so other prompts: 0 against 7.": {"seed": 7},
    "Other user classes: ChatUser against Other (thinks).": {"user_classes": [{"name": "Other", "think_time": True}]},
    "Other option dataset: unknown or not set against x.jsonl.": {
        "options": {"dataset": "x.jsonl", "label": "new", "lang": "zh"}
    },
    "Other versions of tokenswarm: 0.1.0 against 0.2.0.": {"suite": {"tokenswarm": "0.2.0"}},
    "b: Worker 1 was lost.": {"problems": ["Worker 1 was lost."]},
}


@pytest.mark.parametrize("said", CHANGED)
def test_what_differs_beside_what_was_meant_to_is_warned_of(tmp_path: Path, known: Observed, said: str) -> None:
    path = made(tmp_path / "b", users=2)
    described = json.loads((path / "run.json").read_text()) | CHANGED[said]
    (path / "run.json").write_text(json.dumps(described))
    text = warned(against(known, path))
    assert said in text
    assert "Other option label" not in text and "Other option lang" not in text


def test_another_load_another_model_and_other_lengths_are_warned_of(tmp_path: Path, known: Observed) -> None:
    def other(record: maker.Record, index: int) -> None:
        record.model, record.output_tokens, record.token_source = "b-model", 22, "chunks"

    text = warned(against(known, maker.write(tmp_path / "b", maker.closed_loop(users=20, change=other), users=20)))
    for said in (
        "Other models: a-model against b-model.",
        "Other numbers of users measured: 10 against 20.",
        "Other sources of token counts: usage against chunks.",
        "Replies were of another length: 11.0 tokens on average against 22.0.",
    ):
        assert said in text


def test_an_invalid_run_is_warned_of_with_its_reasons(known: Observed) -> None:
    verdict = {"level": "invalid", "reasons": [{"level": "invalid", "text": "Worker 1 was lost"}]}
    invalid = dataclasses.replace(known, name="b", summary=known.summary | {"verdict": verdict})
    found = differences.compare(Side("baseline", (told(known, 1, 1),)), Side("candidate", (invalid,)))
    assert "b is invalid: Worker 1 was lost." in warned(found)


def test_a_run_compared_with_itself_or_its_copy_is_warned_of(tmp_path: Path) -> None:
    path = made(tmp_path / "a", users=2)
    (run,) = side("baseline", path).runs
    copy = dataclasses.replace(run, path=tmp_path / "b")
    for other, said in ((run, "is on both sides: a run is compared with itself"), (copy, "one is a copy of the other")):
        assert said in warned(differences.compare(Side("baseline", (run,)), Side("candidate", (other,))))
    twice = side("baseline", path, tmp_path / "b" / ".." / "a")
    assert len(twice.runs) == 1
    assert twice.problems == (f"{tmp_path / 'b' / '..' / 'a'} is named twice and counts once.",)


def test_several_seeds_among_repeated_runs_are_as_they_should_be(known: Observed) -> None:
    def seeded(seed: int) -> Observed:
        return dataclasses.replace(known, summary=known.summary | {"run": known.summary["run"] | {"seed": seed}})

    both = Side("baseline", (seeded(1), seeded(2)))
    assert "seeds" not in warned(differences.compare(both, dataclasses.replace(both, role="candidate")))
    assert "seeds" in warned(differences.compare(both, Side("candidate", (seeded(1),))))


# Damage


def test_a_damaged_run_is_compared_as_far_as_it_goes_and_told(tmp_path: Path, known: Observed) -> None:
    torn = made(tmp_path / "torn")
    text = (torn / "requests.csv").read_text()
    (torn / "requests.csv").write_text(text[:-40])
    (torn / "intervals.jsonl").unlink()
    found = against(known, torn)
    assert of(found, "ttft_p50").outcome == SAME
    assert of(found, "itl_p50").outcome == UNMEASURED
    assert "the last row is torn" in warned(found) and "intervals.jsonl is missing" in warned(found)


def test_a_run_that_cannot_be_read_is_left_out_of_its_side_and_named(tmp_path: Path) -> None:
    empty = maker.write(tmp_path / "empty", [])
    mixed = side("baseline", made(tmp_path / "a", users=2), tmp_path / "none", empty)
    found = differences.compare(mixed, mixed)
    assert f"Baseline: {tmp_path / 'none'} is not a directory" in warned(found)
    assert f"Baseline: {empty} holds no request" in warned(found)
    assert found.baseline.directories == (str(tmp_path / "a"),)


def test_a_side_of_which_nothing_can_be_read_is_refused_with_every_reason(tmp_path: Path) -> None:
    (tmp_path / "not").mkdir()
    with pytest.raises(RunDirectoryError, match=r"^candidate: .*none is not a directory.*not is not a run directory"):
        side("candidate", tmp_path / "none", tmp_path / "not")


@pytest.mark.parametrize("rows", [1, 2, 5, 30])
def test_few_requests_never_break_it(tmp_path: Path, known: Observed, rows: int) -> None:
    records = [maker.request(index, index * 0.1, 0.05 + index / 1000, 0.4) for index in range(rows)]
    few = side("baseline", maker.write(tmp_path / "few", records))
    for other in (few, Side("candidate", (known,))):
        found = differences.compare(few, other)
        for one in found.differences:
            assert wording.line(one) and wording.figure(one, one.baseline)
            assert one.outcome in (SAME, UNSURE, UNMEASURED, WORSE, BETTER)
        assert json.dumps(dataclasses.asdict(found), allow_nan=False)


# The catalogue


def test_every_metric_has_a_title_a_unit_and_a_direction() -> None:
    for name, metric in metrics.METRICS.items():
        assert metric.name == name and metric.title and metric.unit in ("ms", "/s", "")
        assert metric.lower_is_better == (not name.endswith("_per_s") and not name.startswith("goodput"))
