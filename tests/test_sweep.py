"""What a sweep says of load levels, against runs that were made by hand (stepped_runs.py)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import run_directory_maker as maker
from run_directory_maker import Record
from stepped_runs import SECONDS, USERS, WARMUP, stepped

from tokenswarm import rules
from tokenswarm.errors import RunDirectoryError
from tokenswarm.results.compare import comparable, metrics
from tokenswarm.results.figures import energy
from tokenswarm.results.sweep import curve, knee, levels, series
from tokenswarm.results.sweep.cautions import cautions
from tokenswarm.results.sweep.curve import Sweep
from tokenswarm.results.sweep.knee import Knee
from tokenswarm.results.sweep.observe import CLIENT_RULES, NOTHING, OVERLOADED, Wish, observe

WINDOW = SECONDS - WARMUP
FEW = (4, 8, 16)
STEAL = {"steal_percent": 9.0}


observed = functools.cache(observe)


def sweep(paths: Sequence[Path], wish: Wish = NOTHING, latency: str = "ttft_p95", **more: Any) -> Sweep:
    return curve.sweep([observed(path, wish) for path in paths], metrics.METRICS[latency], **more)


def loads(found: Sweep, indices: Sequence[int]) -> list[float | None]:
    return [found.curves[0].levels[index].load for index in indices]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stepped(tmp_path_factory.mktemp("sweep") / "steps")


def test_every_figure_of_a_stepped_run(steps: Path) -> None:
    found = sweep([steps])
    (only,) = found.curves
    assert [level.users for level in only.levels] == list(USERS)
    assert [level.verdict for level in only.levels] == ["valid"] * 5, [level.reasons for level in only.levels]
    for level in only.levels:
        users, e2e = level.users or 0, max(0.5, (level.users or 0) / 16)
        rate = users / e2e
        assert level.seconds == WINDOW
        assert level.rates["ended"] == pytest.approx(rate)
        assert level.rates["output_tokens"] == pytest.approx(11 * rate, rel=0.03)
        assert level.rates["input_tokens"] == pytest.approx(100 * rate, rel=0.06)
        assert level.means["in_flight"] == pytest.approx(users, rel=0.01)
        assert level.means["users"] == users
        assert level.statuses == {"ok": round(WINDOW * rate)}
        ttft = {1: 100, 2: 102, 4: 104, 8: 110, 16: 610}[users]
        assert level.of(metrics.METRICS["ttft_p95"]) == pytest.approx(ttft)
        assert level.of(metrics.METRICS["e2e_mean"]) == pytest.approx(e2e * 1e3)
        assert level.speed is not None
        assert level.speed["p50"] == pytest.approx(10 / (e2e - ttft / 1e3))  # 10 more tokens after the first


def test_itl_is_merged_from_histograms_where_it_is_asked_for(tmp_path: Path) -> None:
    found = sweep([stepped(tmp_path / "itl", (2,), seconds=6)], latency="itl_p95")
    assert found.levels[0].of(found.latency) == pytest.approx(40, rel=0.01)


def test_front_and_knee_and_the_best_within_a_goal(steps: Path) -> None:
    found = sweep([steps], Wish(slo="ttft_p95<500ms", goodput="ttft<500ms"))
    (only,) = found.curves
    assert loads(found, only.front)[:4] == [1, 2, 4, 8]
    assert only.knee.index == 3
    assert [level.attained for level in only.levels] == [True] * 4 + [False]
    assert only.best == 3
    shares = [level.goodput and level.goodput["share"] for level in only.levels]
    assert shares == [1, 1, 1, 1, 0]
    assert only.levels[3].goodput == {"limits": ["ttft<500ms"], "per_s": pytest.approx(16), "share": 1}
    tight = sweep([steps], Wish(slo="ttft_p95<50ms"))
    assert tight.curves[0].best is None


def test_the_runs_own_goals_count_where_none_are_given(tmp_path: Path) -> None:
    own = stepped(tmp_path / "own", (1, 8), options={"slo": "ttft_p95<105ms", "goodput": "ttft<105ms"})
    found = sweep([own])
    assert (found.goals, found.limits) == (("ttft_p95<105ms",), ("ttft<105ms",))
    assert [level.attained for level in found.levels] == [True, False]
    other = sweep([own], Wish(slo="error_rate<1%"))
    assert other.goals == ("error_rate<1%",)


def test_goals_of_a_class_of_users_count_as_those_of_the_run(tmp_path: Path) -> None:
    own = {
        "options": {"slo": "error_rate<1%"},
        "user_classes": [{"name": "ChatUser", "options": {"slo": "ttft_p95<105ms"}}],
    }
    run = stepped(tmp_path / "class", (1, 8), **own)
    found = sweep([run])
    assert found.goals == ("error_rate<1%", "ChatUser: ttft_p95<105ms")
    assert [level.attained for level in found.levels] == [True, False]
    everybody = sweep([run], Wish(slo="error_rate<1%"))
    assert everybody.goals == ("error_rate<1%",)
    assert [level.attained for level in everybody.levels] == [True, True]


def test_a_curve_is_named_by_what_is_known_of_it_and_differs(tmp_path: Path) -> None:
    paths = [
        stepped(tmp_path / name, (4,), seconds=6, options=options)
        for name, options in (("plain", {}), ("hot", {"temperature": 1.0}), ("long", {"min_tokens": 9}))
    ]
    assert [only.name for only in sweep(paths).curves] == ["plain", "temperature=1.0", "min_tokens=9"]
    assert [only.name for only in sweep(paths[1:2]).curves] == [""]


def test_repeated_levels_are_pooled_and_their_spread_is_kept(tmp_path: Path) -> None:
    once = stepped(tmp_path / "once", (4, 8, 4))
    again = stepped(tmp_path / "again", (8,), ttfts={8: 0.130})
    (only,) = sweep([once, again]).curves
    four, eight = only.levels
    assert (four.runs, eight.runs) == (("once", "once"), ("once", "again"))
    assert eight.seconds == 2 * WINDOW
    ttft = metrics.METRICS["ttft_p50"]
    assert eight.of(ttft) == pytest.approx(120)  # half of all have 110, half 130
    assert eight.spread(lambda level: level.of(ttft)) == pytest.approx((110, 130))
    assert eight.rates["ended"] == pytest.approx(16)
    assert four.spread(lambda level: level.of(ttft)) == pytest.approx((104, 104))


def test_a_level_that_is_not_valid_is_shown_and_never_chosen(tmp_path: Path) -> None:
    path = stepped(tmp_path / "ill", FEW, ill=lambda index: STEAL if index == 1 else {})
    found = sweep([path])
    (only,) = found.curves
    eight = only.levels[1]
    assert (eight.verdict, eight.client_was_the_limit) == ("invalid", True)
    assert eight.of(metrics.METRICS["ttft_p95"]) == pytest.approx(110)
    assert only.front == (0, 2) and only.knee.index is None and only.most == 2
    assert not eight.trusted(levels.DEGRADED_TOO)
    (counted,) = sweep([path], trust=levels.ALL).curves
    assert (counted.knee.index, counted.front) == (1, (0, 1))


def test_a_degraded_level_counts_if_the_user_says_so(tmp_path: Path) -> None:
    path = stepped(tmp_path / "ill", FEW, ill=lambda index: {"steal_percent": 2.0} if index == 1 else {})
    (only,) = sweep([path]).curves
    assert only.levels[1].verdict == "degraded" and not only.levels[1].client_was_the_limit
    assert only.knee == Knee(None, knee.UNCOUNTED)
    assert sweep([path], trust=levels.DEGRADED_TOO).curves[0].knee.index == 1


def test_an_ill_repetition_does_not_spoil_the_level(tmp_path: Path) -> None:
    well, ill = stepped(tmp_path / "well", (8,)), stepped(tmp_path / "ill", (8,), ill=lambda _: STEAL)
    (only,) = sweep([well, ill]).curves
    assert sorted((level.runs, level.verdict) for level in only.levels) == [(("ill",), "invalid"), (("well",), "valid")]


def test_all_that_a_search_measured_are_levels_not_only_its_answer(tmp_path: Path) -> None:
    begins = [maker.T0 + index * SECONDS for index in range(3)]
    probes = [
        {"number": index, "users": users, "measured_from": begin + 2, "until": begin + SECONDS, "decision": decided}
        for index, (users, begin, decided) in enumerate(zip((4, 16, 8), begins, ("pass", "fail", "pass"), strict=True))
    ]
    capacity = {"probes": probes, "answer": {"users": 8, "failed_users": 16, "why": "found"}}
    found = sweep([stepped(tmp_path / "search", (4, 16, 8), capacity=capacity)])
    assert [(level.users, level.seconds) for level in found.levels] == [(4, 20), (8, 20), (16, 20)]


def open_loop(folder: Path, users: Sequence[int], rate: float | None = 2.0, **more: Any) -> Path:
    """Users that begin two requests a second, as those of the closed loop do up to eight of them."""
    load = {"arrivals": "constant", "rate_per_user": rate, "users": users[-1]}
    return stepped(folder, users, load=load, **more)


def test_in_an_open_loop_the_load_is_the_rate(tmp_path: Path) -> None:
    found = sweep([open_loop(tmp_path / "open", (2, 4, 16))])
    assert found.axis == curve.RATE
    assert [level.load for level in found.levels] == [4, 8, 32]
    assert [level.rates["due"] for level in found.levels] == pytest.approx([4, 8, 16])
    unknown = sweep([open_loop(tmp_path / "trace", (2, 2), rate=None)])
    assert [level.load for level in unknown.levels] == pytest.approx([4, 4])  # due; nothing says they are the same load


def test_open_and_closed_loops_together_have_the_requests_in_flight(steps: Path, tmp_path: Path) -> None:
    found = sweep([steps, open_loop(tmp_path / "open", (2, 4))])
    assert found.axis == curve.IN_FLIGHT
    assert sorted(one.name for one in found.curves) == ["closed", "constant"]
    assert [found.x(level) for level in found.curves[0].levels] == pytest.approx(list(USERS), rel=0.01)
    assert any("loops are mixed" in caution for caution in cautions(found))


def test_an_overloaded_level_shows_the_bend_before_it(tmp_path: Path) -> None:
    """In an open loop too many arrivals make a queue that never ends: no level of its own, but a knee before it."""

    def growing(record: Record, index: int) -> None:
        if record.ttft_ms == pytest.approx(610):
            record.ttft_ms = record.ttft_low_ms = record.ttft_due_ms = 610 + 100 * ((record.start_time or 0) - maker.T0)

    path = open_loop(tmp_path / "open", (2, 4, 8, 16), change=growing)
    (only,) = sweep([path]).curves
    last = only.levels[-1]
    assert ({reason.rule for reason in last.reasons}, last.overloaded) == ({OVERLOADED}, True)
    assert only.knee.index == 2
    assert 3 not in only.front and only.most == 2


def test_without_tokens_throughput_is_requests(tmp_path: Path) -> None:
    def silent(record: Record, index: int) -> None:
        record.output_tokens, record.token_source, record.tpot_ms = None, "", None

    found = sweep([stepped(tmp_path / "silent", FEW, change=silent)])
    assert found.throughput == curve.REQUESTS
    assert found.curves[0].knee.index == 1
    assert any("no request" in caution.lower() and "--tokenizer" in caution for caution in cautions(found))


def test_bounds_of_ttft_the_upper_one_counts(tmp_path: Path) -> None:
    def merged(record: Record, index: int) -> None:
        record.ttft_low_ms = (record.ttft_ms or 0) - 1

    found = sweep([stepped(tmp_path / "merged", (4, 8), change=merged)])
    ttft = metrics.METRICS["ttft_p95"]
    assert [(level.low(ttft), level.of(ttft)) for level in found.levels] == [
        pytest.approx((103, 104)),
        pytest.approx((109, 110)),
    ]


def test_runs_of_different_models_are_curves_of_their_own(steps: Path, tmp_path: Path) -> None:
    def other(record: Record, index: int) -> None:
        record.model = "b-model"

    found = sweep([steps, stepped(tmp_path / "b", (4, 8), change=other)])
    assert [(one.name, len(one.levels)) for one in found.curves] == [("a-model", 5), ("b-model", 2)]
    assert "The runs differ in models: a-model; b-model. Each has a curve of its own." in cautions(found)
    assert (found.curves[1].knee.index, found.curves[1].knee.why) == (None, knee.FEW)


def test_what_only_says_how_much_load_does_not_part_runs(tmp_path: Path) -> None:
    one = stepped(tmp_path / "one", (4,), options={"steps": "4", "label": "x", "seed": 1})
    other = stepped(tmp_path / "other", (8,), options={"run_dir": "y", "requests": 100, "seed": 2, "lang": "zh"})
    assert len(sweep([one, other]).curves) == 1
    longer = stepped(tmp_path / "longer", (8,), options={"output_tokens": 500})
    assert [one.name for one in sweep([one, longer]).curves] == ["one", "output_tokens=500"]


def gpu(watts: dict[int, float], seconds: float) -> str:
    """hardware.csv of one GPU whose energy counter grows by so many watts in each step."""
    used, lines = 1e6, ["time,host,device,metric,value,mean,max"]
    for second in range(int(seconds * len(watts)) + 1):
        lines.append(f"{maker.T0 + second},gpu1,GPU-a,energy_joules_total,{used!r},,")
        used += watts[min(int(second / seconds), len(watts) - 1)]
    return "\n".join(lines) + "\n"


def test_tokens_a_joule_and_cost_of_each_level(tmp_path: Path) -> None:
    path = stepped(tmp_path / "gpu", (4, 8), seconds=40)
    (path / "hardware.csv").write_text(gpu({0: 200.0, 1: 352.0}, seconds=40))
    found = sweep([path], Wish(energy=energy.Wish(idle_watts=100, price_per_gpu_hour=3.6)), price=3.6)
    four, eight = (level.energy for level in found.levels)
    assert four is not None and eight is not None
    rates = [level.rates["output_tokens"] or 0 for level in found.levels]
    assert four["output_tokens_per_joule"] == pytest.approx(rates[0] / 200, rel=1e-3)
    assert eight["output_tokens_per_joule"] == pytest.approx(rates[1] / 352, rel=1e-3)
    assert eight["net_output_tokens_per_joule"] == pytest.approx(rates[1] / 252, rel=1e-3)
    assert eight["cost_per_million_output_tokens"] == pytest.approx(0.001 / rates[1] * 1e6, rel=1e-3)
    assert found.curves[0].levels[1].energy == eight


def test_unknown_energy_and_cost_stay_unknown_with_the_reason(tmp_path: Path) -> None:
    path = stepped(tmp_path / "dark", (4, 8))
    found = sweep([path], Wish(energy=energy.Wish(price_per_gpu_hour=3.6)))
    assert {value for level in found.levels for value in (level.energy or {}).values()} == {None}
    (said,) = cautions(found)
    assert said.startswith(
        f"{path}: The cost is unknown, since no GPU was sampled: say how many there are by --gpu-count"
    )
    paid = sweep([path], Wish(energy=energy.Wish(price_per_gpu_hour=3.6, gpu_count=4)), price=3.6)
    level = paid.levels[0]
    cost = 3.6 * 4 / 3600 * 1e6 / (level.rates["output_tokens"] or 0)
    assert level.energy and level.energy["cost_per_million_output_tokens"] == pytest.approx(cost, rel=1e-3)
    assert level.energy["watts"] is None and not list(cautions(paid))


def test_a_run_without_levels_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = stepped(tmp_path / "short", (4,), options={"warmup": 60.0})
    with pytest.raises(RunDirectoryError) as raised:
        observe(path)
    assert str(raised.value) == (
        f"{path} has no load level to show: load did not stay at its target for longer than the settling time of "
        "60 s. Let each level last longer, or set a shorter --warmup."
    )
    header = (path / "requests.csv").read_text().splitlines()[0]
    (path / "requests.csv").write_text(header + "\n")
    with pytest.raises(RunDirectoryError, match="it holds no request"):
        observe(path)


def test_the_names_of_rules_and_facts_exist() -> None:
    assert {*CLIENT_RULES, OVERLOADED} <= {rule.name for rule in rules.RULES}
    assert {*series.APART, *series.DOUBTED, series.TARGETS} <= {fact.name for fact in comparable.FACTS}
