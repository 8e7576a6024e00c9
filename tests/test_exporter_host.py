"""What the exporter tells of the machine, of containers' limits, and of processes that are watched."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from exporter_process import Exporter, FakeNvml, exporter, until

from metrics_exporter.gpu.processes import memory_by_process
from metrics_exporter.host.cgroup import Cgroup, Limits
from metrics_exporter.host.rates import Rates

BUSY = "import sys, time\nprint(flush=True)\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


@pytest.fixture(scope="module")
def running() -> Iterator[Exporter]:
    with exporter() as started:
        yield started


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process that uses all of a core it can get."""
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


# The machine


def test_memory_load_and_descriptors_are_the_machines(running: Exporter) -> None:
    page = running.page()
    memory = psutil.virtual_memory()
    assert page.one("tokenswarm_host_memory_total_bytes") == memory.total
    assert page.one("tokenswarm_host_memory_available_bytes") == pytest.approx(memory.available, rel=0.2)
    assert page.one("tokenswarm_host_cpu_cores") == os.cpu_count()
    assert 0 < page.one("tokenswarm_host_cpu_limit_cores") <= (os.cpu_count() or 1)
    assert page.one("tokenswarm_host_load1") >= 0
    assert 0 < page.one("tokenswarm_host_open_file_descriptors") < page.one("tokenswarm_host_max_file_descriptors")


def test_cpu_time_is_the_kernels_own(running: Exporter) -> None:
    before = psutil.cpu_times()
    page = running.page_when(lambda page: page.one("tokenswarm_host_cpu_seconds_total", mode="idle") > 0)
    assert page.one("tokenswarm_host_cpu_seconds_total", mode="user") == pytest.approx(before.user, abs=10)
    assert not page.all("tokenswarm_host_cpu_seconds_total", mode="guest")  # in user already
    busy = [page.one("tokenswarm_host_core_busy_seconds_total", core=str(core)) for core in range(os.cpu_count() or 1)]
    modes = ("user", "nice", "system", "irq", "softirq", "steal")
    assert sum(busy) == pytest.approx(sum(getattr(before, mode) for mode in modes), rel=0.05)


def test_averages_and_rates_are_in_samples_and_not_on_the_page(
    running: Exporter, busy: subprocess.Popen[bytes]
) -> None:
    def host() -> dict[str, dict[str, float]]:
        values: dict[str, dict[str, float]] = running.samples("host")[-1]["values"]
        return values

    busy_enough = 0.5 / (os.cpu_count() or 1)
    values = until(host, lambda values: values["host"].get("cpu_busy_ratio", 0) > busy_enough)
    assert sum(ratio for key, ratio in values["host"].items() if key.startswith("cpu_mode_ratio.")) == pytest.approx(1)
    assert all(0 <= values[f"core:{core}"]["busy_ratio"] <= 1 for core in range(os.cpu_count() or 1))
    rates = [key for keys in values.values() for key in keys if key.endswith("_per_second")]
    assert rates
    page = running.page()
    assert "_per_second" not in page.text
    assert "busy_ratio" not in page.text
    assert any(labels["interface"] != "lo" for labels in page.labels("tokenswarm_host_network_receive_bytes_total"))


def test_rates_leave_out_a_counter_that_went_back_and_the_first_sight() -> None:
    rates = Rates()
    told = []
    for counter, at in ((100.0, 1.0), (150.0, 3.0), (20.0, 4.0), (30.0, 5.0)):
        told.append(rates.per_second("disk", "bytes", counter, at))
        rates.turn()
    assert told == [None, 25.0, None, 10.0]
    rates.turn()
    assert rates.per_second("disk", "bytes", 40.0, 6.0) is None  # it was gone in between


# Processes


def test_a_process_is_watched_by_number(busy: subprocess.Popen[bytes]) -> None:
    pid = str(busy.pid)
    with exporter("--process", pid) as running:
        page = running.page_when(lambda page: page.all("tokenswarm_process_threads", pid=pid))
        used = until(
            lambda: running.samples("host")[-1]["values"][f"process:{pid}:{pid}"],
            lambda values: values.get("cpu_usage_cores", 0) > 0.1,
        )
        again = running.page_when(lambda page: page.one("tokenswarm_process_cpu_seconds_total", pid=pid) > 0.1)
    assert page.one("tokenswarm_process_threads", process=pid, pid=pid) == 1
    assert page.one("tokenswarm_process_resident_memory_bytes", pid=pid) > 1e6
    assert page.one("tokenswarm_process_open_file_descriptors", pid=pid) >= 3
    assert page.one("tokenswarm_watched_processes", process=pid) == 1
    assert used["cpu_usage_cores"] <= 1.3
    assert again.all("tokenswarm_process_gpu_memory_bytes") == []  # none is not 0


@pytest.mark.slow
def test_processes_are_found_by_name_once_they_start_and_missed_when_they_end(tmp_path: Path) -> None:
    program = tmp_path / "model-server"
    program.symlink_to(Path(sys.executable).resolve())
    with exporter("--process", "model-server") as running:
        assert running.page().one("tokenswarm_watched_processes", process="model-server") == 0
        assert running.log.count("--process model-server: there is no such process now") == 1
        servers = [subprocess.Popen([program, "-c", BUSY], stdout=subprocess.DEVNULL) for _ in range(2)]
        try:
            page = running.page_when(lambda page: page.one("tokenswarm_watched_processes", process="model-server") == 2)
            pids = {labels["pid"] for labels in page.labels("tokenswarm_process_threads")}
            assert pids == {str(server.pid) for server in servers}
        finally:
            for server in servers:
                server.kill()
                server.wait()
        gone = running.page_when(lambda page: page.one("tokenswarm_watched_processes", process="model-server") == 0)
        assert gone.labels("tokenswarm_process_threads") == []


def test_a_module_is_found_by_its_name_and_the_exporter_is_not(tmp_path: Path) -> None:
    package = tmp_path / "inference_server"
    package.mkdir()
    (package / "api.py").write_text(BUSY)
    server = subprocess.Popen([sys.executable, "-m", "inference_server.api"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        with exporter("--process", "inference_server", "--process", "metrics_exporter") as running:
            page = running.page_when(lambda page: page.all("tokenswarm_process_threads"))
            named = [(labels["process"], labels["pid"]) for labels in page.labels("tokenswarm_process_threads")]
            own = [pid for process, pid in named if process == "metrics_exporter"]
            assert ("inference_server", str(server.pid)) in named
            assert str(running.process.pid) not in own
    finally:
        server.kill()
        server.wait()


def test_gpu_memory_of_a_watched_process_is_its_share_of_all_cards(
    tmp_path: Path, busy: subprocess.Popen[bytes]
) -> None:
    pid = str(busy.pid)
    nvml = FakeNvml(tmp_path, "cards 0 1", f"0 process {pid} 1000", f"1 process {pid} 500", "1 process 1 7")
    with exporter("--process", pid, env=nvml.env) as running:
        if Path("/proc/self/ns/pid").stat().st_ino != 0xEFFFFFFC:
            # In a container's own number space the driver's numbers mean other processes.
            page = running.page_when(lambda page: page.gpu("process_memory_bytes", pid=pid))
            assert page.all("tokenswarm_process_gpu_memory_bytes") == []
        else:
            page = running.page_when(lambda page: page.all("tokenswarm_process_gpu_memory_bytes"))
            assert page.one("tokenswarm_process_gpu_memory_bytes", pid=pid) == 1500


def test_a_process_on_a_mig_instance_is_counted_once() -> None:
    listed = {
        "GPU-a": {"process_memory_bytes.1": 100.0, "power_watts": 5.0},
        "MIG-a": {"process_memory_bytes.1": 100.0, "process_memory_bytes.2": 30.0},
        "MIG-b": {"process_memory_bytes.2": 4.0},
    }
    assert memory_by_process(listed) == {1: 100.0, 2: 34.0}


# Limits of containers


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def cgroup(tmp_path: Path, membership: str, files: dict[str, str]) -> Limits:
    told = tree(tmp_path, {"membership": membership})
    return Cgroup(tree(tmp_path / "fs", files), told / "membership").read()


def test_limits_of_version_2_are_the_tightest_on_the_way_up(tmp_path: Path) -> None:
    limits = cgroup(
        tmp_path,
        "0::/pod/container",
        {
            "cgroup.controllers": "cpu memory",
            "pod/cpu.max": "150000 100000",
            "pod/memory.max": "1000000",
            "pod/container/cpu.max": "max 100000",
            "pod/container/memory.max": "4000000",
            "pod/container/memory.current": "700000",
            "pod/container/memory.stat": "anon 1\ninactive_file 300000",
            "pod/container/cpu.stat": "usage_usec 2500000\nthrottled_usec 500000",
        },
    )
    assert limits == Limits(1.5, 1e6, 7e5, 3e5, 2.5, 0.5)


def test_a_container_that_sees_itself_as_the_root_is_read_there(tmp_path: Path) -> None:
    files = {"cgroup.controllers": "cpu", "cpu.max": "50000 100000", "memory.max": "max"}
    for number, membership in enumerate(("0::/", "0::/docker/of-the-host")):
        limits = cgroup(tmp_path / str(number), membership, files)
        assert (limits.cpu_cores, limits.memory_bytes) == (0.5, None)


def test_limits_of_version_1_are_read_from_each_controller(tmp_path: Path) -> None:
    limits = cgroup(
        tmp_path,
        "5:cpu,cpuacct:/box\n4:memory:/box\n1:name=systemd:/x",
        {
            "cpu,cpuacct/box/cpu.cfs_quota_us": "200000",
            "cpu,cpuacct/box/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/box/cpu.stat": "nr_periods 5\nthrottled_time 1500000000",
            "cpu,cpuacct/box/cpuacct.usage": "4000000000",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/cpu.cfs_period_us": "100000",
            "memory/box/memory.limit_in_bytes": "2000000",
            "memory/box/memory.usage_in_bytes": "900000",
            "memory/box/memory.stat": "cache 5\ntotal_inactive_file 100000",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )
    assert limits == Limits(2.0, 2e6, 9e5, 1e5, 4.0, 1.5)


@pytest.mark.parametrize("membership", ["", "0::/x", "garbage", "4:memory:/gone"])
def test_without_limits_nothing_is_told(tmp_path: Path, membership: str) -> None:
    assert cgroup(tmp_path, membership, {"memory/other": "1"}) == Limits()


def test_a_limit_of_this_machines_own_cgroup_is_honoured() -> None:
    """With the kernel's cgroups, where this user may make one (version 1, as root)."""
    folder = Path(f"/sys/fs/cgroup/memory/exporter-test-{os.getpid()}")
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(256 * 1024 * 1024))
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    join = ["sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh"]
    try:
        with exporter(prefix=join) as running:
            page = running.page()
        assert page.one("tokenswarm_cgroup_memory_limit_bytes") == 256 * 1024 * 1024
        assert page.one("tokenswarm_host_memory_limit_bytes") == 256 * 1024 * 1024
        assert 0 < page.one("tokenswarm_host_memory_available_bytes") < 256 * 1024 * 1024
        assert page.one("tokenswarm_host_memory_total_bytes") == psutil.virtual_memory().total
    finally:
        give_up = time.monotonic() + 10
        while time.monotonic() < give_up:
            try:
                folder.rmdir()
                break
            except OSError:  # its processes are still leaving
                time.sleep(0.05)
