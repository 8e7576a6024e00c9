"""What the documentation says is true: its commands run, its options, columns, figures and links exist."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from locust_process import ROOT, LocustProcess, headless, locust
from simulator_process import Running

from metrics_exporter import options as exporter_options
from tokenswarm import rules
from tokenswarm.record import COLUMNS, ERROR_CLASSES

READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
METRICS = ROOT / "docs" / "metrics.md"
DIRECTORY = ROOT / "docs" / "run-directory.md"
LOAD = ROOT / "docs" / "load.md"
OURS = (*READMES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", METRICS, DIRECTORY, LOAD)
PAGES = tuple(sorted({*OURS, *(ROOT / "docs").glob("*.md")}))
EXAMPLE_RUN = "runs/20261120T134000Z-chat"
ANOTHER_RUN = "runs/20261120T151000Z-chat"


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, *languages: str) -> list[str]:
    """The fenced blocks of these languages."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def commands(path: Path) -> list[str]:
    """Every line of the shell blocks, comments and continued lines taken care of."""
    lines = "".join(blocks(path, "bash")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def section(path: Path, heading: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    level = heading.split(" ")[0]
    text = "\n" + path.read_text(encoding="utf-8")
    assert f"\n{heading}\n" in text, heading
    return re.split(rf"^#{{1,{len(level)}}} ", text.split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> list[str]:
    """The code words in the first cell of each table row."""
    cells = re.findall(r"^\| (`[^|]*?) \|", text, re.MULTILINE)
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, quick_simulator: Running) -> LocustProcess:
    """A run with everything in it that a run directory can hold."""
    folder = tmp_path_factory.mktemp("documented")
    recorded = ("--save-responses", "--hardware", "local", "--server-metrics", "target")
    return headless(folder, quick_simulator.url, "-u", "4", "-r", "4", "-t", "3s", *recorded)


# Commands

COMMANDS = sorted({command for page in OURS for command in commands(page)})


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_targets_exist(command: str) -> None:
    done = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("locust ")])
def test_locust_commands_run(command: str, tmp_path: Path, quick_simulator: Running) -> None:
    """As written, but for the server, a short time and few users; those for the web page with the page."""
    words = shlex.split(command.replace("http://SERVER:8000", quick_simulator.url).replace("NAME", "simulator"))
    assert words[:2] == ["locust", "-f"]
    short = ["-u", "2", "-r", "2", "-t", "5s" if "--processes" in words else "2s"]
    if "--steps" in words:
        short = ["--steps", "1,2", "--step-time", "1s"]
    if "--headless" not in words:
        short += ["--autostart", "--autoquit", "0", "--web-port", str(free_port())]
    if "--processes" in words:
        port = str(free_port())
        short += ["--master-bind-port", port, "--master-port", port]
    with locust(tmp_path, *words[3:], *short, locustfile=ROOT / words[2]) as process:
        assert process.wait() == 0, process.output
    assert "ok" in {row["status"] for row in process.rows()}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("tokenswarm ")])
def test_tokenswarm_commands_run(command: str, run: LocustProcess, tmp_path: Path, quick_simulator: Running) -> None:
    told = command.replace("http://SERVER:8000", quick_simulator.url).replace("NAME", "simulator")
    another = tmp_path / "another"
    if ANOTHER_RUN in told:
        shutil.copytree(run.run_dir, another)
    words = shlex.split(told.replace(EXAMPLE_RUN, str(run.run_dir)).replace(ANOTHER_RUN, str(another)))
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
    # The doctor may find fault with this machine, but not with the command line.
    assert done.returncode in ((0, 1) if words[1] == "doctor" else (0,)), done.stderr


def test_no_other_commands_are_shown() -> None:
    # The exporter's are run by test_exporter_documentation.py.
    known = ("make ", "locust ", "tokenswarm ", "python -m metrics_exporter ", "source .venv/bin/activate")
    assert [command for command in COMMANDS if not command.startswith(known)] == []


@pytest.mark.parametrize("path", READMES, ids=relative)
def test_python_blocks_are_locustfiles_that_work(path: Path, tmp_path: Path, quick_simulator: Running) -> None:
    (code,) = blocks(path, "python")
    locustfile = tmp_path / "poet.py"
    locustfile.write_text(code, encoding="utf-8")
    done = headless(tmp_path, quick_simulator.url, "-u", "2", "-r", "2", "-t", "1s", locustfile=locustfile)
    assert {row["name"] for row in done.rows() if row["status"] == "ok"} == {"poem", "translation"}


def test_the_example_of_shapes_is_a_locustfile(tmp_path: Path, quick_simulator: Running) -> None:
    (code,) = blocks(LOAD, "python")
    locustfile = tmp_path / "day.py"
    quick = re.sub(r"\b(seconds|hold|before|lasting|after)=\d+", r"\1=0", code)
    locustfile.write_text(re.sub(r"=(\d+)0\b", r"=\1", quick), encoding="utf-8")
    done = headless(tmp_path, quick_simulator.url, locustfile=locustfile)
    moments = done.json("run.json")["boundaries"]
    assert [moment["users"] for moment in moments if moment["event"] == "target"] == [5, 20, 5]


def test_the_reading_example_reads(run: LocustProcess) -> None:
    (code,) = blocks(DIRECTORY, "python")
    code = code.replace(EXAMPLE_RUN, str(run.run_dir))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"ITL p99: \d+\.\d+ ms", done.stdout)


def test_both_readmes_show_the_same_commands_and_options() -> None:
    english, chinese = READMES
    assert commands(english) == commands(chinese)
    assert options_in(english) == options_in(chinese)
    assert blocks(english, "text") == blocks(chinese, "text")
    assert linked_from(english) == linked_from(chinese)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Options and exit statuses

FACTS = """
import json
from locust.argument_parser import get_parser
from tokenswarm import plugin
from tokenswarm.session import base
plugin.install()
parser = get_parser(default_config_files=[])
own = [action for action in parser._actions if str(getattr(action, "env_var", "")).startswith("TOKENSWARM_")]
print(json.dumps({
    "all": [flag for action in parser._actions for flag in action.option_strings],
    "own": [flag for action in own for flag in action.option_strings],
    "exits": [base.EXIT_REFUSED, base.EXIT_GOAL_MISSED, base.EXIT_ROWS_LOST],
}))
"""


@dataclass(frozen=True)
class Facts:
    """What the command line really is; asked of another process, since Locust patches the one that imports it."""

    all: set[str]
    own: set[str]
    exits: list[int]


@pytest.fixture(scope="module")
def facts() -> Facts:
    done = subprocess.run([sys.executable, "-c", FACTS], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    return Facts(set(told["all"]), set(told["own"]), told["exits"])


def options_in(path: Path) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", [*OURS, *sorted((ROOT / "locustfiles").glob("*.py"))], ids=relative)
def test_options_exist(path: Path, facts: Facts) -> None:
    exporters = {flag for action in exporter_options.parser()._actions for flag in action.option_strings}
    assert options_in(path) - facts.all - exporters == set()


def test_the_refused_options_are_locusts(facts: Facts) -> None:
    assert {"--master", "--worker", "--processes"} <= facts.all - facts.own


@pytest.mark.parametrize("path", READMES, ids=relative)
def test_exit_statuses_are_all_told(path: Path, facts: Facts) -> None:
    told = [int(number) for number in re.findall(r"^\| (\d) \|", path.read_text(encoding="utf-8"), re.MULTILINE)]
    assert told == [0, 1, *facts.exits]


@pytest.mark.parametrize("path", READMES, ids=relative)
def test_key_variables_are_told(path: Path) -> None:
    from tokenswarm.options import KEY_VARIABLES

    assert [word for word in first_cells(path.read_text(encoding="utf-8")) if word.isupper()] == list(KEY_VARIABLES)


# Columns, figures, files


def test_every_column_is_explained_once() -> None:
    text = section(METRICS, "## Columns of requests.csv")
    told = [word for word in first_cells(text) if word not in ERROR_CLASSES]
    assert sorted(told) == sorted(COLUMNS)
    assert sorted(set(first_cells(text)) & set(ERROR_CLASSES)) == sorted(ERROR_CLASSES)


def figures(summary: dict[str, Any]) -> Iterator[str]:
    """`section.figure` for each section, `name` for what is none."""
    for name, value in summary.items():
        if isinstance(value, dict) and value:
            yield from (f"{name}.{figure}" for figure in value)
        else:
            yield name


def test_every_figure_is_explained_once(run: LocustProcess) -> None:
    text = section(METRICS, "## Figures of summary.json")
    assert sorted(first_cells(text)) == sorted(figures(run.json("summary.json")))


def test_a_distribution_is_as_explained(run: LocustProcess) -> None:
    text = section(METRICS, "## Figures of summary.json")
    (sentence,) = re.findall(r"^A distribution has (.*)\.$", text, re.MULTILINE)
    assert set(re.findall(r"`([^`]+)`", sentence)) == set(run.json("summary.json")["latency"]["e2e_ms"])


def threshold(rule: rules.Rule, value: float | None) -> str:
    """A threshold as the table of rules writes it."""
    if value is None:
        return ""
    if rule.unit == "share":
        text = f"{value * 100:g} %"
        return "any" if value < 1e-6 else f"< {text}" if rule.low_is_bad else text
    if (rule.low_is_bad and value == 1) or rule.name == "not_ended":
        return "yes"
    text = f"{value:g} ms" if rule.unit == "ms" else f"{value:g}"
    return f"< {text}" if rule.low_is_bad else text


def test_every_rule_of_the_verdict_is_explained() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| .* \| (.*?) ?\| (.*?) ?\| (.*?) ?\|$", section(METRICS, "## The verdict"), re.MULTILINE
    )
    assert rows == [
        (rule.name, threshold(rule, rule.note), threshold(rule, rule.degraded), threshold(rule, rule.invalid))
        for rule in rules.RULES
    ]


def test_every_file_of_a_run_directory_is_explained(run: LocustProcess) -> None:
    table = section(DIRECTORY, "# The run directory").split("\n## ", maxsplit=1)[0]
    assert sorted(first_cells(table)) == sorted(path.name for path in run.run_dir.iterdir())


def test_run_json_is_as_explained(run: LocustProcess) -> None:
    assert sorted(first_cells(section(DIRECTORY, "## run.json"))) == sorted(run.json("run.json"))
    (worker,) = run.json("run.json")["workers"]
    assert first_cells(section(DIRECTORY, "## Workers in run.json")) == list(worker)


def test_intervals_are_as_explained(run: LocustProcess) -> None:
    told = sorted(first_cells(section(DIRECTORY, "## intervals.jsonl")))
    assert all(sorted(line) == told for line in run.intervals())


def test_the_sample_is_a_table_that_the_suite_prints(run: LocustProcess) -> None:
    (sample,) = [text for text in blocks(READMES[0], "text") if "Verdict" in text]
    for heading in (r"^Verdict: (VALID|DEGRADED|INVALID)", r"^Requests +due +ok +failed", r"^Latency in ms +mean +p50"):
        assert re.search(heading, sample, re.MULTILINE)
        assert re.search(heading, run.output, re.MULTILINE)
    # Waits of the client are listed only where there were any.
    assert first_words(sample) - first_words(run.output) <= {"TTFT from due", "Queue", "Start → sent"}


def first_words(text: str) -> set[str]:
    """Names of the rows of a console table: what stands before two or more blanks and a number, less any (…)."""
    return {re.sub(r" \(.*", "", name) for name in re.findall(r"^([A-Za-z].*?)  +[~\d]", text, re.MULTILINE)}


# Links


def linked_from(readme: Path) -> set[str]:
    """Without the other README, and pictures, which each has in its own language."""
    return {link for link in links(readme) if not link.endswith(".png")} - {path.name for path in READMES}


def links(path: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"\]\(([^)\s]+)\)", text))


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_relative_links_lead_somewhere(path: Path) -> None:
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, fragment = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        if fragment:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in map(anchor, headings), link
