"""What holds with every real model server: each request has one row, and the row says what happened.

The servers are real programs with real queues, errors and counters; only their models are tiny and of random weights.
What a server counts itself is the oracle for what we count.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from caller import Caller, outcome
from locust_process import LocustProcess
from slots import Row, check_waits

from conformance import look, scenario
from conformance.page import Seen
from conformance.server import Refused, Refuses, Running, Server
from tokenswarm.protocols import PROTOCOLS
from tokenswarm.transport.base import Limits

pytestmark = pytest.mark.servers

ASKED = 20
LONG = 400
"""Tokens of a reply that is still under way when it is cut."""


def caller(
    server: Server, running: Running, protocol: str = "openai-chat", tokens: int = ASKED, **settings: object
) -> Caller:
    """One user without Locust."""
    spoken, wire = server.spoken[protocol], PROTOCOLS[protocol]
    credentials = {} if server.key is None else wire.credentials(server.key)
    given = {"headers": {**credentials, **spoken.headers}, "extra_body": spoken.extra_body} | settings
    return Caller(running.url_of(protocol), protocol=wire, model=server.model, max_tokens=tokens, **given)


def answers(server: Server, running: Running) -> None:
    """The server answers one more request."""
    one = caller(server, running)
    assert outcome(one.call())[1] is None
    one.close()


def settled(read: Callable[[], int | None], wanted: int, seconds: float = 30) -> int | None:
    """What a server says of itself, once it says what is wanted; else the last that it said. Counters lag behind."""
    give_up = time.monotonic() + seconds
    while (value := read()) != wanted and time.monotonic() < give_up:
        time.sleep(0.05)
    return value


def all_rows(process: LocustProcess) -> list[Row]:
    """The rows, of which each request that was started has one."""
    rows = process.rows()
    assert len({row["id"] for row in rows}) == len(rows) == sum(line["started"] for line in process.intervals())
    assert process.json("summary.json")["requests"]["unaccounted"] == 0
    return rows


def check_ok(row: Row, server: Server, source: str) -> None:
    """What is true of every reply that came whole."""
    assert (row["status"], row["error_class"], row["clock"], row["http_status"]) == ("ok", "", "kernel", "200")
    assert (row["token_source"], row["model"]) == (source, server.model)
    assert int(row["output_chars"]) > 0
    assert int(row["output_tokens"]) > 0
    assert not server.spoken["openai-chat"].keeps_limit or int(row["output_tokens"]) <= ASKED


def check_refused(row: Row, refused: Refused) -> None:
    """What is true of every refusal."""
    assert (row["status"], row["error_class"]) == ("failed", refused.error_class), row
    assert row["http_status"] == str(refused.http_status)
    assert refused.words in row["error"]
    assert row["ttft_ms"] == row["output_tokens"] == ""


def test_streams(server: Server, running: Running, seen: Seen, tmp_path: Path) -> None:
    answered, generated = server.answered(running), server.generated(running)
    spoken = server.spoken["openai-chat"]
    process = scenario.run(server, running, tmp_path, "-u", "2", "-r", "2", "-t", "2s", "--output-tokens", str(ASKED))
    rows = all_rows(process)
    assert len(rows) >= 2
    for row in rows:
        check_ok(row, server, spoken.tokens)
        assert int(row["chunks"]) > 0
        assert (
            0
            < float(row["ttft_sent_ms"])
            <= float(row["ttft_ms"])
            <= float(row["last_token_ms"])
            <= float(row["e2e_ms"])
        )
    seen["streams"] = f"{len(rows)} of {len(rows)} ok, tokens by {spoken.tokens}"
    # The check before the load is a request of one token, too.
    if answered is not None:
        assert settled(lambda: server.answered(running), answered + len(rows) + 1) == answered + len(rows) + 1
        seen["streams"] += "; it counted as many"
    if generated is not None:
        made = generated + sum(int(row["output_tokens"]) for row in rows) + 1
        assert settled(lambda: server.generated(running), made) == made
        seen["streams"] += "; it made as many tokens"


def test_the_wire_is_as_documented(server: Server, running: Running, seen: Seen) -> None:
    stream = look.stream(server, running)
    assert stream.texts
    assert (stream.tokens is not None) == (server.spoken["openai-chat"].tokens == "usage")
    seen |= {
        "first": stream.first,
        "usage": stream.usage,
        "end": "`[DONE]`" if stream.done else "none",
        "chunks": f"{len(stream.texts)} for {'?' if stream.tokens is None else stream.tokens} tokens"
        + (f", {stream.empty} without text between them" if stream.empty else ""),
    }


def test_whole_replies(server: Server, running: Running, seen: Seen, tmp_path: Path) -> None:
    source = server.spoken["openai-chat"].whole_tokens
    rows = scenario.run(
        server, running, tmp_path, "--no-stream", "-u", "2", "-t", "1s", "--output-tokens", str(ASKED)
    ).rows()
    assert rows
    for row in rows:
        check_ok(row, server, source or "")
        assert row["ttft_ms"] == row["tpot_ms"] == row["itl_p50_ms"] == ""
        assert float(row["e2e_ms"]) >= float(row["headers_ms"]) > 0
    seen["whole"] = f"tokens by {source}"


def test_every_other_protocol_that_it_speaks(server: Server, running: Running, seen: Seen) -> None:
    for name, spoken in server.spoken.items():
        if name == "openai-chat":
            continue
        for stream in (True, False) if PROTOCOLS[name].streams else (False,):
            if not stream and spoken.whole_tokens is None:
                continue
            one = caller(server, running, name)
            call = one.call(stream)
            one.close()
            reply = call.exchange
            text, error_class = outcome(call)
            assert (error_class, reply.kernel_clock) == (None, True), f"{name}: {reply.error}"
            if name == "openai-embeddings":
                assert reply.vectors is not None
                continue
            assert text and reply.finish_reason, name
            told = None if reply.usage is None else reply.usage.output_tokens
            source = spoken.tokens if stream else spoken.whole_tokens
            assert bool(told) == (source == "usage"), name
            assert not told or not spoken.keeps_limit or told <= ASKED
            assert bool(call.timeline.at) == stream
    seen["speaks"] = ", ".join(f"`{name}`" for name in server.spoken)


def test_refusals_and_a_reply_that_is_cancelled(server: Server, running: Running, seen: Seen, tmp_path: Path) -> None:
    bad = {} if server.bad_parameter is None else server.bad_parameter.extra_body
    values = {"bad_parameter": bad, "long": LONG, "long_body": server.long_body}
    process = scenario.run(server, running, tmp_path, "-u", "1", exit_code=None, text=scenario.MISBEHAVING, **values)
    rows = all_rows(process)
    assert [row["name"] for row in rows] == ["unknown model", "bad parameter", "cancelled", "afterwards"], (
        process.output
    )
    unknown, wrong, cancelled, afterwards = rows
    for name, row, refused in (
        ("unknown model", unknown, server.unknown_model),
        ("bad parameter", wrong, server.bad_parameter),
    ):
        if refused is None:
            assert row["status"] == "ok", row
        else:
            check_refused(row, refused)
        seen[name] = "answers" if refused is None else f"{refused.http_status} `{refused.error_class}`"
    assert (cancelled["status"], cancelled["error_class"], cancelled["clock"]) == ("cancelled", "", "kernel")
    assert cancelled["ttft_ms"] and cancelled["finish_reason"] == ""
    assert afterwards["status"] == "ok"
    seen["cancelled"] = "answers on"


def test_a_wrong_key(server: Server, running: Running, seen: Seen) -> None:
    if server.wrong_key is None:
        seen["wrong key"] = "none is wanted"
        pytest.skip("it wants none")
    one = caller(server, running, headers=PROTOCOLS["openai-chat"].credentials("wrong"))
    error = one.call().exchange.error
    one.close()
    assert error is not None
    assert (error.error_class, error.http_status) == (server.wrong_key.error_class, server.wrong_key.http_status)
    assert server.wrong_key.words in str(error)
    seen["wrong key"] = f"{error.http_status} `{error.error_class}`"


def test_a_run_that_is_stopped_in_mid_stream(server: Server, running: Running, seen: Seen, tmp_path: Path) -> None:
    options = f"-u 3 -r 3 -t 2s --stop-timeout 0 --output-tokens {LONG}".split()
    process = scenario.run(server, running, tmp_path, *options, "--extra-body", json.dumps(server.long_body))
    rows = all_rows(process)
    assert {row["status"] for row in rows} <= {"ok", "incomplete"}
    cut = [row for row in rows if row["status"] == "incomplete"]
    assert 1 <= len(cut) <= 3
    answers(server, running)
    if server.busy(running) is not None:
        assert settled(lambda: server.busy(running), 0) == 0
        seen["cancelled"] = "answers on, and works at nothing more"


@pytest.mark.parametrize(
    ("error_class", "limits"),
    [("first_token_timeout", Limits(first_token=0.001)), ("total_timeout", Limits(total=0.1))],
    ids=["first token", "total"],
)
def test_time_limits(server: Server, running: Running, error_class: str, limits: Limits) -> None:
    one = caller(server, running, tokens=LONG, extra_body=server.long_body, limits=limits)
    call = one.call(prompt="Read all of this. " * 30)
    one.close()
    assert outcome(call)[1] == error_class
    answers(server, running)


def test_more_users_than_it_can_serve(server: Server, running: Running, seen: Seen, tmp_path: Path) -> None:
    crowd = server.crowd
    if crowd is None:
        pytest.skip("it serves any number")
    users = str(3 * crowd.slots)
    body = json.dumps(server.long_body)
    options = ("-u", users, "-r", users, "-t", "3s", "--output-tokens", "60", "--extra-body", body)
    process = scenario.run(server, running, tmp_path, *options, *crowd.options, exit_code=None)
    rows = all_rows(process)
    assert len(rows) >= 3 * crowd.slots
    states = Counter(row["status"] for row in rows)
    if isinstance(crowd, Refuses):
        for row in rows:
            if row["status"] != "ok":
                check_refused(row, crowd.refused)
        assert min(states["ok"], states["failed"]) > 0
        refusal = f"{crowd.refused.http_status} `{crowd.refused.error_class}`"
        seen["overloaded"] = f"{users} users: {states['ok']} ok, {states['failed']} refused, {refusal}"
    else:
        assert states == {"ok": len(rows)}
        at_once = check_waits(rows, crowd.slots, crowd.overlap)
        served, waited = (f"{float(at_once[place]['ttft_ms']):,.0f} ms" for place in (crowd.slots - 1, -1))
        seen["overloaded"] = f"{users} users, {crowd.slots} at once: TTFT {served} with a slot, {waited} last in line"
