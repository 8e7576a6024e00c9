"""`tokenswarm compare` and `analysis/compare.py` as people run them; the page, what docs/compare.md says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import run_directory_maker as maker
from locust_process import ROOT, headless
from simulator_process import simulator
from test_documentation import blocks, commands, first_cells, section
from test_results_report import HOSTILE, Elements

from tokenswarm.results.compare import command, metrics

PAGE = ROOT / "docs" / "compare.md"
COMMAND = [sys.executable, "-m", "tokenswarm", "compare"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of repeated runs, old ones and new ones with TTFTs half as long again, and something else."""
    folder = tmp_path_factory.mktemp("compared") / "runs"
    for role, ttft in (("old", 0.1), ("new", 0.15)):
        for number in range(2):
            cycle = [ttft * (1 + 0.05 * ((index * 7 + number) % 5)) for index in range(5)]
            records = maker.closed_loop(users=4, seconds=60, ttfts=cycle)
            maker.write(folder / f"{number}-{role}", records, users=4, run_id=f"{number}-{role}", label=role)
    (folder / "notes-old").write_text("not a run")
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """From the folder in which `runs` lies. Whatever it does, it must not end in a traceback."""
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder.parent, capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr
    return done


def test_repeated_runs_by_wildcards_a_limit_that_is_missed_and_the_page(runs: Path) -> None:
    words = ("--baseline", "runs/*-old", "--candidate", "runs/*-new", "--out", "x.html")
    done = run(runs, *words, "--fail-if", "ttft_p50 +10%", "--fail-if", "requests_per_s -5%")
    assert done.returncode == 3, done.stderr
    assert re.search(r"^Baseline +2 runs of old$", done.stdout, re.MULTILINE)
    assert re.search(r"^TTFT p50, ms .*\], worse$", done.stdout, re.MULTILINE)
    assert re.search(r"^FAILED +ttft_p50 \+10%: \+50 % \[.*beyond the limit$", done.stdout, re.MULTILINE)
    assert re.search(r"^passed +requests_per_s -5%:", done.stdout, re.MULTILINE)
    assert (runs.parent / "x.html").is_file()


def test_the_first_run_is_compared_with_each_of_the_others(runs: Path) -> None:
    done = run(runs, "runs/0-old", "runs/1-old", "runs/0-new", "runs/none", "--json", "-")
    assert done.returncode == 2  # for the one that is not there; the others are compared all the same
    (said,) = done.stderr.splitlines()
    assert said.startswith("error: candidate: runs/none is not a directory: name the run directory")
    same, slower = json.loads(done.stdout)["comparisons"]
    assert [one["candidate"]["name"] for one in (same, slower)] == ["1-old", "0-new"]
    outcomes = [{one["metric"]: one["outcome"] for one in each["differences"]} for each in (same, slower)]
    assert outcomes[0]["ttft_p50"] == "no difference shown" and outcomes[1]["ttft_p50"] == "worse"
    assert slower["differences"][0]["said"].startswith("TTFT p50 +50 % [")
    text = (runs / "1-old" / command.PAGE).read_text(encoding="utf-8")
    assert "Changes: 1-old" in text and "Changes: 0-new" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("runs/0-old", "runs/0-new", "--out", "none/x.html"),
            "--out none/x.html: there is no directory none: make it",
        ),
        (
            ("runs/0-old", "runs/0-new", "--json", "none/x.json"),
            "--json none/x.json: there is no directory none: make it",
        ),
        (("runs/0-old",), "only runs/0-old is named"),
        ((), "name two runs or more, or both --baseline and --candidate"),
        (("runs/0-old", "--candidate", "runs/0-new"), "not both"),
        (("runs/0-old", "runs/*-gone"), "no directory matches runs/*-gone"),
        (("runs/none", "runs/0-new"), "baseline: runs/none is not a directory"),
        (("runs/0-old", "runs"), "candidate: runs is not a run directory"),
        (("runs/0-old", "runs/0-new", "--fail-if", "ttft +1%"), "there is no metric 'ttft'"),
        (("runs/0-old", "runs/0-new", "--confidence", "100"), "100 is no percentage"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(
    runs: Path, words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs.parent)
    try:
        status = command.main(words)
    except SystemExit as ended:
        status = int(str(ended.code))
    assert status == 2
    assert said in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_told_after_the_table(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    pair = [str(runs / "0-old"), str(runs / "0-new")]
    assert command.main([*pair, "--out", str(tmp_path / "file" / "page.html")]) == 2
    told = capsys.readouterr()
    assert "TTFT p50" in told.out and "error: cannot write" in told.err


def test_it_loads_no_locust() -> None:
    code = "import sys; from tokenswarm.results.compare import command; print({'locust', 'gevent'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_page_shows_hostile_text_as_text_and_asks_for_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for number in range(2):
        records = maker.closed_loop(users=2, seconds=30)
        for record in records:
            record.model = HOSTILE
        target = {
            "host": HOSTILE,
            "simulator": bool(number),
            "protocol": HOSTILE,
            "model": HOSTILE,
            "transport": HOSTILE,
        }
        changed = {"label": HOSTILE, "run_id": f"{number} {HOSTILE}", "options": {HOSTILE: HOSTILE * (number + 1)}}
        paths.append(
            maker.write(tmp_path / str(number), records, users=2, target=target, problems=[HOSTILE], **changed)
        )
    assert command.main([*map(str, paths), "--fail-if", "ttft_p50 +10%"]) == 0
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", capsys.readouterr().out)
    text = (paths[1] / command.PAGE).read_text(encoding="utf-8")
    found = Elements(text)
    assert not [tag for tag, _ in found.tags if tag in ("img", "link", "iframe", "object", "embed", "base", "form")]
    for tag, attributes in found.tags:
        assert not {"src", "href", "srcset", "action", "background"} & set(attributes), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert not [script for script in found.scripts if script.startswith("alert")]
    kinds = [attributes.get("type") for tag, attributes in found.tags if tag == "script"]
    charts = [json.loads(s) for s, kind in zip(found.scripts, kinds, strict=True) if kind == "application/json"]
    names = [trace["name"] for chart in charts for trace in chart["data"] if "name" in trace]
    assert len(charts) == 8 and names and not [name for name in names if "<" in name]
    assert "SIMULATOR" in found.text and "Other kinds of target" in found.text
    assert len(text.encode()) < 8_000_000


@pytest.mark.slow
def test_real_runs_of_two_servers_differ_where_the_servers_do(tmp_path: Path) -> None:
    def of_a_server(name: str, prefill: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        with simulator(folder, "--prefill-base", prefill) as server:
            asked = ("-u", "4", "-r", "4", "-t", "6s", "--warmup", "1", "--output-tokens", "10")
            return headless(folder, server.url, *asked).run_dir

    with ThreadPoolExecutor() as pool:
        paths = list(pool.map(of_a_server, ("old", "new"), ("5", "100")))
    done = run(tmp_path / "old", *map(str, paths), "--json", "-", "--fail-if", "ttft_p50 +50%")
    assert done.returncode == 3, done.stderr
    (found,) = json.loads(done.stdout)["comparisons"]
    outcomes = {one["metric"]: one["outcome"] for one in found["differences"]}
    assert [outcomes[name] for name in ("ttft_p50", "e2e_p50", "requests_per_s")] == ["worse"] * 3
    assert outcomes["error_rate"] == "no difference shown"


# The documentation


def test_every_metric_is_in_the_documentation() -> None:
    text = section(PAGE, "## What is compared")
    names = set(re.findall(r"`([a-z0-9_]+)`", text))
    shares = {metrics.GOODPUT, metrics.GOOD_SHARE, metrics.ERROR_RATE}
    assert {*metrics.COLUMNS, metrics.ITL, *metrics.RATES} | shares <= names
    assert set(first_cells(section(PAGE, "## Limits, for CI"))) == {"certain", "likely", "possible"}


@pytest.mark.parametrize("line", [line for line in commands(PAGE) if line.startswith("tokenswarm compare ")])
def test_the_documentations_commands_run(runs: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs.parent)
    assert command.main(shlex.split(line)[2:]) == (3 if "--fail-if" in line else 0)


def test_the_documentations_notebook_runs(runs: Path) -> None:
    (line,) = [line for line in commands(PAGE) if not line.startswith("tokenswarm compare ")]
    name, *words = shlex.split(line.removeprefix("python "))
    done = subprocess.run(
        [sys.executable, str(ROOT / name), *words], cwd=runs.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "TTFT p50 +50 % [" in done.stdout


def test_the_sample_has_the_lines_that_are_printed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sample,) = blocks(PAGE, "text")
    old, new = ([str(runs / f"{number}-{role}") for number in range(2)] for role in ("old", "new"))
    command.main(["--baseline", *old, "--candidate", *new, "--no-html"])
    printed = capsys.readouterr().out
    heads = (r"^Baseline +\d runs of", r"^Candidate +\d runs of", r"^ +baseline +runs +candidate +runs$")
    for line in (
        *heads,
        r"^TTFT p50, ms +\S+ +±\S+ % +\S+ +±\S+ % +\S",
        r"^TTFT: longer in the candidate for \d+ of 100",
    ):
        assert re.search(line, sample, re.MULTILINE), line
        assert re.search(line, printed, re.MULTILINE), line
