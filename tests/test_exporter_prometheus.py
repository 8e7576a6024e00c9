"""The exporter's page, as Prometheus itself reads it."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import bcrypt
import pytest
import trustme
from exporter_process import FakeNvml, exporter, until, uuid
from prometheus_process import check_metrics, prometheus
from pytest import approx

POWER = "0 power square 100000 300000 0.5"
"""200 W on average."""


def test_promtool_finds_no_fault_with_the_page(tmp_path: Path) -> None:
    nvml = FakeNvml(tmp_path, "cards 0 1", "1 mig 2", "0 process 42 1048576")
    with exporter("--process", "python", "--csv", str(tmp_path / "x.csv"), env=nvml.env) as running:
        page = running.page_when(lambda page: page.gpu("sm_activity_ratio") is not None)
    assert check_metrics(page.text) == ""
    assert "tokenswarm_mig_memory_used_bytes" in page.text


def test_the_page_keeps_to_the_conventions() -> None:
    with exporter() as running:
        text = running.page().text
    for name, type in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        assert name.startswith(("tokenswarm_", "process_")), name
        assert (type == "counter") == name.endswith("_total"), name
        assert not re.search(r"percent|milli|_mean|_max$|_min$|average", name), name
    assert not re.search(r"^[^#\n]* \S+ \d+$", text, re.MULTILINE)  # no timestamps of its own


@pytest.mark.slow
def test_prometheus_gets_values_rates_and_units(tmp_path: Path) -> None:
    nvml = FakeNvml(tmp_path, "cards 0 1", POWER, "0 utilization 37", "1 power 100000")
    with exporter(env=nvml.env) as running:
        scrape = f"- {{job_name: gpu, static_configs: [{{targets: ['127.0.0.1:{running.port}']}}]}}\n"
        with prometheus(tmp_path, scrape) as server:
            until(lambda: server.values("count_over_time(up[1m])"), lambda counts: counts and counts[0] >= 24)
            assert server.values("up") == [1]
            assert server.values(f'tokenswarm_gpu_utilization_ratio{{uuid="{uuid(0)}"}}') == [0.37]
            # Watts are joules a second: the counter's rate is the mean power.
            one = f'rate(tokenswarm_gpu_energy_joules_total{{uuid="{uuid(0)}"}}[4s])'
            until(lambda: server.values(one), lambda told: told == [approx(200, rel=0.15)])
            both = "sum(rate(tokenswarm_gpu_energy_joules_total[4s]))"
            until(lambda: server.values(both), lambda told: told == [approx(300, rel=0.15)])
            named = server.values(
                'tokenswarm_gpu_memory_used_bytes * on(uuid) group_left(name) tokenswarm_gpu_info{name="Stand-in H100"}'
            )
            assert named == [16 * 1024**3] * 2
            # All modes together are the machine's cores.
            cores = server.values("tokenswarm_host_cpu_cores")[0]
            seconds = "sum(rate(tokenswarm_host_cpu_seconds_total[4s]))"
            until(lambda: server.values(seconds), lambda told: told == [approx(cores, rel=0.2)])
            metadata = server.ask("metadata")
            assert metadata["tokenswarm_gpu_energy_joules"][0]["type"] == "counter"
            assert metadata["tokenswarm_gpu_power_watts"][0]["type"] == "gauge"
            # A card that is lost leaves a gap in its series.
            nvml.say("cards 0 1", "0 * error 15")
            until(lambda: server.values("tokenswarm_gpu_up"), lambda ups: sorted(ups) == [0, 1])
            assert len(server.values("tokenswarm_gpu_power_watts")) == 1


@pytest.mark.slow
def test_prometheus_scrapes_over_tls_with_a_password(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server_cert = authority.issue_cert("127.0.0.1")
    server_cert.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    server_cert.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "users").write_bytes(b"prometheus:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(10)) + b"\n")
    options = ("--tls-cert", "cert.pem", "--tls-key", "key.pem", "--basic-auth-file", "users")
    told = [word if word.startswith("--") else str(tmp_path / word) for word in options]
    with exporter(*told) as running:
        target = f"static_configs: [{{targets: ['127.0.0.1:{running.port}']}}]"
        tls = f"scheme: https, tls_config: {{ca_file: {tmp_path / 'ca.pem'}}}"
        right = "basic_auth: {username: prometheus, password: secret}"
        wrong = "basic_auth: {username: prometheus, password: guess}"
        scrape = f"- {{job_name: right, {tls}, {right}, {target}}}\n- {{job_name: wrong, {tls}, {wrong}, {target}}}\n"
        with prometheus(tmp_path, scrape) as server:
            until(lambda: server.values('up{job="right"}'), lambda up: up == [1])
            assert until(lambda: server.values('up{job="wrong"}'), bool) == [0]
            failed = next(t for t in server.ask("targets")["activeTargets"] if t["labels"]["job"] == "wrong")
            assert re.search("401|deadline", failed["lastError"])
    assert base64.b64encode(b"prometheus:secret").decode() not in running_log(tmp_path)


def running_log(folder: Path) -> str:
    return (folder / "prometheus.log").read_text()


# --compat dcgm


def test_dcgm_names_labels_and_units_are_served_beside_ours(tmp_path: Path) -> None:
    nvml = FakeNvml(tmp_path, "cards 0 3", "0 utilization 37", "3 utilization error 3")
    with exporter("--compat", "dcgm", env=nvml.env) as running:
        page = running.page_when(lambda page: page.all("DCGM_FI_PROF_DRAM_ACTIVE"))
        host = running.json("/samples")["host"]
    told = {
        "GPU_UTIL": 37, "MEM_COPY_UTIL": 20, "FB_USED": 16384, "FB_FREE": 65024, "FB_RESERVED": 512,
        "POWER_USAGE": 300, "GPU_TEMP": 55, "MEMORY_TEMP": 61, "SM_CLOCK": 1980, "MEM_CLOCK": 2619, "ENC_UTIL": 5,
        "DEC_UTIL": 7, "PCIE_REPLAY_COUNTER": 4, "CORRECTABLE_REMAPPED_ROWS": 2, "UNCORRECTABLE_REMAPPED_ROWS": 0,
        "ROW_REMAP_FAILURE": 0,
    }  # fmt: skip
    assert {name: page.one(f"DCGM_FI_DEV_{name}", UUID=uuid(0)) for name in told} == told
    assert page.one("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", gpu="0") == 0.45
    millijoules = page.one("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", gpu="0")
    assert millijoules == approx(1000 * (page.gpu("energy_joules_total") or 0))
    assert page.labels("DCGM_FI_DEV_POWER_USAGE")[1] == {
        "gpu": "1",
        "UUID": uuid(3),
        "pci_bus_id": "00000000:04:00.0",
        "device": "nvidia3",
        "modelName": "Stand-in H100",
        "Hostname": host,
        "hostname": host,
        "DCGM_FI_DRIVER_VERSION": "570.00.01",
    }
    assert page.all("DCGM_FI_DEV_GPU_UTIL", gpu="1") == []
    assert page.gpu("utilization_ratio") == 0.37


def test_without_compat_there_is_no_such_name(tmp_path: Path) -> None:
    with exporter(env=FakeNvml(tmp_path, "cards 0").env) as running:
        assert "DCGM" not in running.page_when(lambda page: page.gpu("up")).text
