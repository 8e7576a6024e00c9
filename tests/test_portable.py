"""The portable transport: from the same bytes the same rows as the fast one, each arrival noted as it came."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import gevent
import pytest
import sseclient
from caller import JSON, NI, PLAIN, SSE, TEXT, USAGE, WHOLE, Authority, answer, outcome
from hypothesis import given
from hypothesis import strategies as st
from locust_process import headless
from scripted_server import DONE, END, HEAD, REPLY, Peer, chunk, event, scripted
from simulator_process import simulator

from tokenswarm.framing import SseFramer
from tokenswarm.record import RequestRecord
from tokenswarm.transport.base import Call
from tokenswarm.transport.http import FastTransport
from tokenswarm.transport.portable import PortableTransport, parse_with_sseclient
from tokenswarm.transport.reply import ReplyState

# The same bytes, the same row


SENT: dict[str, list[bytes]] = {
    "a stream": [HEAD, event("a"), event("b"), event("", "stop"), USAGE, DONE, END],
    "a stream in one piece": [REPLY],
    "reasoning and tools": [
        HEAD + chunk(b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n'),
        chunk(b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]}\n\n'),
        event("", "tool_calls") + DONE + END,
    ],
    "byte order mark": [HEAD + chunk(b"\xef\xbb\xbf" + TEXT % b"a" + b"\n\n"), event("b", "stop") + DONE + END],
    "carriage returns": [HEAD + chunk(TEXT % b"a" + b"\r\n\r"), chunk(b"\n" + TEXT % b"b" + b"\r\n\r\n") + DONE + END],
    "mixed line ends": [
        HEAD + chunk(TEXT % b"a" + b"\n\r\n" + TEXT % b"b" + b"\r\n\n" + TEXT % b"c\n\r\n") + DONE + END
    ],
    "line separators that are none": [HEAD + event("a\u2028b\u0085c\x0bd", "stop") + DONE + END],
    "pings and other fields": [
        HEAD + chunk(b": ping\n\nid: 1\nevent: x\nretry: 5\n\n:\n"),
        event("a", "stop") + DONE + END,
    ],
    "data over two lines": [HEAD + chunk(b'data: {"choices":\ndata:[{"delta":{"content":"a"}}]}\n\n') + DONE + END],
    "a last event cut off": [HEAD + event("a") + chunk(TEXT % b"b" + b"\n"), END],
    "an end mark without its blank line": [HEAD + event("a") + chunk(b"data: [DONE]"), END],
    "an end mark in mid-stream": [HEAD + event("a") + DONE + event("b"), END],
    "a code point cut in two": [
        HEAD + chunk(TEXT.partition(b"%s")[0] + NI[:1]),
        chunk(NI[1:] + b'"}}]}\n\n') + DONE + END,
    ],
    "not UTF-8": [HEAD + chunk(TEXT % b"\xff" + b"\n\n") + DONE + END],
    "chunk extension and trailers": [HEAD + b"1;x=y\r\n:\r\n" + event("a", "stop") + DONE + b"0\r\nX: y\r\n\r\n"],
    "end of the connection": [PLAIN + TEXT % b"a" + b"\n\n", b"data: [DONE]\n\n"],
    "content length": [answer(b"200 OK", SSE, TEXT % b"a" + b"\n\ndata: [DONE]\n\n")],
    "a whole reply for a stream": [answer(b"200 OK", JSON, WHOLE)],
    "early hints": [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + REPLY],
    "no output": [HEAD + DONE + END],
    "no body": [answer(b"200 OK", SSE, b"")],
    "no content": [b"HTTP/1.1 204 No Content\r\n\r\n"],
    "no end mark": [HEAD + event("a"), END],
    "an error in the stream": [HEAD + event("a"), chunk(b'data: {"error":{"message":"died"}}\n\n') + END],
    "an error event": [HEAD + chunk(b'event: error\ndata: "died"\n\n') + END],
    "broken JSON": [HEAD + event("a"), chunk(b"data: {broken\n\n") + DONE + END],
    "a refusal by policy": [answer(b"400 Bad Request", JSON, b'{"error":{"code":"content_filter","message":"no"}}')],
    "unknown path": [answer(b"404 Not Found", JSON, b'{"detail":"Not Found"}')],
    "too many": [answer(b"429 Too Many Requests", b"Retry-After: 1\r\n", b"slow down")],
    "overload": [answer(b"503 Service Unavailable", b"", b"no upstream")],
    "a large error page": [answer(b"500 Oops", b"", b"x" * 100_000)],
    "a redirect": [answer(b"307 Temporary Redirect", b"Location: https://x/y\r\n", b"moved")],
    "compressed": [answer(b"200 OK", b"Content-Encoding: gzip\r\n", b"abc")],
    "a cookie": [REPLY.replace(b"\r\n", b"\r\nSet-Cookie: a=b\r\n", 1)],
    "cut before the answer": [],
    "cut in the headers": [HEAD[:30]],
    "cut in a chunk": [HEAD + event("a"), event("b")[:20]],
    "cut between chunks": [HEAD + event("a", "stop")],
    "cut after the end mark": [HEAD + event("a") + DONE],
    "cut in the last chunk": [HEAD + event("a", "stop"), b"0\r\n"],
    "cut in the content": [answer(b"200 OK", SSE, TEXT % b"a" + b"\n\n")[:-1]],
    "no HTTP": [b"SSH-2.0-OpenSSH_9.2\r\n"],
    "no chunk": [HEAD + b"zz\r\nhello\r\n"],
}


def facts(call: Call[ReplyState]) -> dict[str, Any]:
    """All that a row says but for times, and all that a user is given."""
    state, error = call.exchange, call.exchange.error
    return {
        "said": ["".join(pieces) for pieces in (state.text, state.reasoning, state.tool)],
        "error": None if error is None else (error.error_class, error.http_status),
        "status": state.status,
        "streamed": state.streamed,
        "finish_reason": state.finish_reason,
        "usage": state.usage,
        "chunks": call.timeline.characters,
        "counts": call.timeline.cumulative,
        "bytes": (call.request_bytes, state.response_bytes),
        "attempts": (call.attempts, call.connection_reused),
        "headers": call.timeline.headers is not None,
        "timed": [part is not None for part in (call.timeline.dns_ns, call.timeline.tcp_ns, call.timeline.tls_ns)],
    }


@pytest.mark.parametrize("what", SENT)
def test_the_same_bytes_make_the_same_row_on_both_transports(clients: Any, what: str) -> None:
    asked: list[set[bytes]] = []

    def script(peer: Peer) -> None:
        head = peer.request().partition(b"\r\n\r\n")[0]
        asked.append({line for line in head.split(b"\r\n") if not line.startswith(b"Host:")})
        for piece in SENT[what]:
            peer.send(piece)
            time.sleep(0.005)

    with scripted(script) as server:
        portable, fast = (clients(server.url, kind=kind).call() for kind in (PortableTransport, FastTransport))
    assert facts(portable) == facts(fast)
    assert asked[0] == asked[1], "what the server is asked is the same, too"
    if fast.exchange.error is not None and fast.exchange.error.error_class != "malformed":
        assert str(portable.exchange.error) == str(fast.exchange.error)
    assert not portable.exchange.kernel_clock or not portable.exchange.response_bytes


@pytest.mark.parametrize("stream", [True, False])
def test_whole_replies_and_requests_larger_than_any_buffer(clients: Any, stream: bool) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        if stream:
            peer.send(HEAD + b"".join(event("x" * 1000) for _ in range(2000)) + DONE + END)
        else:
            peer.send(answer(b"200 OK", JSON, WHOLE.replace(b"hi", b"x" * 2_000_000)))

    with scripted(script) as server:
        both = [clients(server.url, kind=kind) for kind in (PortableTransport, FastTransport)]
        calls = [caller.call(stream, "y" * 8_000_000) for caller in both]
    assert outcome(calls[0]) == ("x" * 2_000_000, None)
    assert facts(calls[0]) == facts(calls[1])
    assert calls[0].timeline.at == sorted(calls[0].timeline.at)
    assert both[0].tally.bytes == both[1].tally.bytes == calls[0].exchange.response_bytes


# sseclient-py

LINES = st.sampled_from(
    ["data: a", "data:b", "data", "data:  c ", ": ping", "event: error", "id: 7", "x: y", "data: 你\u2028", "retry: 5"]
)


@given(st.lists(LINES, min_size=1, max_size=6))
def test_an_event_read_by_sseclient_is_the_framers_own(lines: list[str]) -> None:
    block = "\n".join(lines).encode()
    theirs = [e for e in sseclient.SSEClient(iter([block])).events() if e.data]
    read = parse_with_sseclient(block)
    framed = SseFramer().feed(block + b"\n\n")
    assert [read] if read else framed == []
    assert [e.data.encode() for e in theirs] == [e.data for e in framed if e.data]


# Arrivals


def drip(peer: Peer, *pieces: bytes) -> None:
    for piece in pieces:
        peer.send(piece)
        time.sleep(0.04)


A, B, C = (TEXT % letter + b"\n\n" for letter in (b"a", b"b", b"c"))
LAST = b"data: [DONE]\n\n"
DRIPPED = {
    "a chunk an event": [HEAD + chunk(A), chunk(B), chunk(C), chunk(LAST) + END],
    "a chunk over all events": [HEAD + b"%x\r\n" % len(A + B + C + LAST) + A, B, C, LAST + b"\r\n" + END],
    "chunk sizes that come late": [HEAD + chunk(A)[:-2], b"\r\n" + chunk(B)[:-1], b"\n" + chunk(C), chunk(LAST) + END],
    "content length": [answer(b"200 OK", SSE, A + B + C + LAST)[: -len(B + C + LAST)], B, C, LAST],
    "end of the connection": [PLAIN + A, B, C, LAST],
}


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("body", DRIPPED)
def test_each_event_is_seen_before_the_next_is_sent(
    clients: Any, authority: Authority, body: str, secure: bool
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        drip(peer, *DRIPPED[body])

    with scripted(script, authority.server() if secure else None) as server:
        call = clients(server.url, ca_bundle=authority.bundle).call()
        sent = server.peers[0].sent
    assert outcome(call) == ("abc", None)
    for index, at in enumerate(call.timeline.at):
        assert sent[index] < at < sent[index + 1]
    assert call.timeline.headers is not None
    assert sent[0] < call.timeline.headers < sent[1]
    assert call.timeline.sent is not None
    assert call.timeline.start < call.timeline.sent < sent[0]


def test_chunks_of_one_read_came_together(clients: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + event("a") + event("b") + event("c", "stop") + DONE + END)

    with scripted(script) as server:
        caller = clients(server.url)
        call = caller.call()
    assert len(set(call.timeline.at)) == 1
    assert (call.timeline.first_read_chunks, call.timeline.max_read_chunks, caller.tally.merged_reads) == (3, 3, 1)


def test_what_a_busy_client_read_late_has_bounds(clients: Any) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        for _ in range(10):
            peer.send((HEAD if not peer.sent else b"") + event("a"))
            time.sleep(0.02)
        time.sleep(0.1)
        peer.send(event("", "stop") + DONE + END)

    with scripted(script) as server:
        caller = clients(server.url)
        gevent.get_hub().loop.update_now()
        gevent.spawn_later(0.05, time.sleep, 0.15)
        call = caller.call()
        sent = server.peers[0].sent
    line = call.timeline
    assert len(line.at) == 10
    assert caller.tally.late_merged_reads >= 1, "nothing was merged, or this test shows nothing"
    for true, low, at in zip(sent, line.low, line.at, strict=False):
        assert low - 5_000_000 <= true <= at
    assert any(low < at for low, at in zip(line.low, line.at, strict=True))


# Whole runs


def test_a_run_agrees_with_the_servers_send_log(tmp_path: Path) -> None:
    body = ("--output-tokens", "20", "--extra-body", '{"ignore_eos": true}', "--save-responses")
    with simulator(tmp_path, "--decode-base", "5", "--prefill-base", "15", "--cut-writes") as server:
        run = headless(tmp_path, server.url, "-u", "10", "-r", "20", "-t", "2s", "--transport", "portable", *body)
        log = {line["id"]: line for line in map(json.loads, server.log_path.read_text().splitlines())}
    rows = run.rows()
    assert len(rows) > 50
    assert len(log) == len(rows) + 1, "every request that the server saw has its row, but for the check's"
    assert {(row["status"], row["transport"], row["clock"]) for row in rows} == {("ok", "portable", "user")}
    saved = [json.loads(line) for line in (run.run_dir / "responses.jsonl").read_text().splitlines()]
    texts = {reply["id"]: reply["text"] for reply in saved}
    manifest = run.json("run.json")
    for row in rows:
        sent = log[row["id"]]
        assert int(row["output_tokens"]) == sent["output_tokens"] == 20
        assert int(row["input_tokens"]) == sent["input_tokens"]
        assert int(row["chunks"]) == len(sent["sent_ns"])
        assert int(row["output_chars"]) == sum(sent["chars"]) == len(texts[row["id"]])
        started = manifest["start"]["monotonic_ns"] + (float(row["start_time"]) - manifest["start"]["time"]) * 1e9
        assert (sent["sent_ns"][0] - started) / 1e6 <= float(row["ttft_ms"]) + 0.01, "never before it was sent"
    assert sum(row["conn_reused"] == "false" for row in rows) == 10, "one connection a user"
    assert manifest["target"]["transport"] == "portable"
    assert {worker["clock"] for worker in manifest["workers"]} == {"user"}


TIMED = {"id", "remote_addr", "transport", "clock", "output_tps", "decode_tps", "first_read_chunks", "max_read_chunks"}

EVERYTHING = """
from locust import task
from tokenswarm.users import ChatUser

class Everything(ChatUser):
    @task
    def all(self):
        for number in range({count}):
            self.chat(f"case {{number}}", name=f"case {{number}}")
        self.environment.runner.quit()
"""


def test_both_transports_write_the_same_rows(tmp_path: Path) -> None:
    cases = list(SENT.values())

    def script(peer: Peer) -> None:
        while request := peer.request():
            number = request.partition(b'"content":"case ')[2].partition(b'"')[0]
            for piece in cases[int(number)] if number else [answer(b"404 Not Found", b"", b"")]:
                peer.send(piece)
                time.sleep(0.003)
            return

    locustfile = tmp_path / "everything.py"
    locustfile.write_text(EVERYTHING.format(count=len(cases)))
    tables = []
    for transport in ("fast", "portable"):
        with scripted(script) as server:
            folder = tmp_path / transport
            folder.mkdir()
            options = ("-u", "1", "--no-check", "--model", "m", "--keep-alive", "off", "--transport", transport)
            run = headless(folder, server.url, *options, locustfile=locustfile, exit_code=1)
        tables.append(run.rows())
    assert len(tables[0]) == len(cases)
    for fast, portable in zip(*tables, strict=True):
        assert (fast["clock"], portable["clock"]) in (("kernel", "user"), ("user", "user"))
        for column in RequestRecord.__struct_fields__:
            if column.startswith(("itl_", "ttst_")):
                continue  # unknown where a late client read two chunks in one
            if column.endswith(("_ms", "_time")):
                assert bool(fast[column]) == bool(portable[column]), (column, fast["name"])
            elif column == "error" and fast["error_class"] == "malformed":
                assert portable[column]
            elif column not in TIMED:
                assert fast[column] == portable[column], (column, fast["name"])


def test_an_event_of_a_million_lines_is_read_in_time() -> None:
    """sseclient-py would copy all lines so far with each: minutes of it."""
    began = time.thread_time()
    event = parse_with_sseclient(b"\n".join([b"data: a"] * 1_000_000))
    assert event is not None
    assert event.data.count(b"a\n") == 999_999
    assert time.thread_time() - began < 20
