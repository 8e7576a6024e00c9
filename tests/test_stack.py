"""docker-compose.yml and deploy/: what the files say, and everything in them working together."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from contextlib import closing
from itertools import combinations
from pathlib import Path

import pytest
import requests
import yaml
from compose_stack import COMPOSE, Stack, compose
from exporter_process import FakeNvml, uuid
from locust_process import ROOT, read_rows
from prometheus_process import Prometheus, program
from test_web_ui import finished, rows_in

DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "load.json").read_text())
PANELS = DASHBOARD["panels"]
RATE_INTERVAL = "8s"
"""What Grafana makes of $__rate_interval at a scrape every 2 s."""


def expressions() -> dict[str, str]:
    """By panel and refId."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"].replace("$__rate_interval", RATE_INTERVAL)
        for panel in PANELS
        for target in panel["targets"]
    }


# The files


def test_the_compose_file_keeps_to_the_specification() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", COMPOSE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_compose_tool_reads_the_file() -> None:
    tool = shutil.which("docker-compose")
    if tool is None:
        pytest.skip("no docker-compose")
    done = subprocess.run(
        [tool, "--file", COMPOSE, "config"], capture_output=True, text=True, check=True, env={"TARGET": "http://gpu:1"}
    )
    told = yaml.safe_load(done.stdout)["services"]
    assert told.keys() == compose()["services"].keys()
    assert "--host http://gpu:1 " in " ".join(told["master"]["command"].split())


def test_ports_are_for_this_machine_only() -> None:
    published = [port for service in compose()["services"].values() for port in service.get("ports", ())]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_no_file_holds_a_secret_and_keys_come_from_the_environment() -> None:
    assert compose()["services"]["worker"]["environment"] == ["LLM_API_KEY", "OPENAI_API_KEY"]
    for path in (COMPOSE, *(path for path in DEPLOY.rglob("*") if path.is_file())):
        assert not re.search(r"(?i)(password|secret|token|key)\w*\s*[:=]\s*[\"']?\w", path.read_text()), path


def test_every_service_but_the_worker_has_a_health_check_and_what_it_mounts_is_there() -> None:
    services = compose()["services"]
    assert [name for name, service in services.items() if "healthcheck" not in service] == ["worker"]
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in compose()["volumes"]


def test_one_variable_names_the_target() -> None:
    assert "--host http://simulator:8000 " in compose()["services"]["master"]["command"]
    assert "--host http://gpu:1 " in compose(TARGET="http://gpu:1")["services"]["master"]["command"]


def test_the_image_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\w+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert users[-1:] == ["tokenswarm"]


# The dashboard


def test_panels_have_ids_titles_units_and_the_data_source_of_the_variable() -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    source = {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
    assert len({panel["id"] for panel in PANELS}) == len({panel["title"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["datasource"] == source
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"] in {"none", "s", "reqps", "percentunit", "watt"}
        refs = [target["refId"] for target in panel["targets"]]
        assert refs == sorted(set(refs))
        assert all(target["datasource"] == source and target["legendFormat"] for target in panel["targets"])


def test_panels_do_not_overlap_nor_leave_the_grid() -> None:
    places = [panel["gridPos"] for panel in PANELS]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart = any(a[p] + a[s] <= b[p] for a, b in ((one, other), (other, one)) for p, s in (("x", "w"), ("y", "h")))
        assert apart, (one, other)


def test_shares_and_seconds_have_their_units() -> None:
    for panel in PANELS:
        unit = panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            if "_seconds_bucket" in target["expr"]:
                assert unit == "s", panel["title"]
            if "_ratio" in target["expr"] or " / " in target["expr"].split("_seconds_sum")[0]:
                assert unit == "percentunit", panel["title"]


# All of it together


class Watched:
    """The stack, and what Prometheus knows of it."""

    def __init__(self, services: Stack) -> None:
        self._services = services
        self._prometheus = Prometheus("http://127.0.0.1:9090")

    def values(self, expression: str) -> list[float]:
        """Numbers that are some."""
        told = self._services.inside(lambda: self._prometheus.values(expression))
        return [value for value in told if not math.isnan(value)]

    def without_data(self) -> list[str]:
        """Targets of panels that show nothing."""
        return [name for name, expression in expressions().items() if not self.values(expression)]

    def tell(self, path: str, **form: str) -> None:
        """Locust's web page, as its buttons do."""
        answer = self._services.inside(lambda: requests.post(f"http://127.0.0.1:8089{path}", data=form, timeout=60))
        assert answer.json()["success"], answer.text


@pytest.mark.slow
def test_every_panel_shows_a_run_that_goes_through_all_services(tmp_path: Path) -> None:
    nvml = FakeNvml(tmp_path, "cards 0 1", "0 utilization 37")
    server = program("prometheus")
    try:
        services = Stack(tmp_path)
    except OSError as error:
        pytest.skip(f"a network namespace needs root and util-linux: {error}")
    with closing(services):
        services.start("simulator")
        # Both exporters have one command, so that here one process answers to both names.
        services.start("exporter", env=nvml.env)
        services.start("master")
        # The image's own command, but for where its files are.
        config, data = DEPLOY / "prometheus.yml", tmp_path / "prometheus"
        services.beside("prometheus", [server, f"--config.file={config}", f"--storage.tsdb.path={data}"])
        for name in ("simulator", "exporter", "gpu-exporter", "master", "prometheus"):
            services.until(lambda name=name: services.healthy(name))
        for number in (1, 2):
            services.start("worker", number)
        watched = Watched(services)
        services.until(lambda: watched.values('tokenswarm_workers{state="ready"}') == [2])
        services.until(lambda: watched.values("up") == [1] * 4)

        watched.tell("/swarm", user_count="10", spawn_rate="10")
        services.until(lambda: watched.without_data() == ["Errors A"])
        assert watched.values(expressions()["Users B"]) == [10]
        assert 0.37 in watched.values(expressions()["GPU utilization A"])
        assert watched.values(expressions()["Requests that went badly A"]) == [0]

        services.processes["simulator-1"].kill()
        services.until(lambda: "Errors A" not in watched.without_data())
        assert watched.values(expressions()["Requests that went badly A"])[0] > 0
        watched.tell("/stop")

        (run_dir,) = (tmp_path / "runs").iterdir()
        manifest = services.until(lambda: finished(run_dir))
        counted = 'sum(tokenswarm_requests_total{job="load"})'
        services.until(lambda: watched.values(counted) == [rows_in(run_dir)])
    assert manifest["target"]["host"] == "http://simulator:8000"
    assert [worker["clock"] for worker in manifest["workers"]] == ["kernel"] * 2
    assert {row["status"] for row in read_rows(run_dir)} >= {"ok", "failed"}
    assert uuid(0) in (run_dir / "hardware.csv").read_text()
