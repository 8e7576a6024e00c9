"""Bad input is said at once, before any load, in words that name what and where."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from locust_process import LocustProcess, headless, locust
from scripted_server import Peer, scripted
from simulator_process import Running

from tokenswarm.errors import OptionError
from tokenswarm.options import expand_header, parse, request_headers, secret_values
from tokenswarm.options.values import Ended


def refused(folder: Path, *options: str, env: dict[str, str] | None = None) -> str:
    """What a headless run says that must not start; it leaves no run directory with rows."""
    with locust(folder, "--headless", "-u", "2", "-t", "5s", *options, env=env) as run:
        assert run.wait(30) == 2, run.output
    assert "was not started" in run.output
    assert "Traceback" not in run.output
    assert not list(folder.glob("run*/requests.csv"))
    return run.output


def test_an_unreachable_host(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        said = refused(tmp_path, "--host", f"http://127.0.0.1:{free.getsockname()[1]}")
    assert "Connection refused" in said
    assert "is the server running" in said


def test_a_wrong_port(tmp_path: Path) -> None:
    def ssh(peer: Peer) -> None:
        peer.send(b"SSH-2.0-OpenSSH_9.2\r\n")
        peer.stop.wait(5)

    with scripted(ssh) as server:
        said = refused(tmp_path, "--host", server.url)
    assert "right port" in said


def test_an_unknown_model_and_several_models(tmp_path: Path, quick_simulator: Running) -> None:
    said = refused(tmp_path, "--host", quick_simulator.url, "--model", "gpt-7")
    assert "gpt-7" in said
    assert "'simulator'" in said, "it names the models that there are"


def test_several_models_need_a_choice(tmp_path: Path) -> None:
    body = b'{"data":[{"id":"a"},{"id":"b"}]}'

    def script(peer: Peer) -> None:
        peer.request()
        headers = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        peer.send(b"HTTP/1.1 200 OK\r\n" + headers + body)

    with scripted(script) as server:
        said = refused(tmp_path, "--host", server.url)
    assert "--model" in said
    assert "'a', 'b'" in said


def test_a_body_that_the_server_refuses(tmp_path: Path, quick_simulator: Running) -> None:
    said = refused(tmp_path, "--host", quick_simulator.url, "--extra-body", '{"max_tokens": "many"}')
    assert "HTTP 400" in said
    assert "max_tokens" in said


def test_a_run_directory_that_cannot_be_written(tmp_path: Path, quick_simulator: Running) -> None:
    (tmp_path / "file").write_text("in the way")
    said = refused(tmp_path, "--host", quick_simulator.url, "--run-dir", str(tmp_path / "file" / "run"))
    assert str(tmp_path / "file" / "run") in said
    assert "--run-dir" in said


def test_everything_wrong_is_said_in_one_go(tmp_path: Path) -> None:
    options = ("--protocol", "grpc", "--extra-body", "{oops", "--request-timeout", "soon", "--ca-bundle", "/no/such")
    said = refused(tmp_path, *options)
    parts = ("--protocol 'grpc'", "openai-chat", "--extra-body", "--request-timeout 'soon'", "--ca-bundle '/no/such'")
    assert [part for part in parts if part not in said] == []


def test_an_unknown_option_is_locusts_own_error(tmp_path: Path) -> None:
    run = LocustProcess(tmp_path, "--headless", "--protocoll", "x")
    assert run.wait(20) == 2
    assert "--protocoll" in run.output
    assert "--protocol" in run.output


def test_a_bundle_that_holds_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing of the kind")
    said = refused(tmp_path, "--host", "https://127.0.0.1:9", "--ca-bundle", str(tmp_path / "ca.pem"))
    assert "--ca-bundle" in said
    assert "PEM" in said


@pytest.mark.parametrize("who", ["--master", "--processes=2"])
def test_a_masters_port_that_is_meant_for_its_workers(tmp_path: Path, who: str) -> None:
    said = refused(tmp_path, who, "--master-port", "5999", "--host", "http://127.0.0.1:9")
    assert "--master-bind-port 5999" in said


def test_a_master_for_other_machines_needs_a_host_that_they_reach(tmp_path: Path) -> None:
    said = refused(tmp_path, "--master", "--master-bind-host", "0.0.0.0", "--master-bind-port", "0")
    assert "--host is missing" in said
    assert "workers of other machines" in said


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"insecure": True, "ca_bundle": __file__}, "contradict"),
        ({"no_stream": True, "first_token_timeout": "3"}, "--first-token-timeout"),
        ({"no_stream": True, "stall_timeout": "3"}, "--stall-timeout"),
        ({"protocol": "openai-embeddings", "stall_timeout": "3"}, "openai-embeddings has none"),
        ({"request_timeout": "5", "stall_timeout": "10"}, "never be reached"),
        ({"extra_body": '{"n": 2}'}, "n > 1"),
        ({"extra_body": '{"model": "x"}'}, "--model"),
        ({"extra_body": '{"max_tokens": 5}', "output_tokens": "6"}, "max_tokens"),
        ({"extra_body": "[1]"}, "object"),
        ({"output_tokens": "0"}, "between"),
        ({"output_tokens": "many"}, "whole number"),
        ({"top_p": "1.5"}, "between 0 and 1"),
        ({"temperature": "nan"}, "between"),
        ({"keep_alive": "maybe"}, "on, off"),
        ({"fail_on": "never"}, "degraded"),
        ({"slo": "ttft<5ms"}, "of which percentile? Write ttft_p95<5ms"),
        ({"goodput": "ttft_p95<5ms"}, "has no percentile"),
        ({"find_capacity": True}, "--find-capacity needs --slo"),
        ({"dataset_once": True, "input_tokens": "64"}, "end the run by --requests"),
        ({"find_capacity": True, "slo": "ttft_p95<1s", "warmup": "20r"}, "settles for a time, not for requests"),
        ({"warmup": "-3"}, "not a time"),
        ({"warmup": "0r"}, "between 1 and"),
        ({"warmup": "20 replies"}, "not a time"),
        ({"steps": "1,x"}, "--steps '1,x': 'x' is no number of users"),
        ({"step_time": "9s"}, "none are given; for example --steps"),
        ({"steps": "1,2", "step_time": "9s", "warmup": "9s"}, "nothing would be measured"),
        ({"stall_timeout": "0"}, "more than 0"),
        ({"output_tokens": "99999999"}, "between 1 and 10,000,000"),
        ({"dataset": "."}, "a directory"),
        ({"header": ["Authorization: Bearer sk-123"]}, "$VARIABLE"),
        ({"header": ["X-Key: $MISSING"]}, "MISSING"),
        ({"header": ["Ocp-Apim-Subscription-Key: sk-123"]}, "$VARIABLE"),
        ({"header": ["X-Auth: sk-123"]}, "$VARIABLE"),
        ({"header": ["no colon"]}, "Name: value"),
        ({"header": ["Host: x"]}, "transport"),
        ({"header": ["X-A: a\r\nX-B: b"]}, "control character"),
    ],
)
def test_wrong_and_contradicting_options(given: Mapping[str, object], part: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(given, {})
    assert part in str(caught.value)
    assert "sk-123" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"slo": "ttft_p80<100", "find_capacity": True},
        {"arrivals": "poison", "rate_per_user": "2"},
        {"cancel_rate": "20", "cancel_after": "1s"},
        {"cancel_rate": "0.5", "cancel_after": "10-5t"},
    ],
)
def test_a_value_that_cannot_be_read_is_not_said_to_be_missing_too(given: Mapping[str, object]) -> None:
    with pytest.raises(OptionError) as caught:
        parse(given, {})
    assert len(str(caught.value).splitlines()) == 1


def test_good_options() -> None:
    options = parse(
        {"request_timeout": "1h2m3.5s", "stall_timeout": "90", "extra_body": '{"top_k": 5}', "seed": "3", "header": []},
        {},
    )
    assert (options.request_timeout, options.stall_timeout) == (3723.5, 90.0)
    assert (options.extra_body, options.seed) == ({"top_k": 5}, 3)
    options = parse({"steps": "1,2,10..30:10", "step_time": "2m", "warmup": "30"}, {})
    assert (options.steps, options.step_time, options.warmup) == ((1, 2, 10, 20, 30), 120.0, 30.0)
    assert [parse({"warmup": text}, {}).warmup for text in ("200r", "200requests", "1 request")] == [
        Ended(200),
        Ended(200),
        Ended(1),
    ]


def test_headers_take_secrets_from_the_environment() -> None:
    environ = {"TOKEN": "s3cret", "LLM_API_KEY": "sk-1", "OPENAI_API_KEY": "sk-2"}
    assert expand_header("Authorization: Basic ${TOKEN}", environ) == ("Authorization", "Basic s3cret")
    options = parse({"header": ["X-Plain: 1", "X-Auth-Token: $TOKEN"]}, environ)
    headers = request_headers(options, environ)
    assert headers["Authorization"] == "Bearer sk-1"
    assert headers["X-Auth-Token"] == "s3cret"
    assert set(secret_values(options, environ)) == {"s3cret", "sk-1", "sk-2"}
    overridden = parse({"header": ["authorization: $TOKEN"]}, environ)
    assert request_headers(overridden, environ) == {"User-Agent": "tokenswarm", "authorization": "s3cret"}


def test_no_check_sends_no_request_of_its_own(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def script(peer: Peer) -> None:
        while request := peer.request():
            asked.append(request.split(b" ", 2)[1])
            peer.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")

    with scripted(script) as server:
        options = ("-u", "1", "-t", "1s", "--model", "m", "--no-check")
        run = headless(tmp_path, server.url, *options, exit_code=1)
    assert len(run.rows()) == asked.count(b"/v1/chat/completions")


def test_what_will_have_no_effect_is_told(tmp_path: Path) -> None:
    said = refused(tmp_path, "--host", "http://127.0.0.1:9", "--ignore-eos")
    assert "--ignore-eos is only for replies whose length is asked for: give --output-tokens" in said
