"""Goodput of two sides: requests that kept to all limits, a second and of all that were due, where the limits are the
same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import run_directory_maker as maker

from tokenswarm.errors import OptionError
from tokenswarm.results import read, summarise
from tokenswarm.results.compare import command, comparable, differences, gate, page, sides
from tokenswarm.results.compare.differences import SAME, WORSE, Comparison, Difference
from tokenswarm.slo import parse_goodput

OLD, NEW = (0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.4, 0.5)
"""TTFTs, one after another: of 20 requests a second, three in four are within 350 ms, and two in four."""
LIMIT = "ttft<350ms"


def made(directory: Path, ttfts: Sequence[float], goodput: str | None = LIMIT) -> Path:
    options = {"request_timeout": 300.0, "warmup": None} | ({} if goodput is None else {"goodput": goodput})
    return maker.write(directory, maker.closed_loop(ttfts=ttfts), options=options, run_id=directory.name)


def compared(old: Path, new: Path, limits: str = "", also: Sequence[str] = ()) -> Comparison:
    held_to = parse_goodput(limits) if limits else ()
    pair = (sides.side(role, [path], held_to) for role, path in (("baseline", old), ("candidate", new)))
    return differences.compare(*pair, also=also)


def of(comparison: Comparison, name: str) -> Difference | None:
    return next((one for one in comparison.differences if one.metric == name), None)


def warned(comparison: Comparison) -> str:
    return "\n".join(caution.text for caution in comparison.cautions if caution.level == comparable.WARNING)


def test_it_is_reckoned_by_hand_and_as_in_each_runs_summary(tmp_path: Path) -> None:
    paths = made(tmp_path / "old", OLD), made(tmp_path / "new", NEW)
    found = compared(*paths)
    rate, share = of(found, "goodput"), of(found, "goodput_share")
    assert rate and rate.relative and share and share.absolute
    assert (rate.baseline.value, rate.candidate.value) == (pytest.approx(15, abs=0.3), pytest.approx(10, abs=0.3))
    assert (share.baseline.value, share.candidate.value) == (pytest.approx(0.75), pytest.approx(0.5))
    for change, middle in ((rate.relative, -1 / 3), (share.absolute, -0.25)):
        assert change.low is not None and change.high is not None
        assert change.low < middle < change.high < 0
    assert (rate.outcome, share.outcome) == (WORSE, WORSE)
    for path, side in zip(paths, ("baseline", "candidate"), strict=True):
        expected = summarise.summarise(read.load(path))["goodput"]
        assert getattr(rate, side).value == pytest.approx(expected["per_s"])
        assert getattr(share, side).value == pytest.approx(expected["share"])
    assert "goodput" not in warned(found)


def test_what_fails_or_is_never_sent_is_due_and_not_good(tmp_path: Path) -> None:
    def some(record: maker.Record, index: int) -> None:
        record.status = {0: "failed", 1: "shed", 2: "timeout", 3: "cancelled"}.get(index % 10, "ok")

    path = maker.write(tmp_path / "run", maker.closed_loop(change=some))
    share = of(compared(path, path, LIMIT), "goodput_share")
    assert share and share.outcome == SAME
    # Who left in time is out.
    assert share.baseline.value == pytest.approx(6 / 9, abs=0.01)


def test_other_limits_are_warned_of_and_not_compared(tmp_path: Path) -> None:
    old, new = made(tmp_path / "old", OLD), made(tmp_path / "new", NEW, "ttft<450ms")
    found = compared(old, new, also=["goodput"])
    assert "Other --goodput: ttft<350ms against ttft<450ms. Goodput is left out:" in warned(found)
    assert of(found, "goodput_share") is None
    judged = gate.judge(gate.parse("goodput -5%"), found)
    assert (judged.outcome, judged.fails) == (gate.UNJUDGED, True)
    without = compared(old, made(tmp_path / "without", NEW, None))
    assert "Other --goodput: ttft<350ms against unknown or not set." in warned(without)


def test_the_same_limits_may_be_written_in_other_words(tmp_path: Path) -> None:
    old, new = made(tmp_path / "old", OLD, "ttft<350ms tpot<1s"), made(tmp_path / "new", NEW, "tpot<1000ms, ttft<0.35s")
    found = compared(old, new)
    assert of(found, "goodput") and "goodput" not in warned(found)


def test_limits_of_the_comparison_hold_for_all_runs(tmp_path: Path) -> None:
    old, new = made(tmp_path / "old", OLD, None), made(tmp_path / "new", NEW, "ttft<450ms")
    found = compared(old, new, LIMIT)
    share = of(found, "goodput_share")
    assert share and (share.baseline.value, share.candidate.value) == (pytest.approx(0.75), pytest.approx(0.5))
    assert found.goodput == (LIMIT,) and "goodput" not in warned(found)


def test_a_limit_on_what_nobody_measured_leaves_it_unmeasured(tmp_path: Path) -> None:
    def whole(record: maker.Record, index: int) -> None:
        record.ttft_ms = None

    path = maker.write(tmp_path / "run", maker.closed_loop(change=whole))
    assert of(compared(path, path, LIMIT), "goodput") is None


def test_the_command_takes_limits_prints_them_and_fails_by_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [str(made(tmp_path / name, ttfts, None)) for name, ttfts in (("old", OLD), ("new", NEW))]
    limits = ("--goodput", LIMIT, "--fail-if", "goodput -5%", "--fail-if", "goodput_share -45pp")
    assert command.main([*pair, *limits]) == 3
    printed = capsys.readouterr().out
    assert "Goodput: requests due that kept to ttft<350ms, a second" in printed
    assert "\nFAILED     goodput -5%: −33 %" in printed and "\npassed     goodput_share -45pp: −25 pp" in printed
    text = (tmp_path / "new" / command.PAGE).read_text(encoding="utf-8")
    assert "Goodput, of all due" in text and page.escape("kept to ttft<350ms") in text
    assert command.main([*pair, "--goodput", "ttft_p95<1s"]) == 2
    assert "error: --goodput 'ttft_p95<1s': a limit on each request has no percentile" in capsys.readouterr().err


def test_more_goodput_is_better_so_that_a_limit_is_on_its_fall() -> None:
    for text in ("goodput +5%", "goodput_share +2pp"):
        with pytest.raises(OptionError, match="better when higher"):
            gate.parse(text)
