"""Time limits of the exporter's server, in this process, where they can be made short."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
import trustme
from prometheus_client import CollectorRegistry

from metrics_exporter.answers import Answers
from metrics_exporter.ring import Ring
from metrics_exporter.server import Server

LIMIT = 1.0


def serving(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server that gives a request one second."""
    answers = Answers(CollectorRegistry(), Ring(2), (), 0.2, 1.0)
    server = Server(("127.0.0.1", 0), answers, tls=tls, seconds_per_request=LIMIT)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def port() -> Iterator[int]:
    yield from serving()


@pytest.fixture
def tls_port() -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    yield from serving(context)


def seconds_of_dripping(port: int, begin: bytes) -> float:
    """How long a client is borne that sends this, and then a byte now and then."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.settimeout(0.05)
        started = time.monotonic()
        client.sendall(begin)
        while time.monotonic() < started + 30:
            try:
                client.sendall(b"X")
                if client.recv(100) == b"":
                    break
            except TimeoutError:  # still there: each byte came in time
                continue
            except OSError:
                break
    return time.monotonic() - started


def test_a_client_that_drips_its_request_is_cut(port: int) -> None:
    assert LIMIT * 0.9 <= seconds_of_dripping(port, b"GET /") < 30


def test_a_client_that_drips_its_handshake_is_cut(tls_port: int) -> None:
    assert LIMIT * 0.9 <= seconds_of_dripping(tls_port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") < 30


def test_a_client_that_asks_in_time_is_kept(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        for _ in range(4):  # longer than the limit, all in all
            client.sendall(b"GET /clock HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
            time.sleep(LIMIT * 0.4)
