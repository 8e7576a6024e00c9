"""Proxies, HTTP and SOCKS, and the options that name them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from caller import Authority, outcome, replies
from locust_process import headless
from proxies import HttpProxy, SocksProxy
from scripted_server import REPLY, scripted
from simulator_process import simulator

from tokenswarm.errors import OptionError
from tokenswarm.options import parse, proxy_url, secret_values
from tokenswarm.run import make_transport
from tokenswarm.transport.base import Limits
from tokenswarm.transport.origin import parse_origins

# Proxies


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("secure_proxy", [False, True])
def test_an_http_proxy(clients: Any, authority: Authority, secure: bool, secure_proxy: bool) -> None:
    proxy = HttpProxy()
    tls = authority.server()
    with scripted(replies, tls if secure else None) as server, scripted(proxy, tls if secure_proxy else None) as via:
        caller = clients(server.url, proxy=via.url, ca_bundle=authority.bundle)
        calls = [caller.call() for _ in range(2)]
        assert len(server.peers) == len(via.peers) == 1
    assert [outcome(call) for call in calls] == [("hello", None)] * 2
    assert [call.connection_reused for call in calls] == [False, True]
    assert calls[0].remote_addr == f"127.0.0.1:{via.port}"
    assert calls[0].exchange.response_bytes == len(REPLY), "the proxy's own answer is no part of the reply"
    assert (calls[0].timeline.tls_ns is None) == (not secure and not secure_proxy)
    assert calls[0].request_bytes >= calls[1].request_bytes
    if secure:
        assert [line.rpartition(" ")[0] for line in proxy.asked] == [f"CONNECT 127.0.0.1:{server.port}"]
    else:
        assert proxy.asked == [f"POST {server.url}/v1/chat/completions HTTP/1.1"] * 2


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@pytest.mark.parametrize("secure", [False, True])
def test_a_socks_proxy(clients: Any, authority: Authority, scheme: str, secure: bool) -> None:
    proxy = SocksProxy(("me", "p@ss"))
    with scripted(replies, authority.server("localhost") if secure else None) as server, scripted(proxy) as via:
        url = server.url.replace("127.0.0.1", "localhost")
        named = f"{scheme}://me:p%40ss@127.0.0.1:{via.port}"
        caller = clients(url, proxy=named, ca_bundle=authority.bundle)
        calls = [caller.call() for _ in range(2)]
    assert [outcome(call) for call in calls] == [("hello", None)] * 2
    assert [call.connection_reused for call in calls] == [False, True]
    assert calls[0].remote_addr == f"127.0.0.1:{via.port}"
    assert calls[0].timeline.tcp_ns
    assert proxy.asked == [("name", "localhost") if scheme == "socks5h" else ("address", "127.0.0.1")]


def test_proxy_credentials(clients: Any, authority: Authority) -> None:
    proxy = HttpProxy("me:p@ss")
    for tls in (None, authority.server()):
        with scripted(replies, tls) as server, scripted(proxy) as via:
            settings = {"ca_bundle": authority.bundle}
            good = clients(server.url, proxy=f"http://me:p%40ss@127.0.0.1:{via.port}", **settings).call()
            bad = clients(server.url, proxy=f"http://me:wrong@127.0.0.1:{via.port}", **settings).call()
        assert outcome(good) == ("hello", None)
        assert "407" in str(bad.exchange.error)
        assert outcome(bad)[1] == ("http_4xx" if tls is None else "connect")
    socks = SocksProxy(("me", "p@ss"))
    with scripted(replies) as server, scripted(socks) as via:
        bad = clients(server.url, proxy=f"socks5://me:wrong@127.0.0.1:{via.port}").call()
    assert outcome(bad)[1] == "connect"


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_proxy_that_fails_is_named(clients: Any, scheme: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        down = clients("http://127.0.0.1:9", proxy=f"{scheme}://127.0.0.1:{port}").call()
        with scripted(HttpProxy() if scheme == "http" else SocksProxy()) as via:
            behind = clients(f"https://127.0.0.1:{port}", proxy=f"{scheme}://127.0.0.1:{via.port}").call()
    with scripted(lambda peer: peer.stop.wait(5)) as mute:
        named = f"{scheme}://127.0.0.1:{mute.port}"
        slow = clients("https://127.0.0.1:9", Limits(connect=0.2), proxy=named).call()
    unknown = clients("http://127.0.0.1:9", proxy=f"{scheme}://no-such-host.invalid:1").call()
    calls = (down, behind, slow, unknown)
    assert [outcome(call)[1] for call in calls] == ["connect", "connect", "connect_timeout", "dns"]
    assert all("the proxy" in str(call.exchange.error) for call in (down, behind, slow))


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_run_through_a_proxy_whose_password_stands_nowhere(tmp_path: Path, scheme: str) -> None:
    password = "s3cret/pass@word"
    proxy = HttpProxy(f"me:{password}") if scheme == "http" else SocksProxy(("me", password))
    with simulator(tmp_path, "--output-tokens", "5") as server, scripted(proxy) as via:
        named = f"{scheme}://$PROXY_USER:${{PROXY_PASSWORD}}@127.0.0.1:{via.port}"
        options = ("-u", "2", "-r", "2", "-t", "1s", "--transport", "portable", "--proxy", named)
        env = {"PROXY_USER": "me", "PROXY_PASSWORD": password}
        run = headless(tmp_path, server.url, *options, env=env)
        (tmp_path / "wrong").mkdir()
        wrong = headless(tmp_path / "wrong", server.url, *options, env={**env, "PROXY_PASSWORD": "n0t-it"}, exit_code=2)
    assert {(row["status"], row["remote_addr"]) for row in run.rows()} == {("ok", f"127.0.0.1:{via.port}")}
    assert len(proxy.asked) > (len(run.rows()) if scheme == "http" else 2)
    assert run.json("run.json")["options"]["proxy"] == named
    assert "407" in wrong.output or "authentication failed" in wrong.output
    for file in [*run.run_dir.iterdir(), run.output_path, wrong.output_path]:
        assert not any(secret in file.read_bytes() for secret in (b"s3cret", b"n0t-it")), file


# Options


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"transport": "slow"}, "fast, portable"),
        ({"proxy": "http://127.0.0.1:3128"}, "--transport portable"),
        ({"proxy": "http://me:pw-123@proxy:3128", "transport": "portable"}, "$PROXY_PASSWORD"),
        ({"proxy": "http://pw-123@proxy:3128", "transport": "portable"}, "$PROXY_PASSWORD"),
        ({"proxy": "http://me:pw-123$USER@proxy:3128", "transport": "portable"}, "$PROXY_PASSWORD"),
        ({"proxy": "http://me:$MISSING@proxy:3128", "transport": "portable"}, "MISSING"),
        ({"proxy": "ftp://proxy:3128", "transport": "portable"}, "socks5h"),
        ({"proxy": "proxy:3128", "transport": "portable"}, "SCHEME://HOST:PORT"),
        ({"proxy": "http://proxy", "transport": "portable"}, "SCHEME://HOST:PORT"),
        ({"proxy": "$BAD", "transport": "portable"}, "variables expanded"),
        ({"client_cert": "/no/such.pem"}, "/no/such.pem"),
        ({"client_cert": f"{__file__},{__file__},{__file__}"}, "at most 2"),
    ],
)
def test_wrong_transport_options(given: dict[str, str], part: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(given, {"USER": "me", "BAD": "pw-123"})
    assert part in str(caught.value)
    assert "pw-123" not in str(caught.value)


def test_proxies_are_put_together_from_the_environment() -> None:
    environ = {"ME": "me", "PW": "p@ss/1", "ALL": "socks5h://me:p%40ss%2F1@proxy:1080", "HERE": "proxy"}
    for named, expanded in (
        ("http://127.0.0.1:3128/", "http://127.0.0.1:3128"),
        ("http://${ME}:$PW@$HERE:3128", "http://me:p%40ss%2F1@proxy:3128"),
        ("http://[::1]:3128", "http://[::1]:3128"),
        ("$ALL", environ["ALL"]),
    ):
        options = parse({"proxy": named, "transport": "portable"}, environ)
        assert options.proxy == named
        assert proxy_url(options, environ) == expanded
        secrets = secret_values(options, environ)
        assert ("p@ss/1" in secrets) == ("p%40ss%2F1" in secrets) == ("me" in expanded)


@pytest.mark.parametrize("transport", ["fast", "portable"])
def test_a_client_certificate_that_is_none_is_named(tmp_path: Path, transport: str) -> None:
    (tmp_path / "client.pem").write_text("nothing of the kind")
    options = parse({"client_cert": str(tmp_path / "client.pem"), "transport": transport}, {})
    with pytest.raises(OptionError, match="--client-cert"):
        make_transport(options, parse_origins("https://127.0.0.1:9"))
