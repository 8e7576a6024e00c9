"""Time limits of the exporter's server, in this process, where they can be made short."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from metrics_exporter.answers import Answers
from metrics_exporter.ring import Ring
from metrics_exporter.server import Server

LIMIT = 1.0


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server that gives a request one second."""
    server = Server(("127.0.0.1", 0), Answers(CollectorRegistry(), Ring(2), (), 0.2, 1.0), seconds_per_request=LIMIT)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_client_that_drips_its_request_is_cut(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.settimeout(0.05)
        begin = time.monotonic()
        end = None
        while end is None:
            try:
                client.sendall(b"X")
                if client.recv(100) == b"":
                    end = time.monotonic()
            except TimeoutError:  # still there: each byte came in time
                assert time.monotonic() < begin + 30
            except OSError:
                end = time.monotonic()
    assert end - begin >= LIMIT * 0.9


def test_a_client_that_asks_in_time_is_kept(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        for _ in range(4):  # longer than the limit, all in all
            client.sendall(b"GET /clock HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
            time.sleep(LIMIT * 0.4)
