"""The exporter's HTTP side: samples and clock, TLS and passwords, and clients that do it harm."""

from __future__ import annotations

import base64
import gzip
import http.client
import itertools
import json
import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import bcrypt
import pytest
import trustme
from exporter_process import Exporter, exporter, until


@pytest.fixture(scope="module")
def running() -> Iterator[Exporter]:
    """One that nobody harms."""
    with exporter() as started:
        yield started


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    """Users `prometheus`, `grafana` and `long`, whose passwords are `s:cret`, `ünicode` and 72 times x."""
    lines = [
        b"prometheus:" + bcrypt.hashpw(b"s:cret", bcrypt.gensalt(4)),
        b"# a comment",
        b"long:" + bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)),
        b"grafana:" + bcrypt.hashpw("ünicode".encode(), bcrypt.gensalt(4)).replace(b"$2b$", b"$2y$"),
    ]
    path = tmp_path / "users"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


# Samples and clock


def test_a_puller_gets_each_sample_once_and_in_order(running: Exporter) -> None:
    following = running.json("/samples")["next"]
    seen: list[int] = []
    while len(seen) < 8:
        told = running.json(f"/samples?since={following}")
        seen += [sample["seq"] for sample in told["samples"]]
        assert told["dropped"] == 0
        following = told["next"]
        time.sleep(0.05)
    assert seen == list(range(seen[0], seen[0] + len(seen)))


def test_samples_say_where_they_come_from(running: Exporter) -> None:
    told = running.json("/samples?since=0")
    assert {
        "host",
        "boot_id",
        "instance",
        "exporter_version",
        "interval_s",
        "window_s",
        "first",
        "next",
        "dropped",
    } < set(told)
    assert told["host"] == socket.gethostname()
    assert told["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert (told["interval_s"], told["window_s"]) == (0.1, 0.5)
    assert (told["first"], told["samples"][0]["seq"]) == (0, 0)
    assert {"nvml", "host", "core:0"} <= {device["device"] for device in told["devices"]}


def test_without_since_there_are_no_samples_but_where_to_go_on(running: Exporter) -> None:
    told = running.json("/samples")
    assert told["samples"] == []
    assert told["next"] >= told["first"]


def test_a_number_from_the_future_is_one_of_an_exporter_before(running: Exporter) -> None:
    told = running.json("/samples?since=1000000000")
    assert told["samples"][0]["seq"] == told["first"]
    assert told["dropped"] == 0


def test_what_the_ring_gave_up_is_counted() -> None:
    with exporter("--history", "1") as running:
        told = until(lambda: running.json("/samples?since=0"), lambda told: told["first"] >= 3)
    assert told["dropped"] == told["first"] == told["samples"][0]["seq"]
    assert len(told["samples"]) == 4  # two sources, two windows of half a second


def test_windows_follow_each_other_without_a_gap(running: Exporter) -> None:
    until(lambda: len(running.samples("host")), lambda count: count >= 4)
    samples = running.samples("host")
    for before, after in itertools.pairwise(samples):
        assert after["window_s"] == pytest.approx((after["mono_ns"] - before["mono_ns"]) / 1e9, abs=1e-6)
        assert after["wall_ns"] - before["wall_ns"] == pytest.approx(after["mono_ns"] - before["mono_ns"], abs=50e6)
    assert samples[0]["readings"] == 1


def test_the_clock_is_read_between_request_and_reply(running: Exporter) -> None:
    before = time.time_ns(), time.monotonic_ns()
    told = running.json("/clock")
    after = time.time_ns(), time.monotonic_ns()
    assert before[0] <= told["wall_ns"] <= after[0]
    assert before[1] <= told["mono_ns"] <= after[1]


# HTTP


@pytest.mark.parametrize(
    "query", ["since=-1", "since=x", "since=", "since=1&since=2", "since=1.5", "since=%D9%A3", "since=" + "9" * 5000]
)
def test_a_bad_since_is_refused(running: Exporter, query: str) -> None:
    response, body = running.request(f"/samples?{query}")
    assert response.status == 400
    assert "whole number" in json.loads(body)["error"]


def test_other_paths_are_404_and_name_those_that_there_are(running: Exporter) -> None:
    response, body = running.request("/nothing")
    assert response.status == 404
    assert "/metrics" in json.loads(body)["paths"]
    assert running.request("/")[0].status == 200


@pytest.mark.parametrize("path", ["/metrics", "/samples", "/clock", "/healthz", "/"])
def test_head_has_the_headers_of_get_alone(running: Exporter, path: str) -> None:
    response, body = running.request(path, method="HEAD")
    assert (response.status, body) == (200, b"")
    assert int(response.headers["Content-Length"]) > 10


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(running: Exporter, method: str) -> None:
    response, _ = running.request("/metrics", method=method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


def test_pages_are_compressed_for_those_who_ask(running: Exporter) -> None:
    response, body = running.request("/metrics", {"accept-encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert b"tokenswarm_host_cpu_cores" in gzip.decompress(body)
    assert running.request("/metrics")[0].headers["Content-Encoding"] is None


def test_openmetrics_is_served_to_those_who_ask(running: Exporter) -> None:
    response, body = running.request("/metrics", {"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_a_connection_is_kept_for_the_next_request(running: Exporter) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.port)
    try:
        for _ in range(3):
            connection.request("GET", "/clock")
            assert connection.getresponse().read()
            kept = connection.sock
            assert kept is not None
    finally:
        connection.close()


def test_a_body_is_not_taken_for_the_next_request(running: Exporter) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        client.sendall(b"GET /clock HTTP/1.1\r\nHost: x\r\nContent-Length: 27\r\n\r\nGET /secret HTTP/1.1\r\n\r\n....")
        reply = b"".join(iter(lambda: client.recv(65536), b""))
    assert reply.count(b"HTTP/1.1 ") == 1


def test_a_real_client_reads_it(running: Exporter) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    done = subprocess.run(
        ["curl", "-sS", "--fail", "--compressed", f"{running.url}/metrics"], capture_output=True, check=True
    )
    assert b"tokenswarm_exporter_info" in done.stdout


# Passwords and TLS


def test_passwords_are_asked_for_on_every_path(password_file: Path) -> None:
    with exporter("--basic-auth-file", str(password_file)) as running:
        for path in ("/metrics", "/samples", "/clock", "/healthz", "/", "/nothing"):
            response, body = running.request(path)
            assert (response.status, body) == (401, b"a name and a password are needed\n")
            assert response.headers["WWW-Authenticate"].startswith("Basic ")
        for user, password in (("prometheus", "s:cret"), ("grafana", "ünicode")):
            for _ in range(2):  # the second is remembered
                assert running.request("/metrics", basic(user, password))[0].status == 200
        for user, password in (
            ("prometheus", "ünicode"),
            ("nobody", "s:cret"),
            ("nobody", ""),
            ("", ""),
            ("prometheus", "s"),
        ):
            assert running.request("/metrics", basic(user, password))[0].status == 401
        for header in ("Bearer x", "Basic", "Basic !!!", "Basic cHJvbWV0aGV1cw==", "Basic AAA6"):
            assert running.request("/metrics", {"Authorization": header})[0].status == 401
        # bcrypt looks at 72 bytes; what comes after them must not be anything one likes.
        assert running.request("/metrics", basic("long", "x" * 72))[0].status == 200
        assert running.request("/metrics", basic("long", "x" * 73))[0].status == 401


@contextmanager
def encrypted(folder: Path) -> Iterator[tuple[Exporter, ssl.SSLContext]]:
    """An exporter with a certificate, and a client's view of that."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    with exporter("--tls-cert", str(folder / "server.pem")) as running:
        yield running, ssl.create_default_context(cafile=str(folder / "ca.pem"))


def test_it_serves_https(tmp_path: Path) -> None:
    with encrypted(tmp_path) as (running, context):
        assert running.url.startswith("https://")
        # One that says nothing, and one that speaks no TLS, come first and keep nobody waiting.
        with (
            socket.create_connection(("127.0.0.1", running.port)),
            socket.create_connection(("127.0.0.1", running.port)) as plain,
        ):
            plain.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            connection = http.client.HTTPSConnection("127.0.0.1", running.port, context=context, timeout=10)
            for _ in range(2):
                connection.request("GET", "/metrics")
                assert b"tokenswarm_exporter_info" in connection.getresponse().read()
            connection.close()


def test_handshakes_that_failed_take_nobodys_place(tmp_path: Path) -> None:
    with encrypted(tmp_path) as (running, context):
        connection = http.client.HTTPSConnection("127.0.0.1", running.port, context=context, timeout=10)
        connection.request("GET", "/clock")
        connection.getresponse().read()
        for _ in range(120):  # more than it keeps
            with socket.create_connection(("127.0.0.1", running.port), timeout=10) as plain, suppress(OSError):
                plain.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
                while plain.recv(100):  # until it is closed
                    pass
        connection.auto_open = False
        connection.request("GET", "/clock")
        assert connection.getresponse().read()
        connection.close()


# Clients that do harm


def test_storms_slow_clients_and_half_open_connections_do_not_stop_sampling(running: Exporter) -> None:
    chance = random.Random(5)
    before = running.samples("host")[-1]["seq"]
    held = []
    for number in range(150):  # more than it keeps
        client = socket.create_connection(("127.0.0.1", running.port), timeout=10)
        held.append(client)
        if number % 3:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n"[: chance.randrange(1, 30)])
    failures: list[BaseException] = []

    def storm() -> None:
        for _ in range(20):
            try:
                assert running.request(chance.choice(["/metrics", "/samples?since=0", "/clock"]))[0].status == 200
            except (OSError, http.client.HTTPException, AssertionError) as error:
                failures.append(error)

    scrapers = [threading.Thread(target=storm) for _ in range(8)]
    for scraper in scrapers:
        scraper.start()
    for scraper in scrapers:
        scraper.join()
    for client in held:
        client.close()
    assert failures == []
    until(lambda: running.samples("host")[-1]["seq"], lambda seq: seq > before + 4)
    page = running.page()
    for source in ("gpu", "host"):
        assert page.one("tokenswarm_exporter_failed_readings_total", source=source) == 0
    seqs = [sample["seq"] for sample in running.json("/samples?since=0")["samples"]]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


def test_the_quietest_connections_make_room(running: Exporter) -> None:
    quiet = [socket.create_connection(("127.0.0.1", running.port), timeout=10) for _ in range(100)]
    try:
        assert running.request("/clock")[0].status == 200
        assert quiet[0].recv(1) == b""  # closed, since it came first and said nothing
    finally:
        for client in quiet:
            client.close()
