"""The command `tokenswarm`, run as people run it; what doctor makes of machines that are not this one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import configargparse
import pytest
import run_directory_maker
from scripted_server import Peer, scripted
from simulator_process import Running, simulator

import tokenswarm
from tokenswarm import options
from tokenswarm.doctor import clocks, finding, machine
from tokenswarm.doctor.finding import Finding, Level

COMMAND = [sys.executable, "-m", "tokenswarm"]
INF = float("inf")


def clean(**variables: str) -> dict[str, str]:
    """The environment without anything that Locust or we would read, and then these."""
    ours = ("LOCUST_", "TOKENSWARM_", "LLM_", "OPENAI_", "SIMULATOR_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | variables


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """One command, to its end. Whatever it does, it must not end in a traceback."""
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=clean(**variables), capture_output=True, text=True, timeout=30
    )
    assert "Traceback" not in done.stderr
    return done


def doctor(folder: Path, *arguments: str, **variables: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """(exit status, {subject: (level, text)})."""
    done = run(folder, "doctor", *arguments, **variables)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout)
    lines = done.stdout.partition("\n\n")[0].splitlines()
    parts = [re.fullmatch(r"(ok|warn|fail) +(\S+(?: \S+)*?)  +(\S.*)", line) for line in lines]
    return done.returncode, {part[2]: (part[1], part[3]) for part in parts if part}


# The command itself


def test_help_teaches_and_every_command_is_in_it(tmp_path: Path) -> None:
    done = run(tmp_path, "--help")
    assert done.returncode == 0
    for name in ("options", "doctor", "simulate", "report", "compare", "merge", "energy", "sweep"):
        assert f"\n  {name} " in done.stdout
        assert f"\n  tokenswarm {name}" in done.stdout
    assert "locust -f locustfiles/chat.py" in done.stdout


def test_version(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout == f"tokenswarm {tokenswarm.__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("reprot",), ("--nonsense",), ("--",)])
def test_a_wrong_command_line_is_refused_with_the_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: tokenswarm COMMAND" in done.stderr
    assert "report" in done.stderr or arguments in (("--nonsense",), ("--",))


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "options"], cwd=tmp_path, env=clean(), stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


# options


@pytest.mark.parametrize("columns", [60, 200])
def test_options_lists_every_option_with_its_help_default_and_variable(tmp_path: Path, columns: int) -> None:
    parser = configargparse.ArgumentParser(add_help=False)
    options.add_arguments(parser)
    done = run(tmp_path, "options", COLUMNS=str(columns))
    assert (done.returncode, done.stderr) == (0, "")
    longest = max(map(len, done.stdout.splitlines()))
    assert columns - 20 < longest <= columns or longest <= 120 < columns
    entries = {text.split()[0]: " ".join(text.split()) for text in re.split(r"\n  (?=-)", done.stdout)}
    for action in parser._actions:
        entry = entries[action.option_strings[0]]
        assert action.help in entry
        assert re.search(rf"[ \[]{action.env_var}\]", entry)
        if action.default not in ("", False, []):
            assert f"[default: {action.default}; " in entry
    page = " ".join(done.stdout.split())
    for part in ("-u, --users", "-r, --spawn-rate", "-t, --run-time", "-H, --host", "--headless", "LLM_API_KEY"):
        assert part in page
    assert "[default: 30.0; LOCUST_STOP_TIMEOUT]" in page
    assert "[default: 127.0.0.1; LOCUST_WEB_HOST]" in page


# report and simulate


def test_report_writes_the_results_again_and_loads_no_locust(tmp_path: Path) -> None:
    path = run_directory_maker.write(tmp_path / "run", run_directory_maker.closed_loop(users=2, seconds=5))
    code = f"""
import sys
from tokenswarm.cli import main
status = main(["report", {str(path)!r}, "--no-html"])
print(status, sorted({{"locust", "gevent"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=clean(), capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert "TTFT" in done.stdout
    assert (path / "summary.json").exists()
    assert not (path / "report.html").exists()


def test_report_calls_itself_what_it_was_called(tmp_path: Path) -> None:
    done = run(tmp_path, "report", "--help")
    assert done.stdout.startswith("usage: tokenswarm report ")


def test_report_of_something_else_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "report", str(tmp_path))
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr


def test_simulate_serves_and_loads_no_locust(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "tokenswarm", "simulate", "--port", "0"]
    command += ["--announce", "--exit-with-stdin", "--model", "mine"]
    done = subprocess.run(command, cwd=tmp_path, env=clean(), input="", capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    assert json.loads(done.stdout)["model"] == "mine"
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "tokenswarm.simulator.server" in imported
    assert not [name for name in imported if name.partition(".")[0] in ("locust", "gevent")]


def test_help_after_a_command_is_the_commands_own(tmp_path: Path) -> None:
    shown = run(tmp_path, "simulate", "--help").stdout
    assert "--max-batch" in shown
    assert shown.startswith("usage: tokenswarm simulate ")
    assert "python -m" not in shown
    assert "--host" in run(tmp_path, "doctor", "--help").stdout


# doctor, of a server


def test_doctor_finds_a_good_server_good(tmp_path: Path, quick_simulator: Running) -> None:
    status, found = doctor(tmp_path, "--host", quick_simulator.url, "--users", "50")
    assert status == 0
    assert not [subject for subject, (level, _) in found.items() if level == "fail"]
    assert found["target"] == ("ok", f"{quick_simulator.url} answers, model 'simulator'")
    level, text = found["reply"]
    assert level == "ok"
    ttft = float(re.match(r"TTFT ([\d.]+) ms", text)[1])  # type: ignore[index]
    assert 4 <= ttft < 200  # its prefill takes 4 ms
    assert re.search(r"; (\d+) chunks within [\d.]+ ms; \1 tokens by the server's count$", text)
    for subject in ("python", "libraries", "open files", "cores", "load", "cgroup", "clock", "wall clock"):
        assert subject in found
    if sys.platform == "linux":
        assert re.search(r"is stamped \d+ µs after its send", found["kernel stamps"][1])


def test_doctor_without_a_host_says_simulator(tmp_path: Path) -> None:
    status, found = doctor(tmp_path)
    assert status == 0
    assert found["target"][0] == "warn"
    assert "embedded simulator" in found["target"][1]


def test_doctor_of_a_port_where_nobody_listens(tmp_path: Path) -> None:
    status, found = doctor(tmp_path, LOCUST_HOST="http://127.0.0.1:1")
    assert status == 1
    assert found["target"] == (
        "fail",
        "http://127.0.0.1:1: cannot connect to 127.0.0.1:1: Connection refused "
        "— is the server running, and is this its port?",
    )


def test_doctor_of_an_unknown_model_names_the_known_one(tmp_path: Path, quick_simulator: Running) -> None:
    status, found = doctor(tmp_path, "--host", quick_simulator.url, "--model", "missing")
    assert status == 1
    assert found["target"][0] == "fail"
    assert "'missing'" in found["target"][1]
    assert "the server lists 'simulator'" in found["target"][1]


def test_doctor_of_a_server_that_wants_a_key(tmp_path: Path) -> None:
    with simulator(tmp_path, "--require-key", env={"SIMULATOR_API_KEY": "right-key"}) as running:
        status, found = doctor(tmp_path, "--host", running.url)
    assert status == 1
    assert found["target"][0] == "fail"
    assert "HTTP 401" in found["target"][1]
    assert "LLM_API_KEY" in found["target"][1]


def test_what_a_server_says_moves_no_cursor_and_shows_no_key(tmp_path: Path) -> None:
    body = "\x1b[2J\x9b1A\u202eno such key:\r\n sk-mine\x07".encode()

    def refuse(peer: Peer) -> None:
        request = peer.request()
        if b"Authorization: Bearer sk-mine\r\n" in request:
            peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with scripted(refuse) as server:
        status, found = doctor(tmp_path, "--host", server.url, LLM_API_KEY="sk-mine")
    assert status == 1
    said = found["target"][1]
    assert "HTTP 403: \\x1b[2J\\x9b1A" in said
    assert "no such key:" in said
    assert "***" in said
    assert "sk-mine" not in said
    assert said.isprintable()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("http://server:8000",), "write the server's address as --host http://server:8000"),
        (("--hosst", "http://server:8000"), "Did you mean '--host'?"),
        (("--keep-alive", "maybe", "--connect-timeout", "soon"), "--connect-timeout 'soon': not a time"),
    ],
)
def test_doctor_refuses_a_wrong_command_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(tmp_path, "doctor", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


# doctor, of other machines


@pytest.mark.parametrize(
    ("soft", "hard", "users", "level", "part"),
    [
        (1024, 524288, None, Level.OK, "limit 1024 (hard 524288), raised to 10000 by Locust: room for 9900 users"),
        (1024, 524288, 9900, Level.OK, "room for 9900 users"),
        (1024, 524288, 9901, Level.FAIL, "but --users is 9901: ulimit -n 10001 in the shell"),
        (1024, 4096, None, Level.WARN, "room for 924 users; for more: ulimit -n 1100 in the shell"),
        (1024, 4096, 500, Level.OK, "room for 924 users"),
        (1024, 1024, 2000, Level.FAIL, "raise the hard limit to 2100"),
        (1_048_576, INF, None, Level.OK, "limit 1048576 (hard unlimited): room for 1048476 users"),
        (64, 64, None, Level.WARN, "room for 0 users"),
    ],
)
def test_open_files_are_judged_by_the_users_they_allow(
    soft: float, hard: float, users: int | None, level: Level, part: str
) -> None:
    judged = machine.judge_open_files(soft, hard, users)
    assert judged.level is level
    assert part in judged.text


def test_the_tightest_cgroup_counts(tmp_path: Path) -> None:
    inner = tmp_path / "v2" / "pod" / "container"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    (inner / "cpu.stat").write_text("usage_usec 5\nnr_periods 9\nnr_throttled 7\n")
    (inner.parent / "cpu.max").write_text("150000 100000\n")
    own = tmp_path / "own"
    own.write_text("0::/pod/container\n")
    assert machine.cgroup_cpu(tmp_path / "v2", own) == (1.5, 7)

    old = tmp_path / "v1" / "cpu" / "docker"
    old.mkdir(parents=True)
    (old / "cpu.cfs_quota_us").write_text("50000\n")
    (old / "cpu.cfs_period_us").write_text("100000\n")
    (old.parent / "cpu.cfs_quota_us").write_text("-1\n")
    (old.parent / "cpu.cfs_period_us").write_text("100000\n")
    own.write_text("4:memory:/elsewhere\n2:cpu,cpuacct:/docker\n0::/\n")
    assert machine.cgroup_cpu(tmp_path / "v1", own) == (0.5, 0)

    assert machine.cgroup_cpu(tmp_path / "none", tmp_path / "none") == (None, 0)


def test_libraries_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["msgspec==0.0.1", "gevent>=1.0", "psutil>=999", "no-such-library>=1", 'ruff==0; extra == "lint"']
    monkeypatch.setattr(machine, "requires", lambda name: [*asked, 'no-such-loop>=1; sys_platform != "win32"'])
    judged = machine.libraries()
    assert judged.level is Level.FAIL
    assert "msgspec is " in judged.text
    assert "but must be ==0.0.1" in judged.text
    assert "but must be >=999" in judged.text
    assert "no-such-library is missing" in judged.text
    for fine in ("gevent", "ruff", "no-such-loop"):
        assert fine not in judged.text


@pytest.mark.parametrize(
    ("judged", "level"),
    [
        (machine.judge_load(0.9, 2), Level.OK),
        (machine.judge_load(1.1, 2), Level.WARN),
        (machine.judge_ports(32768, 60999, None), Level.OK),
        (machine.judge_ports(50000, 51000, None), Level.WARN),
        (machine.judge_ports(32768, 60999, 30000), Level.FAIL),
        (clocks.judge_reading(60.0, 20), Level.OK),
        (clocks.judge_reading(1500.0, 20), Level.WARN),
        (clocks.judge_reading(60.0, 4_000_000), Level.WARN),
        (clocks.judge_reading(60.0, 0), Level.WARN),
        (clocks.judge_stability(300.0, 0.5), Level.OK),
        (clocks.judge_stability(1e6, 0.5), Level.WARN),
    ],
)
def test_limits(judged: Finding, level: Level) -> None:
    assert judged.level is level


def test_a_slow_clock_source_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "current_clocksource").write_text("hpet\n")
    (tmp_path / "available_clocksource").write_text("tsc hpet acpi_pm\n")
    judged = clocks.source(tmp_path)
    assert judged.level is Level.WARN
    assert f"echo tsc > {tmp_path}" in judged.text


def test_a_kernel_that_stamps_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "KERNEL_STAMPS", True)
    monkeypatch.setattr(clocks, "enable_stamps", lambda sock: True)
    monkeypatch.setattr(clocks, "_PATIENCE_SECONDS", 0.05)
    judged = clocks.kernel_stamps()
    assert judged.level is Level.WARN
    assert "none came" in judged.text


@pytest.mark.skipif(sys.platform != "linux", reason="the stamps are Linux's")
def test_the_stamp_lies_between_the_send_and_the_read() -> None:
    stamps = clocks.loopback_stamps()
    assert len(stamps) == 100
    # A few µs of slack: one clock is turned into the other.
    assert all(-20_000 < stamp.stamped <= stamp.read + 20_000 for stamp in stamps)
    assert {stamp.unread for stamp in stamps} == {0}


class _Stream:
    def __init__(self, terminal: bool) -> None:
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("terminal", "environ", "wanted"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(terminal: bool, environ: dict[str, str], wanted: bool) -> None:
    stream: Any = _Stream(terminal)
    assert finding.wants_colour(stream, environ) is wanted
    line = finding.fail("target", "gone").line(wanted)
    assert ("\x1b[" in line) is wanted
