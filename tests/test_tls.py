"""The fast transport over TLS: the kernel's clock all the same, verified, and every way a handshake goes wrong.

All of it with both ways of reading: the receive thread and the event loop (fixture `reading`).
"""

from __future__ import annotations

import ssl
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trustme
from caller import outcome
from scripted_server import DONE, END, HEAD, REPLY, Peer, event, scripted

linux = pytest.mark.skipif(sys.platform != "linux", reason="kernel receive stamps are Linux's")


def replies(peer: Peer) -> None:
    while peer.request():
        peer.send(REPLY)


class Authority:
    """A certificate authority, the bundle a client trusts it by, and a server's side."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.bundle = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.bundle)

    def server(self, name: str = "127.0.0.1") -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(name).configure_cert(context)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@linux
def test_tls_rows_have_the_kernels_clock(callers: Any, authority: Authority) -> None:
    def script(peer: Peer) -> None:
        while peer.request():
            time.sleep(0.05)
            peer.send(HEAD + event("a"))
            time.sleep(0.05)
            peer.send(event("b", "stop") + DONE + END)

    with scripted(script, authority.server()) as server:
        caller = callers(server.url, ca_bundle=authority.bundle)
        calls = [caller.call() for _ in range(2)]
        sent = server.peers[0].sent
    assert [outcome(call) for call in calls] == [("ab", None)] * 2
    assert all(call.exchange.kernel_clock for call in calls)
    assert [call.connection_reused for call in calls] == [False, True]
    assert calls[0].timeline.tls_ns is not None
    for call, start in zip(calls, (0, 2), strict=True):
        assert all(at > true for at, true in zip(call.timeline.at, sent[start : start + 2], strict=True))


def test_an_unknown_authority_is_refused_with_advice(callers: Any, authority: Authority) -> None:
    with scripted(replies, authority.server()) as server:
        call = callers(server.url).call()
        assert outcome(call)[1] == "tls"
        assert "--ca-bundle" in str(call.exchange.error)
        assert outcome(callers(server.url, insecure=True).call()) == ("hello", None)


def test_a_certificate_for_another_name_is_refused(callers: Any, authority: Authority) -> None:
    with scripted(replies, authority.server("example.com")) as server:
        assert outcome(callers(server.url, ca_bundle=authority.bundle).call())[1] == "tls"


def test_tls_cut_without_goodbye_is_truncated(callers: Any, authority: Authority) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + event("a"))
        time.sleep(0.05)
        peer.reset()

    with scripted(script, authority.server()) as server:
        assert outcome(callers(server.url, ca_bundle=authority.bundle).call()) == ("a", "truncated")


def test_https_to_a_plain_port_and_http_to_a_tls_port(callers: Any, authority: Authority) -> None:
    def plain(peer: Peer) -> None:
        peer.sock.recv(100)
        peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with scripted(plain) as server:
        call = callers(server.url.replace("http:", "https:")).call()
        assert outcome(call)[1] == "tls"
        assert "http://" in str(call.exchange.error)
    with scripted(replies, authority.server()) as server:
        assert outcome(callers(server.url.replace("https:", "http:")).call())[1] in ("truncated", "malformed")


class Records:
    """A server's TLS over a plain peer, so that a test decides which bytes of which records go out together."""

    def __init__(self, peer: Peer, context: ssl.SSLContext) -> None:
        self._peer = peer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def request(self) -> bytes:
        """What the client says once hands are shaken."""
        while True:
            try:
                self._session.do_handshake()
                return self._session.read(65536)
            except ssl.SSLWantReadError:
                self._peer.sock.sendall(self._outgoing.read())
                self._incoming.write(self._peer.sock.recv(65536))

    def encrypt(self, *plain: bytes) -> bytes:
        """A record each."""
        for data in plain:
            self._session.write(data)
        return self._outgoing.read()


@pytest.mark.parametrize("rest", [b"", END[-1:]])
def test_records_that_come_together_are_all_handed_on(callers: Any, authority: Authority, rest: bytes) -> None:
    context = authority.server()

    def script(peer: Peer) -> None:
        records = Records(peer, context)
        assert records.request()
        end = event("c", "stop") + DONE + END
        data = records.encrypt(HEAD + event("a"), event("b"), end.removesuffix(rest), *filter(None, [rest]))
        peer.send(data[:-10])
        time.sleep(0.05)
        peer.send(data[-10:])
        peer.stop.wait(5)

    with scripted(script) as server:
        call = callers(server.url.replace("http:", "https:"), ca_bundle=authority.bundle).call()
    assert outcome(call) == ("abc", None)
    assert call.timeline.max_read_chunks == (2 if rest == b"" else 3), "cut inside a record: that one comes later"
