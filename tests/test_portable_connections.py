"""The portable transport's time limits, connections and TLS, against servers that misbehave."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import gevent
import pytest
from caller import Authority, outcome, replies
from scripted_server import DONE, END, HEAD, REPLY, Peer, event, scripted

from tokenswarm.transport.base import Limits
from tokenswarm.transport.http import FastTransport
from tokenswarm.transport.portable import PortableTransport

# Time limits and endings

LIMITS = Limits(total=0.4, first_token=0.2, stall=0.15)


@pytest.mark.parametrize(
    ("sent", "error_class"),
    [
        (b"", "first_token_timeout"),
        (HEAD[:20], "first_token_timeout"),
        (HEAD, "first_token_timeout"),
        (HEAD + event("a"), "stall_timeout"),
        (HEAD + event("a") + b"5\r", "stall_timeout"),
    ],
)
def test_time_limits(clients: Any, sent: bytes, error_class: str) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(sent)
        peer.stop.wait(5)

    with scripted(script) as server:
        call = clients(server.url, LIMITS).call()
    assert outcome(call)[1] == error_class
    assert (call.timeline.end or 0) - call.timeline.start < 0.4e9


def test_total_time_limit_over_a_stream_that_never_stalls(clients: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD)
        while not peer.stop.wait(0.03):
            peer.send(event("a"))

    with scripted(script) as server:
        call = clients(server.url, LIMITS).call()
    assert outcome(call)[1] == "total_timeout"
    assert len(call.timeline.at) > 2, "what came before the limit is kept"


def test_total_time_limit_over_a_server_that_does_not_read(clients: Any) -> None:
    with scripted(lambda peer: peer.stop.wait(5)) as server:
        call = clients(server.url, LIMITS).call(prompt="y" * 20_000_000)
    assert outcome(call)[1] == "total_timeout"


def test_what_came_in_time_counts_though_it_was_read_late(clients: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        time.sleep(0.1)
        peer.send(REPLY)

    with scripted(script) as server:
        caller = clients(server.url, Limits(first_token=0.2))
        gevent.get_hub().loop.update_now()
        gevent.spawn_later(0.05, time.sleep, 0.3)
        assert outcome(caller.call()) == ("hello", None)


def test_a_server_that_answers_and_closes_while_we_still_send(clients: Any) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        peer.sock.shutdown(socket.SHUT_WR)
        peer.stop.wait(1)

    with scripted(script) as server:
        call = clients(server.url, Limits(total=5.0)).call(prompt="y" * 32_000_000)
    assert outcome(call)[1] == "http_4xx"
    assert call.exchange.status == 413


def test_a_server_that_resets_while_we_still_send(clients: Any) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        time.sleep(0.1)
        peer.reset()

    with scripted(script) as server:
        call = clients(server.url, Limits(total=5.0)).call(prompt="y" * 32_000_000)
    assert outcome(call)[1] in ("truncated", "connect")


def test_closing_a_client_ends_what_is_in_flight(clients: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + event("a"))
        peer.stop.wait(5)

    with scripted(script) as server:
        caller = clients(server.url)
        gevent.get_hub().loop.update_now()
        gevent.spawn_later(0.1, caller.client.close)
        began = time.monotonic()
        call = caller.call()
        assert time.monotonic() - began < 2
    assert outcome(call) == ("a", "client")
    assert not caller.client.busy


def test_a_retired_client_keeps_no_connection(clients: Any) -> None:
    with scripted(replies) as server:
        caller = clients(server.url)
        caller.client.retire()
        assert [caller.call().connection_reused for _ in range(2)] == [False, False]


def test_connect_timeout_and_nobody_there_and_no_such_name(clients: Any) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        refused = clients(url).call()
        listener.listen(0)
        fillers = []
        for _ in range(4):  # a full backlog drops what comes next
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        waited = clients(url, Limits(connect=0.2)).call()
        for filler in fillers:
            filler.close()
    unknown = clients("http://no-such-host.invalid:80").call()
    assert [outcome(call)[1] for call in (refused, waited, unknown)] == ["connect", "connect_timeout", "dns"]
    assert "Connection refused" in str(refused.exchange.error)
    assert not refused.connection_reused


def test_a_tls_handshake_that_never_ends_is_a_connect_timeout(clients: Any) -> None:
    with scripted(lambda peer: peer.stop.wait(5)) as server:
        call = clients(server.url.replace("http:", "https:"), Limits(connect=0.2)).call()
    assert outcome(call)[1] == "connect_timeout"


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + event("a")])
def test_a_reset_is_truncated(clients: Any, sent: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        if sent:
            peer.send(sent)
            time.sleep(0.03)
        peer.reset()

    with scripted(script) as server:
        call = clients(server.url).call()
    assert outcome(call) == ("a" if b"content" in sent else "", "truncated")
    assert "reset" in str(call.exchange.error)


def test_a_body_left_open_after_its_end_mark_is_a_reply(clients: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + event("hello") + DONE)
        if peer.number:
            peer.send(END)
        peer.stop.wait(5)

    with scripted(script) as server:
        caller = clients(server.url)
        call = caller.call()
        assert outcome(call) == ("hello", None)
        assert call.timeline.end == call.timeline.at[-1], "the wait for the body's end is not the reply's time"
        assert caller.call().connection_reused is False


def test_a_killed_greenlet_leaves_a_true_timeline_and_no_connection(clients: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + event("a"))
        assert peer.sock.recv(1) == b"", "closed at once"
        peer.sent.append(time.monotonic_ns())

    with scripted(script) as server:
        call = clients(server.url).prepare()
        greenlet = gevent.spawn(call.run)
        gevent.sleep(0.1)
        greenlet.kill()
        time.sleep(0.05)
        assert len(server.peers[0].sent) == 2
    assert (call.exchange.finished, len(call.timeline.at), call.attempts) == (False, 1, 1)


# Connections


def test_keep_alive_on_and_off(clients: Any) -> None:
    with scripted(replies) as server:
        caller = clients(server.url)
        calls = [caller.call() for _ in range(3)]
        assert [call.connection_reused for call in calls] == [False, True, True]
        assert [call.timeline.tcp_ns is None for call in calls] == [False, True, True]
        assert [call.remote_addr for call in calls] == [f"127.0.0.1:{server.port}"] * 3
        single = clients(server.url, keep_alive=False)
        assert [single.call().connection_reused for _ in range(3)] == [False] * 3
        assert len(server.peers) == 4


def test_a_kept_connection_that_died_is_tried_again_once(clients: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(REPLY)
        if peer.number == 0:
            peer.request()  # the next request arrives just as we give the connection up
            return
        peer.stop.wait()

    with scripted(script) as server:
        caller = clients(server.url)
        caller.call()
        second = caller.call()
        assert outcome(second) == ("hello", None)
        assert (second.attempts, second.connection_reused) == (2, False)


def test_a_fresh_connection_that_dies_is_not_tried_again(clients: Any) -> None:
    with scripted(lambda peer: peer.request()) as server:
        call = clients(server.url).call()
        assert (outcome(call)[1], call.attempts) == ("truncated", 1)
        assert len(server.peers) == 1


def test_an_idle_connection_that_the_server_closed_is_not_taken(clients: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(REPLY)

    with scripted(script) as server:
        caller = clients(server.url)
        caller.call()
        time.sleep(0.05)
        second = caller.call()
        assert (second.attempts, second.connection_reused, outcome(second)) == (1, False, ("hello", None))


def test_requests_of_one_user_at_the_same_time(clients: Any) -> None:
    def script(peer: Peer) -> None:
        while peer.request():
            time.sleep(0.1)
            peer.send(REPLY)

    with scripted(script) as server:
        caller = clients(server.url)
        for expected in (False, True):
            calls = [caller.prepare() for _ in range(5)]
            began = time.monotonic()
            gevent.joinall([gevent.spawn(call.run) for call in calls])
            assert time.monotonic() - began < 0.3
            assert [(outcome(call), call.connection_reused) for call in calls] == [(("hello", None), expected)] * 5
        assert len(server.peers) == 5


def test_the_environment_and_cookies_change_nothing(clients: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        while request := peer.request():
            seen.append(request)
            peer.send(REPLY.replace(b"\r\n", b"\r\nSet-Cookie: a=b\r\n", 1))

    with scripted(script) as server:
        caller = clients(server.url)
        assert [outcome(caller.call()) for _ in range(2)] == [("hello", None)] * 2
    assert seen[0] == seen[1]
    assert b"ookie" not in seen[1]


# TLS


def test_tls_is_verified_unless_told_otherwise(clients: Any, authority: Authority) -> None:
    with scripted(replies, authority.server()) as server:
        unknown = clients(server.url).call()
        assert outcome(unknown)[1] == "tls"
        assert "--ca-bundle" in str(unknown.exchange.error)
        trusted = clients(server.url, ca_bundle=authority.bundle)
        calls = [trusted.call() for _ in range(2)]
        assert [outcome(call) for call in calls] == [("hello", None)] * 2
        assert [call.timeline.tls_ns is None for call in calls] == [False, True]
        assert outcome(clients(server.url, insecure=True).call()) == ("hello", None)


def test_a_bundle_is_all_that_is_trusted(clients: Any, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    with scripted(replies, authority.server()) as server:
        assert outcome(clients(server.url, ca_bundle=other.bundle).call())[1] == "tls"
    caller = clients("https://127.0.0.1:9", ca_bundle=other.bundle)
    assert len(caller.transport.tls.get_ca_certs()) == 1, "requests' own bundle must not come beside it"


def test_tls_with_the_wrong_peer(clients: Any, authority: Authority) -> None:
    with scripted(replies, authority.server("example.com")) as server:
        assert outcome(clients(server.url, ca_bundle=authority.bundle).call())[1] == "tls"

    def plain(peer: Peer) -> None:
        peer.sock.recv(100)
        peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with scripted(plain) as server:
        call = clients(server.url.replace("http:", "https:")).call()
    assert outcome(call)[1] == "tls"
    assert "http://" in str(call.exchange.error)


def test_tls_cut_without_goodbye_is_truncated(clients: Any, authority: Authority) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + event("a"))
        time.sleep(0.03)
        peer.reset()

    with scripted(script, authority.server()) as server:
        assert outcome(clients(server.url, ca_bundle=authority.bundle).call()) == ("a", "truncated")


@pytest.mark.parametrize("kind", [PortableTransport, FastTransport])
def test_client_certificates_on_both_transports(clients: Any, authority: Authority, kind: Any) -> None:
    settings = {"ca_bundle": authority.bundle, "kind": kind}
    with scripted(replies, authority.server(clients=True)) as server:
        assert outcome(clients(server.url, **settings).call())[1] == "tls"
        call = clients(server.url, client_cert=authority.client(), **settings).call()
        assert outcome(call) == ("hello", None)
