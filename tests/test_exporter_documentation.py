"""What docs/exporter.md says is true: its commands run, its options, metrics and keys are the exporter's."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from exporter_process import ROOT, Exporter, FakeNvml, exporter, until
from prometheus_process import program, prometheus
from test_documentation import COMMANDS, blocks, commands, first_cells, section

from metrics_exporter.access import Passwords
from metrics_exporter.csv_file import COLUMNS
from metrics_exporter.gpu.metrics import GPU, MIG, NVML
from metrics_exporter.host.metrics import CGROUP, CORE, DISK, HOST, NETWORK, PROCESS, WATCHED
from metrics_exporter.metric import Kind, Metric
from metrics_exporter.options import parser

PAGE = ROOT / "docs" / "exporter.md"
HEADINGS = {
    "GPUs": GPU,
    "MIG instances": MIG,
    "The driver": NVML,
    "The machine": HOST,
    "Cores": CORE,
    "Disks": DISK,
    "Networks": NETWORK,
    "The container": CGROUP,
    "Processes": PROCESS,
    "Names that are watched": WATCHED,
}
SHOWN = sorted({*commands(PAGE), *(command for command in COMMANDS if "metrics_exporter" in command)})


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """One with everything in it."""
    folder = tmp_path_factory.mktemp("documented")
    nvml = FakeNvml(folder, "cards 0 1", "1 mig 1", "1 * process 7 1000", "0 process 7 1000")
    with exporter("--process", "python", "--csv", str(folder / "x.csv"), "--compat", "dcgm", env=nvml.env) as started:
        started.page_when(lambda page: page.gpu("sm_activity_ratio") is not None)
        until(lambda: len(started.samples("host")), lambda count: count >= 3)
        yield started


# Commands


@pytest.mark.parametrize("command", [words for words in SHOWN if words.startswith("python -m metrics_exporter")])
def test_it_starts_as_shown(command: str, tmp_path: Path) -> None:
    """As written, but for the port, where files are, and --help, which ends at once."""
    certificate = trustme.CA().issue_cert("gpu1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    (tmp_path / "users").write_text("prometheus:$2b$04$abcdefghijklmnopqrstuuuzIoYZ7Jco59lYXLNEpZ2Bih3u6Y4Pq\n")
    files = ("server.pem", "server.key", "users", "hardware.csv")
    options = [str(tmp_path / word) if word in files else word for word in shlex.split(command)[3:]]
    if "--help" in options:
        assert (
            subprocess.run([sys.executable, "-m", "metrics_exporter", "--help"], cwd=ROOT, check=False).returncode == 0
        )
        return
    if "--port" in options:
        del options[options.index("--port") : options.index("--port") + 2]
    with exporter(*options) as started:
        assert started.url.startswith("https:" if "--tls-cert" in options else "http:")
        assert started.stop() == 0


def test_the_line_for_the_password_file_makes_one(tmp_path: Path) -> None:
    (line,) = (command for command in SHOWN if command.startswith("python -c"))
    shell = ["sh", "-c", line.replace("python", shlex.quote(sys.executable), 1)]
    # In a session of its own there is no terminal to ask at: the password is read from standard input.
    subprocess.run(shell, cwd=tmp_path, input="secret\n", text=True, start_new_session=True, check=True)
    assert Passwords(tmp_path / "users").allow("Basic cHJvbWV0aGV1czpzZWNyZXQ=")


def test_curl_reads_samples_as_shown(running: Exporter) -> None:
    (line,) = (command for command in SHOWN if command.startswith("curl"))
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    words = shlex.split(line.replace("http://127.0.0.1:9435", running.url))
    assert b'"samples":[{' in subprocess.run(words, capture_output=True, check=True).stdout


def test_no_other_commands_are_shown() -> None:
    known = ("python -m metrics_exporter", "python -c", "curl", "pip install ./metrics_exporter")
    assert [command for command in SHOWN if not command.startswith(known)] == []
    assert (ROOT / "metrics_exporter" / "pyproject.toml").exists()  # built by test_exporter_command.py


# Options and metrics


def test_every_option_is_explained_with_its_default() -> None:
    actions = {flag: action for action in parser()._actions for flag in action.option_strings if flag != "-h"}
    text = section(PAGE, "## Running it")
    assert sorted(first_cells(text)) == sorted(actions)
    defaults = re.findall(r"^\| `--(interval|window|history)` \| ([\d.]+) s \|", text, re.MULTILINE)
    assert {name: float(told) for name, told in defaults} == {
        name: actions[f"--{name}"].default for name in ("interval", "window", "history")
    }


def row(metric: Metric) -> str:
    where = "both" if metric.page and metric.samples else "page" if metric.page else "samples"
    label = f" by `{metric.label}`" if metric.label else ""
    return f"| `{metric.name}`{label} | {metric.help} | {where} |"


@pytest.mark.parametrize(("heading", "kind"), HEADINGS.items(), ids=lambda value: str(value).split("(")[0])
def test_every_metric_is_explained(heading: str, kind: Kind) -> None:
    text = section(PAGE, f"### {heading}")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows == [row(metric) for metric in kind.metrics.values()]
    labels = " ".join(f"`{label}`" for label in kind.labels)
    assert f"`tokenswarm_{kind.prefix}…`" + (f", labels {labels}." if labels else ".") in text


def test_no_metric_is_on_the_page_that_is_not_in_a_table(running: Exporter) -> None:
    page = running.page()
    known = {f"tokenswarm_{kind.prefix}{name}" for kind in HEADINGS.values() for name in kind.metrics}
    known |= {"tokenswarm_gpu_info", "tokenswarm_nvml_info", "tokenswarm_mig_info"}
    ours = set(re.findall(r"^(tokenswarm_\w+)", page.text, re.MULTILINE))
    own = {name for name in ours if name.startswith("tokenswarm_exporter_")}
    assert ours - own <= known
    told = section(PAGE, "## Prometheus")
    for name in own - {"tokenswarm_exporter_info"}:
        assert name in told or f"…{name.removeprefix('tokenswarm_exporter')}" in told, name


def test_samples_and_devices_are_as_explained(running: Exporter) -> None:
    told = running.json("/samples?since=0")
    text = section(PAGE, "### Samples")
    keys = first_cells(text)
    assert set(keys) == set(told) | set(told["samples"][0])
    kinds = {device["device"]: device["kind"] for device in told["devices"]}
    metrics = {kind.name: kind.metrics for kind in HEADINGS.values()}
    for sample in told["samples"]:
        for device, values in sample["values"].items():
            if device in kinds:  # a watched process may have ended since
                for key in values:
                    assert metrics[kinds[device]][key.partition(".")[0]].samples
    assert set(running.json("/clock")) == {"wall_ns", "mono_ns"}
    assert f"`{','.join(COLUMNS)}`" in section(PAGE, "### CSV")


# Prometheus


def test_the_configuration_is_one(tmp_path: Path) -> None:
    (text,) = blocks(PAGE, "yaml")
    (tmp_path / "prometheus.yml").write_text(text)
    done = subprocess.run(
        [program("promtool"), "check", "config", tmp_path / "prometheus.yml"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_expression_gives_the_power_of_all_cards(tmp_path: Path) -> None:
    nvml = FakeNvml(tmp_path, "cards 0 1", "0 power 100000", "1 power 200000")
    (expression,) = blocks(PAGE, "promql")
    with exporter(env=nvml.env) as started:
        scrape = f"- {{job_name: gpu, static_configs: [{{targets: ['127.0.0.1:{started.port}']}}]}}\n"
        with prometheus(tmp_path, scrape) as server:
            shorter = expression.replace("1m", "3s")
            until(lambda: server.values(shorter), lambda told: told == [pytest.approx(300, rel=0.2)])
