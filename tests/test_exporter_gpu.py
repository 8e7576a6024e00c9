"""GPUs through the real pynvml, against a library in C that stands in for NVIDIA's."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exporter_process import Exporter, FakeNvml, Page, exporter, until, uuid

GIBI = 1024**3


@pytest.fixture
def nvml(tmp_path: Path) -> FakeNvml:
    """Two full cards, unless told otherwise."""
    return FakeNvml(tmp_path, "cards 0 1")


def whole(page: Page) -> bool:
    """Activity comes with the second sample."""
    return page.gpu("sm_activity_ratio") is not None


def first_energies(samples: list[dict[str, Any]]) -> Iterator[tuple[float, float, float]]:
    """Energy between each two samples, mean power meanwhile, and seconds."""
    for before, after in itertools.pairwise(samples):
        spent = (sample["values"][uuid(0)]["energy_joules_total"] for sample in (after, before))
        seconds = (after["mono_ns"] - before["mono_ns"]) / 1e9
        yield next(spent) - next(spent), after["mean"][uuid(0)]["power_watts"], seconds


# What is told


def test_every_value_has_its_base_unit(nvml: FakeNvml) -> None:
    nvml.say("cards 0", "0 utilization 37", "0 energy 0", "0 process 4242 1073741824")
    with exporter(env=nvml.env) as running:
        page = running.page_when(whole)
    told = {
        "up": 1,
        "utilization_ratio": 0.37,
        "memory_utilization_ratio": 0.2,
        "power_watts": 300,
        "power_instant_watts": 310,
        "power_limit_watts": 700,
        "sm_clock_hertz": 1.98e9,
        "memory_clock_hertz": 2.619e9,
        "graphics_clock_hertz": 1.975e9,
        "video_clock_hertz": 1.545e9,
        "memory_total_bytes": 80 * GIBI,
        "memory_used_bytes": 16 * GIBI,
        "memory_reserved_bytes": GIBI / 2,
        "memory_free_bytes": 63.5 * GIBI,
        "temperature_celsius": 55,
        "memory_temperature_celsius": 61,
        "performance_state": 0,
        "encoder_utilization_ratio": 0.05,
        "decoder_utilization_ratio": 0.07,
        "row_remap_pending": 0,
        "row_remap_failed": 0,
        "pcie_link_generation": 5,
        "pcie_link_width": 16,
        "pcie_replays_total": 4,
        "nvlink_links_active": 18,
        "nvlink_transmit_bytes_total": 1024 * 1024,
        "nvlink_receive_bytes_total": 2048 * 1024,
        "graphics_activity_ratio": 0.9,
        "sm_activity_ratio": 0.7,
        "sm_occupancy_ratio": 0.3,
        "tensor_activity_ratio": 0.45,
        "dram_activity_ratio": 0.6,
        "pcie_transmit_bytes_per_second": 100 * 1024 * 1024,
        "pcie_receive_bytes_per_second": 200 * 1024 * 1024,
        "mig_enabled": 0,
        "read_errors_total": 0,
    }
    assert {name: page.gpu(name) for name in told} == pytest.approx(told)
    assert page.gpu("process_memory_bytes", pid="4242") == GIBI
    assert page.gpu("ecc_errors_total", type="corrected") == 3
    assert page.gpu("ecc_errors_total", type="uncorrected") == 1
    assert page.gpu("remapped_rows", cause="corrected") == 2
    active = {labels["reason"] for labels in page.labels("tokenswarm_gpu_throttle_reason")}
    assert {reason for reason in active if page.gpu("throttle_reason", reason=reason)} == {"sw_power_cap"}


def test_a_card_is_known_by_index_uuid_name_bus_and_driver(nvml: FakeNvml) -> None:
    with exporter(env=nvml.env) as running:
        _, second = running.page_when(lambda page: page.gpu("up", 1)).labels("tokenswarm_gpu_info")
        devices = {device["device"]: device for device in running.json("/samples")["devices"]}
    assert second == {
        "gpu": "1",
        "uuid": uuid(1),
        "name": "Stand-in H100",
        "pci_bus_id": "00000000:02:00.0",
        "minor_number": "1",
        "driver_version": "570.00.01",
    }
    card = devices[uuid(1)]
    assert (card["kind"], card["index"], card["power_limit_watts"], card["mig"]) == ("gpu", 1, 700, False)
    assert card["memory_total_bytes"] == 80 * GIBI
    assert devices["nvml"]["cuda_version"] == "12.8"


def test_utilization_follows_the_card_for_as_long_as_it_runs(nvml: FakeNvml) -> None:
    with exporter(env=nvml.env) as running:
        for percent in (0, 100, 3, 64):
            nvml.say("cards 0", f"* utilization {percent}")
            running.page_when(lambda page, wanted=percent / 100: page.gpu("utilization_ratio") == wanted)


def test_what_is_read_once_a_window_stays_until_the_next(nvml: FakeNvml) -> None:
    with exporter("--window", "60", env=nvml.env) as running:
        page = running.page_when(lambda page: page.one("tokenswarm_exporter_readings_total", source="gpu") > 5)
        assert page.gpu("temperature_celsius") == 55
        assert page.gpu("mig_enabled") == 0
        assert len(running.samples("gpu")) == 1


@pytest.mark.slow
def test_a_window_has_the_mean_and_the_maximum_of_its_readings(nvml: FakeNvml) -> None:
    nvml.say("cards 0", "0 utilization square 10 90 0.4")
    with exporter("--window", "2", env=nvml.env) as running:
        samples = until(lambda: running.samples("gpu"), lambda found: len(found) >= 3)
    for sample in samples[1:]:
        assert sample["max"][uuid(0)]["utilization_ratio"] == 0.9
        assert 0.1 < sample["mean"][uuid(0)]["utilization_ratio"] < 0.9
        assert sample["values"][uuid(0)]["utilization_ratio"] in (0.1, 0.9)


@pytest.mark.slow
def test_the_energy_counter_grows_by_the_integral_of_power(nvml: FakeNvml) -> None:
    nvml.say("cards 0", "0 power 250000")
    with exporter(env=nvml.env) as running:
        samples = until(lambda: running.samples("gpu"), lambda found: len(found) >= 6)
    for joules, watts, seconds in first_energies(samples):
        assert watts == 250
        # The counter is read within the reading that the sample's time is the end of.
        assert joules == pytest.approx(watts * seconds, rel=0.25)
    first, last = samples[0], samples[-1]
    spent = last["values"][uuid(0)]["energy_joules_total"] - first["values"][uuid(0)]["energy_joules_total"]
    assert spent == pytest.approx(250 * (last["mono_ns"] - first["mono_ns"]) / 1e9, rel=0.05)


def test_eight_cards_are_eight_devices(tmp_path: Path) -> None:
    nvml = FakeNvml(tmp_path, "cards 0 1 2 3 4 5 6 7", *(f"{card} utilization {card}" for card in range(8)))
    with exporter(env=nvml.env) as running:
        page = running.page_when(lambda page: page.gpu("up", 7))
    assert [page.gpu("utilization_ratio", card) for card in range(8)] == [card / 100 for card in range(8)]


# What is not told


def test_what_a_card_does_not_support_is_absent_and_asked_once(nvml: FakeNvml) -> None:
    missing = ("power", "ecc_corrected", "encoder", "nvlink_tx", "memory_temperature", "gpm", "nvlinks")
    nvml.say("cards 0 1", *(f"0 {name} error 3" for name in missing), "0 memory_v2 error 3", "0 power_instant error 4")
    with exporter(env=nvml.env) as running:
        page = running.page_when(lambda page: page.gpu("sm_activity_ratio", 1) is not None)
        (card,) = (device for device in running.json("/samples")["devices"] if device["device"] == uuid(0))
        values = running.samples("gpu")[-1]["values"][uuid(0)]
    names = ("power_watts", "ecc_errors_total", "encoder_utilization_ratio", "nvlink_transmit_bytes_total",
             "memory_temperature_celsius", "sm_activity_ratio", "nvlink_links_active", "memory_reserved_bytes",
             "power_instant_watts")  # fmt: skip
    for name in names:
        assert page.gpu(name) is None, name
        assert name not in values
        assert page.gpu(name, 1, **({"type": "corrected"} if name == "ecc_errors_total" else {})) is not None, name
    assert page.gpu("memory_used_bytes") == 16 * GIBI
    assert set(card["unsupported"]) == {
        "power", "instant_power", "ecc", "encoder", "nvlink_traffic", "memory_temperature", "activity", "nvlinks"
    }  # fmt: skip
    assert nvml.calls("power", 0) == 1
    assert nvml.calls("power", 1) > 1
    assert page.gpu("read_errors_total") == 0


def test_functions_that_an_old_library_lacks_are_done_without(tmp_path: Path) -> None:
    new = ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetFieldValues",
           "nvmlGpmQueryDeviceSupport", "nvmlDeviceGetRemappedRows", "nvmlDeviceGetMigMode",
           "nvmlDeviceGetComputeRunningProcesses_v3")  # fmt: skip
    nvml = FakeNvml(tmp_path, "cards 0", without=new)
    with exporter(env=nvml.env) as running:
        page = running.page_when(lambda page: page.gpu("energy_joules_total") is not None)
    assert page.gpu("memory_used_bytes") == 16 * GIBI
    assert page.gpu("throttle_reason", reason="sw_power_cap") == 1
    assert page.one("tokenswarm_exporter_failed_readings_total", source="gpu") == 0
    for name in ("memory_reserved_bytes", "power_instant_watts", "sm_activity_ratio", "row_remap_pending"):
        assert page.gpu(name) is None, name


def test_a_field_that_fails_is_absent_counted_and_logged_once(nvml: FakeNvml) -> None:
    nvml.say("cards 0", "0 temperature error 999")
    with exporter(env=nvml.env) as running:
        page = running.page_when(lambda page: (page.gpu("read_errors_total") or 0) >= 3)
        assert page.gpu("temperature_celsius") is None
        assert page.gpu("power_watts") == 300
        assert running.log.count("temperature: Unknown Error") == 1
        nvml.say("cards 0")
        running.page_when(lambda page: page.gpu("temperature_celsius") == 55)


@pytest.mark.parametrize("answer", ["", "0 zeroes 1"])
def test_a_mig_parent_has_no_utilization_and_says_so(nvml: FakeNvml, answer: str) -> None:
    nvml.say("cards 0 1", "0 mig 2", "* process 77 1048576", answer)
    with exporter(env=nvml.env) as running:
        page = running.page_when(lambda page: page.gpu("up", 1))
        devices = {device["device"]: device for device in running.json("/samples")["devices"]}
        assert "is split by MIG: it has no utilization of its own" in running.log
    assert (page.gpu("mig_enabled", 0), page.gpu("mig_enabled", 1)) == (1, 0)
    for name in ("utilization_ratio", "memory_utilization_ratio", "encoder_utilization_ratio"):
        assert page.gpu(name, 0) is None, name
        assert page.gpu(name, 1) is not None, name
    assert page.gpu("power_watts", 0) == 300
    instances = page.labels("tokenswarm_mig_memory_used_bytes")
    assert [labels["gpu"] for labels in instances] == ["0", "0"]
    assert devices[uuid(0)]["mig"] is True
    (first, _) = (labels["uuid"] for labels in instances)
    assert (devices[first]["kind"], devices[first]["parent"]) == ("mig", 0)
    assert page.one("tokenswarm_mig_process_memory_bytes", uuid=first, pid="77") == 1048576


# What goes wrong


def test_without_a_driver_it_stays_up_and_says_so() -> None:
    with exporter() as running:
        page = running.page()
        assert page.one("tokenswarm_nvml_up") == 0
        assert page.labels("tokenswarm_gpu_up") == []
        (driver,) = (device for device in running.json("/samples")["devices"] if device["kind"] == "nvml")
        assert (driver["up"], driver["reason"]) == (False, "NVML Shared Library Not Found")
        assert page.one("tokenswarm_host_cpu_cores") == os.cpu_count()
        assert running.request("/healthz")[0].status == 200
        running.page_when(lambda page: page.one("tokenswarm_exporter_readings_total", source="gpu") > 20)
        assert running.log.count("no GPU metrics") == 1


def test_a_driver_that_is_loaded_later_is_found(nvml: FakeNvml) -> None:
    nvml.say("cards 0", "init 9")
    with exporter(env=nvml.env) as running:
        assert running.page().one("tokenswarm_nvml_up") == 0
        nvml.say("cards 0")
        page = running.page_when(lambda page: page.gpu("up"))
        assert page.one("tokenswarm_nvml_up") == 1
        assert "no GPU metrics: Driver Not Loaded" in running.log
        assert running.log.count("NVML answers") == 1


def test_a_driver_that_restarts_leaves_a_gap_and_comes_back(nvml: FakeNvml) -> None:
    nvml.say("cards 0", "epoch 1")
    with exporter(env=nvml.env) as running:
        running.page_when(whole)
        nvml.say("cards 0", "epoch 2", "init 9")
        down = running.page_when(lambda page: page.one("tokenswarm_nvml_up") == 0)
        assert down.gpu("up") == 0
        assert (down.gpu("power_watts"), down.gpu("energy_joules_total")) == (None, None)
        nvml.say("cards 0", "epoch 2")
        running.page_when(whole)
        assert running.page().one("tokenswarm_nvml_starts_total") == 2
        assert running.log.count("no GPU metrics: Uninitialized") == 1
        assert running.log.count("no GPU metrics: Driver Not Loaded") <= 1
        assert "does not answer" not in running.log  # the driver's fault, and no card's
        samples = running.samples("gpu")
    gap = [sample for sample in samples if sample["values"]["nvml"]["up"] == 0]
    assert gap
    assert all(sample["values"][uuid(0)] == {"up": 0} for sample in gap)


def test_a_lost_gpu_says_so_and_the_others_go_on(nvml: FakeNvml) -> None:
    with exporter(env=nvml.env) as running:
        running.page_when(whole)
        nvml.say("cards 0 1", "0 * error 15")
        lost = running.page_when(lambda page: page.gpu("up") == 0)
        assert lost.gpu("power_watts") is None
        assert lost.gpu("utilization_ratio") is None
        assert (lost.gpu("up", 1), lost.gpu("power_watts", 1)) == (1, 300)
        assert lost.one("tokenswarm_nvml_up") == 1
        (card,) = (device for device in running.json("/samples")["devices"] if device["device"] == uuid(0))
        assert card["lost"] == "GPU is lost"
        # It is looked for by starting NVML anew, which says nothing again and costs the other card nothing.
        running.page_when(lambda page: page.one("tokenswarm_nvml_starts_total") >= 2)
        running.page_when(lambda page: page.gpu("power_watts", 1) == 300)
        assert running.log.count("does not answer any more") == 1
        assert "NVML answers" not in running.log
        nvml.say("cards 0 1")
        running.page_when(lambda page: page.gpu("up") == 1 and page.gpu("power_watts") == 300)
        assert running.log.count(f"gpu 0 ({uuid(0)}) answers again") == 1


def test_a_gpu_that_calls_itself_lost_is_believed_whatever_else_it_answers(nvml: FakeNvml) -> None:
    nvml.say("cards 0 1", "0 temperature error 15")
    with exporter(env=nvml.env) as running:
        page = running.page_when(lambda page: page.gpu("up", 1))
        assert (page.gpu("up"), page.gpu("power_watts"), page.gpu("memory_used_bytes")) == (0, None, None)


def test_a_gpu_that_is_not_listed_any_more_is_lost_and_the_rest_keep_their_names(nvml: FakeNvml) -> None:
    nvml.say("cards 0 1", "1 power 111000", "epoch 1")
    with exporter(env=nvml.env) as running:
        running.page_when(lambda page: page.gpu("power_watts", 1) == 111)
        nvml.say("cards 1", "0 * error 15", "1 power 111000", "epoch 2")
        page = running.page_when(lambda page: page.gpu("up", 0) == 0 and page.gpu("up", 1) == 1)
        # Card 1 has index 0 now; its UUID, and so its series in samples, is the same.
        assert page.gpu("power_watts", 1, gpu="0") == 111
        known = until(lambda: running.samples("gpu")[-1]["values"][uuid(1)], lambda values: values["up"] == 1)
        assert known["power_watts"] == 111


def test_a_gpu_that_never_answered_is_counted_as_lost(nvml: FakeNvml) -> None:
    nvml.say("cards 0 1", "1 * error 15")
    with exporter(env=nvml.env) as running:
        page = running.page_when(lambda page: page.gpu("up"))
        assert page.one("tokenswarm_gpu_up", gpu="1") == 0
        nvml.say("cards 0 1")
        running.page_when(lambda page: page.gpu("up", 1) == 1)
        assert len(running.page().labels("tokenswarm_gpu_up")) == 2


@pytest.mark.slow
def test_nvml_that_hangs_keeps_nobody_waiting(nvml: FakeNvml) -> None:
    with exporter("--window", "0.5", env=nvml.env) as running:
        running.page_when(whole)
        nvml.say("cards 0", "0 temperature hang 9")
        stalled = running.page_when(lambda page: page.one("tokenswarm_exporter_source_up", source="gpu") == 0)
        # Old values would pass for new ones.
        assert stalled.gpu("power_watts") is None
        assert stalled.one("tokenswarm_exporter_source_up", source="host") == 1
        assert running.request("/healthz")[0].status == 503
        seen = len(running.samples("host"))
        until(lambda: len(running.samples("host")), lambda count: count > seen)
        nvml.say("cards 0")
        running.page_when(lambda page: page.gpu("power_watts") == 300)
        assert running.page().one("tokenswarm_exporter_missed_readings_total", source="gpu") > 10


def test_a_scrape_asks_nvml_nothing(nvml: FakeNvml, exporter_at_rest: Exporter) -> None:
    asked = nvml.calls("power")
    for _ in range(50):
        exporter_at_rest.page()
    assert nvml.calls("power") == asked


@pytest.fixture
def exporter_at_rest(nvml: FakeNvml) -> Iterator[Exporter]:
    """One that reads only at its start, for as long as a test takes."""
    with exporter("--interval", "60", "--window", "60", env=nvml.env) as running:
        running.page_when(lambda page: page.gpu("up"))
        yield running
