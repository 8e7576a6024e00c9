"""`tokenswarm sweep` and `analysis/sweep.py` as people run them; the page, what docs/sweep.md says."""

from __future__ import annotations

import csv
import io
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import run_directory_maker as maker
from locust_process import ROOT, headless
from run_directory_maker import Record
from simulator_process import simulator
from stepped_runs import stepped
from test_documentation import EXAMPLE_RUN, blocks, commands, options_in
from test_results_report import HOSTILE, Elements

from tokenswarm.results.console import WIDTH, width
from tokenswarm.results.language import LANGUAGES
from tokenswarm.results.sweep import command
from tokenswarm.results.wording import instant

DOCUMENTATION = ROOT / "docs" / "sweep.md"
STEAL = {"steal_percent": 9.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a stepped run, one that repeats a level of it, one with a single level, and what is none."""
    folder = tmp_path_factory.mktemp("swept")
    goals = {"slo": "ttft_p95<300ms", "goodput": "ttft<300ms"}
    stepped(folder / "runs" / "steps", options=goals)
    stepped(folder / "runs" / "again", (4,), options=goals)
    stepped(folder / "one", (4,))
    stepped(folder / "ill", (4, 8, 16), ill=lambda index: STEAL if index == 1 else {})
    stepped(folder / "doubted", (4, 8, 16), ill=lambda index: {"steal_percent": 3.0} if index < 2 else {})
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def test_the_answers_the_table_and_the_page(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["runs/*"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Best within ttft_p95<300ms: 8 users, 176 output tokens/s, TTFT p95 110 ms\nKnee: 8 users,")
    assert re.search(r"^Highest throughput: (8|16) users", said, re.MULTILINE)
    assert re.search(r"^8 users +front, knee, best +1 +320 ", said, re.MULTILINE)
    assert re.search(r"^4 users +front +2 +320 .*\[8\S+–8\S+\]", said, re.MULTILINE)  # pooled, with its spread
    assert re.search(r"^16 users .* MISSED +0 +valid$", said, re.MULTILINE)
    assert said.rstrip().endswith(f"Page  {Path('runs/again/sweep.html')}")
    found = Elements((inside / "runs" / "again" / "sweep.html").read_text(encoding="utf-8"))
    assert f"5 load levels of 2 runs · {instant(maker.T0)}" in found.text
    assert "Best within ttft_p95<300ms" in found.text and "176 output tokens/s" in found.text


def test_what_is_pasted_is_all_that_is_printed(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["runs/*", "--format", "markdown", "--no-html"]) == 0
    head, rule, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("| Load |") and set(rule) <= set("|-: ")
    assert [line.count("|") for line in (rule, *lines)] == [head.count("|")] * 6
    assert command.main(["runs/*", "--format", "csv", "--out", "x.html"]) == 0
    told = capsys.readouterr()
    table = list(csv.DictReader(io.StringIO(told.out)))
    assert [(row["users"], row["runs"], row["knee"]) for row in table] == [
        ("1", "1", "false"),
        ("2", "1", "false"),
        ("4", "2", "false"),
        ("8", "1", "true"),
        ("16", "1", "false"),
    ]
    assert [float(row["ttft_p95_ms"]) for row in table] == pytest.approx([100, 102, 104, 110, 610])
    assert {row["output_tokens_per_joule"] for row in table} == {""}
    assert "Page  " in told.err and (inside / "x.html").is_file()


def test_json_has_the_answers_and_the_reasons(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["ill", "--format", "json", "--no-html", "--latency", "e2e_p50"]) == 0
    told = json.loads(capsys.readouterr().out)
    (only,) = told["curves"]
    four, eight, sixteen = only["levels"]
    assert (told["latency"], only["no_knee"]) == ("e2e_p50", "uncounted")
    assert (eight["verdict"], eight["client_was_the_limit"], eight["counted"]) == ("invalid", True, False)
    assert "The hypervisor took 9 %" in eight["reasons"][0]
    assert (four["front"], eight["front"], sixteen["front"]) == (True, False, True)


def test_levels_that_keep_a_goal_but_do_not_count_are_named_and_why(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["doubted", "--slo", "ttft_p95<300ms", "--no-html"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    four, eight = "4 users (degraded)", "8 users (degraded)"
    kept = f"Not counted: {four}, {eight}; --trust degraded counts them in."
    assert said.startswith(f"Best within ttft_p95<300ms: No level that counts keeps to that; others do. {kept}")
    assert f"the others are not valid, or lack one of the two figures. {kept}" in said
    assert "degraded 4 users: The hypervisor took 3 %" in said and "degraded 8 users: The hypervisor took 3 %" in said
    assert command.main(["ill", "--slo", "ttft_p95<105ms", "--no-html", "--trust", "degraded"]) == 0
    assert "8 users (client limit); --trust all counts them in." in " ".join(capsys.readouterr().out.split())


def test_an_answer_that_rests_on_a_degraded_level_says_so_and_on_how_many_requests(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["doubted", "--slo", "ttft_p95<300ms", "--trust", "degraded", "--out", "doubted.html"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    caveat = "rests on 320 requests, degraded"
    assert f"Best within ttft_p95<300ms: 8 users, 176 output tokens/s, TTFT p95 110 ms, {caveat}" in said
    assert Elements(Path("doubted.html").read_text(encoding="utf-8")).text.count(caveat) >= 1
    assert command.main(["one", "--trust", "all", "--no-html"]) == 0
    assert "rests on" not in capsys.readouterr().out


def test_one_level_is_a_table_with_a_note_and_no_curve(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["one"]) == 0
    said = capsys.readouterr().out
    assert "Knee: It takes three levels or more at different loads." in said
    assert re.search(r"^4 users +160 ", said, re.MULTILINE)
    assert "One load level is no curve" in said and "--steps" in said
    page = Elements((inside / "one" / "sweep.html").read_text(encoding="utf-8"))
    assert "One load level is no curve" in page.text
    assert not [attributes for tag, attributes in page.tags if tag == "figure"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gone",), "gone is not a directory: name the run directory"),
        (("empty",), "empty is not a run directory"),
        (("none-*",), "no directory matches none-*"),
        (("one", "--latency", "ttft"), "there is no metric 'ttft'"),
        (("one", "--latency", "requests_per_s"), "--latency requests_per_s is no latency: take one as ttft_p95"),
        (("one", "--latency", "foo"), "there is no metric 'foo'. There are "),
        (
            ("one", "--out", "none/x.html"),
            "--out none/x.html: there is no directory none: make it, or name another file",
        ),
        (("one", "--slo", "ttft<1s"), "--slo 'ttft<1s': of which percentile? Write ttft_p95<1s"),
        (("one", "--goodput", "ttft_p95<1s"), "--goodput 'ttft_p95<1s': a limit on each request has no percentile"),
        (("one", "--price-per-gpu-hour", "dear"), "'dear' is no number of 0 or more"),
    ],
)
def test_what_cannot_be_swept_is_refused_in_words(
    inside: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = command.main(words)
    except SystemExit as ended:
        status = int(str(ended.code))
    assert status == 2
    assert said in capsys.readouterr().err


def test_what_is_damaged_or_a_copy_is_named_and_the_rest_is_shown(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("one", tmp_path / "copy")
    rows = shutil.copytree("ill", tmp_path / "torn") / "requests.csv"
    rows.write_text(rows.read_text()[:-40])
    status = command.main(["one", "one", "empty", str(tmp_path / "copy"), str(tmp_path / "torn"), "--no-html"])
    told = capsys.readouterr()
    assert status == 2
    assert f"note {tmp_path / 'torn'}: requests.csv: the last row is torn" in " ".join(told.out.split())
    assert told.err.splitlines() == [
        "error: empty is not a run directory: it has neither run.json nor requests.csv",
    ]
    assert f"note one: {tmp_path / 'copy'} holds the same run: it counts once." in " ".join(told.out.split())
    lines = [line for line in told.out.splitlines() if line.startswith("4 users ")]
    assert sorted(line.split()[-1] for line in lines) == ["invalid", "valid"]  # a lost row is a reason to doubt all


def test_a_page_that_cannot_be_written_is_told_after_the_table(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["one", "--out", "one/run.json/page.html"]) == 2
    told = capsys.readouterr()
    assert "4 users" in told.out and "error: cannot write" in told.err


def test_a_copy_of_a_run_is_noted_and_no_failure(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("one", tmp_path / "copy")
    assert command.main(["one", str(tmp_path / "copy"), "--no-html"]) == 0
    told = capsys.readouterr()
    assert (told.err, "holds the same run: it counts once." in " ".join(told.out.split())) == ("", True)
    assert re.search(r"^4 users +160 ", told.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("damage", "why", "longer"),
    [
        (lambda rows: rows.write_bytes(b""), "requests.csv", False),
        (lambda rows: rows.write_bytes(bytes(range(256)) * 20), "requests.csv", False),
        (lambda rows: rows.write_text(rows.read_text().splitlines()[0] + "\n"), "it holds no request.", False),
        (
            lambda rows: (rows.parent / "run.json").write_text(
                (rows.parent / "run.json")
                .read_text()
                .replace('"warmup":2.0', '"warmup":99')
                .replace('"warmup": 2.0', '"warmup": 99')
            ),
            "load did not stay at its target for longer than the settling time",
            True,
        ),
    ],
)
def test_a_run_without_levels_is_refused_with_its_own_reason(
    inside: Path,
    tmp_path: Path,
    damage: Callable[[Path], object],
    why: str,
    longer: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(shutil.copytree("one", tmp_path / "one") / "requests.csv")
    assert command.main([str(tmp_path / "one")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'one'} has no load level to show: {why}"), said
    assert ("let each level last longer" in said.lower()) == longer


def test_it_loads_no_locust() -> None:
    code = "import sys; from tokenswarm.results.sweep import command; print({'locust', 'gevent'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_shows_hostile_text_as_text_and_asks_for_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], language: str
) -> None:
    paths = []
    for number in range(2):

        def hostile(record: Record, index: int, number: int = number) -> None:
            record.model = f"{number} {HOSTILE}"

        names = ("host", "protocol", "model", "transport")
        target = dict.fromkeys(names, HOSTILE) | {"simulator": bool(number)}
        changed = {"label": HOSTILE, "run_id": f"{number} {HOSTILE}", "options": {HOSTILE: HOSTILE * (number + 1)}}
        paths.append(stepped(tmp_path / str(number), (1, 2), seconds=6, change=hostile, target=target, **changed))
    assert command.main([*map(str, paths), "--lang", language, "--out", str(tmp_path / "x.html")]) == 0
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", capsys.readouterr().out)
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    found = Elements(text)
    assert not [tag for tag, _ in found.tags if tag in ("img", "link", "iframe", "object", "embed", "base", "form")]
    for tag, attributes in found.tags:
        assert not {"src", "href", "srcset", "action", "background"} & set(attributes), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert not [script for script in found.scripts if script.startswith("alert")]
    kinds = [attributes.get("type") for tag, attributes in found.tags if tag == "script"]
    charts = [json.loads(s) for s, kind in zip(found.scripts, kinds, strict=True) if kind == "application/json"]
    names = [trace["name"] for chart in charts for trace in chart["data"] if "name" in trace]
    assert charts and names and not [name for name in names if "<" in name]
    assert LANGUAGES[language]("SIMULATOR") in found.text
    assert len(text.encode()) < 8_000_000


def test_in_chinese_lines_fit_a_terminal(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two columns a character."""
    assert command.main(["ill", "one", "--no-html", "--lang", "zh"]) == 0
    lines = capsys.readouterr().out.splitlines()
    sentences = [line for line in lines if "。" in line or ("，" in line and not line.endswith(("有效", "无效")))]
    assert sentences and max(map(width, sentences)) <= WIDTH


@pytest.mark.slow
def test_a_real_server_of_four_places_has_its_knee_at_four_users(tmp_path: Path) -> None:
    server = ("--max-batch", "4", "--prefill-base", "10", "--decode-base", "10")
    steps = ("--steps", "2,4,8", "--step-time", "2.5s", "--warmup", "0.5", "--output-tokens", "20", "--ignore-eos")
    with simulator(tmp_path, *server) as target:
        run = headless(tmp_path, target.url, *steps)
    # A test's machine may be busy, and its levels then degraded: the knee is there all the same.
    words = ("--latency", "e2e_p50", "--trust", "all", "--format", "json", "--goodput", "e2e<330ms")
    words = (sys.executable, "-m", "tokenswarm", "sweep", str(run.run_dir), *words)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (only,) = json.loads(done.stdout)["curves"]
    assert [level["users"] for level in only["levels"]] == [2, 4, 8]
    assert [level["users"] for level in only["levels"] if level["knee"]] == [4], only["answers"]
    assert only["levels"][2]["goodput_share"] < only["levels"][1]["goodput_share"]
    assert (run.run_dir / command.PAGE).is_file()


# The documentation


@pytest.mark.parametrize("line", commands(DOCUMENTATION))
def test_the_documentations_commands_run(
    folder: Path, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "runs" / "steps", tmp_path / EXAMPLE_RUN)
    monkeypatch.chdir(tmp_path)
    program, name, *words = shlex.split(line)
    if program == "python":
        monkeypatch.setattr("sys.argv", [name, *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / name), run_name="__main__")
        assert ended.value.code == 0
    else:
        assert (program, name, command.main(words)) == ("tokenswarm", "sweep", 0)
    assert "8 users" in capsys.readouterr().out


def test_every_option_is_told_and_exists() -> None:
    flags = {flag for action in command.parser()._actions for flag in action.option_strings} - {"-h", "--help"}
    of_locust = {"--steps", "--step-time", "--find-capacity", "--max-batch"}
    assert options_in(DOCUMENTATION) - of_locust == flags


def test_the_sample_has_the_lines_that_are_printed(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sample,) = blocks(DOCUMENTATION, "text")
    command.main(["runs/steps", "--no-html"])
    printed = capsys.readouterr().out
    for line in (r"^Best within ttft_p95<300ms: \d+ users, \S+ output tokens/s, TTFT p95", r"^Knee: \d+ users, "):
        assert re.search(line, sample, re.MULTILINE) and re.search(line, printed, re.MULTILINE), line
    heads = [next(line for line in text.splitlines() if line.startswith("Load ")).split() for text in (sample, printed)]
    assert heads[0] == heads[1]
