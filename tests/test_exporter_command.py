"""The exporter's command line, how it starts and ends, and what it brings along."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from exporter_process import ROOT, command, exporter

from metrics_exporter import __version__


def refused(*options: str) -> tuple[int, str]:
    """Exit status and standard error."""
    done = subprocess.run(command(*options), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


# What is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--interval", "0"), "0.05 to 60 seconds"),
        (("--interval", "fast"), "'fast' is not a number of seconds"),
        (("--interval", "nan"), "out of range"),
        (("--interval", "2", "--window", "1"), "--window 1: shorter than --interval 2"),
        (("--history", "86400", "--window", "1"), "more than 3600 windows"),
        (("--port", "65536"), "not a port"),
        (("--process", ""), "--process: a name or a number is needed"),
        (("--listen", ""), "--listen: an address is needed"),
        (("--compat", "zabbix"), "invalid choice"),
        (("--tls-key", "key.pem"), "--tls-key: give --tls-cert as well"),
        (("--tls-cert", "nowhere.pem"), "--tls-cert nowhere.pem: [Errno 2] No such file"),
        (("--basic-auth-file", "nowhere"), "--basic-auth-file nowhere: No such file"),
        (("--csv", "/nowhere/x.csv"), "--csv /nowhere/x.csv: No such file"),
        (("--csv", "/"), "--csv /: Is a directory"),
        (("--unknown",), "unrecognized arguments"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_wrong(options: tuple[str, ...], words: str) -> None:
    status, said = refused(*options)
    assert status == 2
    assert words in said


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    empty = tmp_path / "users"
    empty.write_text("# nobody\n")
    status, said = refused(
        "--tls-cert", str(broken), "--basic-auth-file", str(empty), "--window", "0.1", "--interval", "0.5"
    )
    assert status == 2
    for words in ("--window 0.1: shorter", f"--tls-cert {broken}: ", f"{empty}: there is no user in it"):
        assert words in said


@pytest.mark.parametrize("line", ["alice", "alice:{SHA}deadbeef", "alice:plain", ":$2b$04$", "alice:$2b$04$short"])
def test_a_password_that_is_not_bcrypt_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    users = tmp_path / "users"
    users.write_text(f"# who\n{line}\n")
    status, said = refused("--basic-auth-file", str(users))
    assert status == 2
    assert "line 2 is not NAME:HASH with a bcrypt hash" in said


def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        status, said = refused("--port", str(other.getsockname()[1]))
    assert status == 1
    assert "is in use by another program; choose another with --port" in said


def test_an_address_of_another_machine_is_refused() -> None:
    status, said = refused("--listen", "192.0.2.1", "--port", "0")
    assert status == 1
    assert "cannot listen on 192.0.2.1" in said


# How it starts and ends


def test_help_and_version_teach() -> None:
    told = subprocess.run(command("--help"), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for option in ("--interval", "--basic-auth-file", "--csv", "--process", "examples:"):
        assert option in told
    told = subprocess.run(command("--version"), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told.strip() == f"metrics_exporter {__version__}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0(number: signal.Signals) -> None:
    with exporter() as running:
        running.process.send_signal(number)
        assert running.process.wait(30) == 0
        assert "Traceback" not in running.log


def test_it_ends_with_its_standard_input_where_asked() -> None:
    with exporter() as running:
        assert running.process.stdin is not None
        running.process.stdin.close()
        assert running.process.wait(30) == 0


def test_it_listens_on_this_machine_alone_unless_told() -> None:
    with exporter() as running, pytest.raises(ConnectionRefusedError):
        # Every address of 127/8 is this machine, but only the first is listened on.
        socket.create_connection(("127.0.0.2", running.port), timeout=5)
    with exporter("--listen", "127.0.0.2") as running:
        assert running.url.startswith("http://127.0.0.2:")
        socket.create_connection(("127.0.0.2", running.port), timeout=5).close()


def test_it_listens_on_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with exporter("--listen", "::1") as running:
        assert running.url.startswith("http://[::1]:")
        socket.create_connection(("::1", running.port), timeout=5).close()


def test_whoever_listens_for_others_without_a_password_is_warned(tmp_path: Path) -> None:
    with exporter("--listen", "0.0.0.0") as running:
        assert "can read this; --basic-auth-file asks for a password" in running.log
    with exporter() as running:
        assert "can read this" not in running.log


# What it brings along


def test_neither_locust_nor_tokenswarm_is_loaded() -> None:
    code = (
        "import sys, metrics_exporter.command as c\n"
        "print([n for n in sys.modules if n.split('.')[0] in ('locust', 'gevent', 'tokenswarm', 'numpy', 'pandas')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    for path in (ROOT / "metrics_exporter").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) (tokenswarm|locust)", path.read_text(), re.MULTILINE), path


@pytest.mark.slow
def test_the_distribution_for_gpu_hosts_holds_all_of_it_and_needs_no_locust(tmp_path: Path) -> None:
    source = tmp_path / "metrics_exporter"
    shutil.copytree(
        ROOT / "metrics_exporter", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    )
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    subprocess.run([*build, "-w", tmp_path, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("tokenswarm_exporter-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("METADATA"))
        archive.extractall(tmp_path / "unpacked")
    sources = (path.relative_to(ROOT) for path in (ROOT / "metrics_exporter").rglob("*.py"))
    modules = {path.as_posix() for path in sources if "build" not in path.parts}  # pip leaves copies there
    assert {name for name in names if name.endswith(".py")} == modules
    assert f"Version: {__version__}" in metadata
    needs = set(re.findall(r"^Requires-Dist: ([\w-]+)", metadata, re.MULTILINE))
    assert needs == {"prometheus-client", "psutil", "nvidia-ml-py", "bcrypt"}
    # It starts from there, where no other part of the project is.
    done = subprocess.run(command("--version"), cwd=tmp_path / "unpacked", capture_output=True, text=True, check=True)
    assert __version__ in done.stdout


def test_the_suite_needs_whatever_the_exporter_needs() -> None:
    def needs(path: Path) -> set[str]:
        return set(tomllib.loads(path.read_text())["project"]["dependencies"])

    assert needs(ROOT / "metrics_exporter" / "pyproject.toml") <= needs(ROOT / "pyproject.toml")


def test_what_it_announces_is_json() -> None:
    with subprocess.Popen(
        command("--port", "0", "--announce", "--exit-with-stdin"),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert (told["pid"], told["url"][:17]) == (process.pid, "http://127.0.0.1:")
