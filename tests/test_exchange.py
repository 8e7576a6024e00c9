"""The push-style exchange, fed by hand: HTTP bodies of every kind, arrivals and their bounds, every way to end."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import request

from tokenswarm.protocols.openai_chat import OpenAIChat
from tokenswarm.timing import Clock, Tally, Timeline
from tokenswarm.transport.exchange import HttpExchange

MS = 1_000_000


class Fed:
    """An exchange and what it reported."""

    def __init__(self, expect_stream: bool = True) -> None:
        self.line = Timeline(start=0)
        self.line.sent = MS
        self.tally = Tally()
        self.finished = 0
        self.first_tokens = 0
        asked = request(OpenAIChat(), self.line, self.tally, expect_stream, on_first_token=self._first)
        self.exchange = HttpExchange(asked, self._finish)

    def _finish(self) -> None:
        self.finished += 1

    def _first(self) -> None:
        self.first_tokens += 1

    def feed(
        self, data: bytes, at: int, low: int | None = None, handled: int | None = None, clock: Clock = Clock.KERNEL
    ) -> None:
        self.exchange.feed(data, at, at if low is None else low, at if handled is None else handled, clock)

    @property
    def error_class(self) -> str | None:
        return None if self.exchange.error is None else self.exchange.error.error_class


def event(text: str = "", **choice: Any) -> bytes:
    delta = {"content": text} if text else {}
    return b"data: " + json.dumps({"choices": [{"delta": delta, **choice}]}, ensure_ascii=False).encode() + b"\n\n"


def usage(output: int) -> bytes:
    return b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":%d}}\n\n' % output


ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
DONE = b"data: [DONE]\n\n"
SSE = b"Content-Type: text/event-stream\r\n"


def chunked(*events: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(e), e) for e in events)


def head(headers: bytes = SSE + b"Transfer-Encoding: chunked\r\n", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n" + headers + b"\r\n"


END = b"0\r\n\r\n"
REPLY = head() + chunked(ROLE, event("你"), event("好"), event(finish_reason="stop"), usage(2), DONE) + END


def test_a_stream_read_chunk_by_chunk() -> None:
    fed = Fed()
    fed.feed(head(), 5 * MS)
    fed.feed(chunked(ROLE), 6 * MS)
    fed.feed(chunked(event("a")), 10 * MS)
    fed.feed(chunked(event("b")), 30 * MS)
    fed.feed(chunked(event(finish_reason="stop")), 31 * MS)
    fed.feed(chunked(usage(2), DONE), 32 * MS)
    fed.feed(END, 33 * MS)
    exchange, line = fed.exchange, fed.line
    assert (fed.finished, fed.first_tokens, exchange.error, exchange.reusable) == (1, 1, None, True)
    assert (line.headers, line.at, line.low) == (5 * MS, [10 * MS, 30 * MS], [10 * MS, 30 * MS])
    assert line.end == 32 * MS, "the end is [DONE], not the end of the HTTP body"
    assert exchange.usage is not None
    assert exchange.usage.output_tokens == 2
    assert (fed.tally.chunks, fed.tally.characters, fed.tally.itl_ns, fed.tally.ttft_ns) == (2, 2, [20 * MS], [10 * MS])


@given(st.lists(st.integers(0, len(REPLY)), max_size=12))
def test_cuts_anywhere_give_the_same_reply(cuts: list[int]) -> None:
    fed = Fed()
    edges = [0, *sorted(cuts), len(REPLY)]
    for number, (a, b) in enumerate(itertools.pairwise(edges), 1):
        if a < b:
            fed.feed(REPLY[a:b], number * MS)
    assert ("".join(fed.exchange.text), fed.error_class, fed.finished) == ("你好", None, 1)
    assert len(fed.line.at) == 2
    assert fed.exchange.reusable


@given(st.integers(1, len(REPLY) - 1))
def test_a_connection_that_breaks_anywhere_is_never_a_success_without_an_end_mark(cut: int) -> None:
    fed = Fed()
    fed.feed(REPLY[:cut], MS)
    fed.exchange.eof(2 * MS)
    assert fed.finished == 1
    assert not fed.exchange.reusable
    whole = b"[DONE]\n\n" in REPLY[:cut]
    assert (fed.error_class is None) == whole
    if not whole:
        assert fed.error_class == "truncated"


def test_chunks_sent_together_are_known_to_have_come_together() -> None:
    fed = Fed()
    fed.feed(head() + chunked(event("a"), event("b")), 10 * MS)
    assert (fed.line.at, fed.line.low) == ([10 * MS] * 2, [10 * MS] * 2)
    assert fed.line.gaps() == [0]
    assert (fed.tally.merged_reads, fed.tally.late_merged_reads, fed.line.first_read_chunks) == (1, 0, 2)


def test_chunks_merged_while_the_client_was_late_have_bounds_and_no_gaps() -> None:
    fed = Fed()
    fed.feed(head() + chunked(event("a")), 10 * MS)
    fed.feed(chunked(event("b"), event("c"), event("d")), 60 * MS, low=20 * MS, handled=62 * MS)
    fed.feed(chunked(event("e")), 80 * MS)
    assert fed.line.at == [10 * MS, 60 * MS, 60 * MS, 60 * MS, 80 * MS]
    assert fed.line.low == [10 * MS, 20 * MS, 20 * MS, 60 * MS, 80 * MS], "the last one's stamp is its own"
    assert fed.line.gaps() == [20 * MS] == fed.tally.itl_ns
    assert fed.line.client_lag_ns == 42 * MS
    assert fed.tally.late_merged_reads == 1
    assert fed.line.max_read_chunks == 3


@pytest.mark.parametrize(
    "after", [chunked(DONE), b"1f\r\ndata: ", chunked(b": ping\n\n" + event(finish_reason="stop"))]
)
def test_a_late_chunk_that_something_follows_has_no_certain_time(after: bytes) -> None:
    fed = Fed()
    fed.feed(head() + chunked(event("a")) + after, 60 * MS, low=20 * MS)
    assert (fed.line.at, fed.line.low) == ([60 * MS], [20 * MS])


def test_a_role_chunk_merged_with_the_first_token_costs_no_certainty() -> None:
    fed = Fed()
    fed.feed(head() + chunked(ROLE, event("a")), 60 * MS, low=20 * MS)
    assert (fed.line.at, fed.line.low, fed.tally.merged_reads) == ([60 * MS], [60 * MS], 0)


def test_content_length_and_close_delimited_bodies() -> None:
    body = event("a") + event(finish_reason="stop")
    fed = Fed()
    fed.feed(head(SSE + b"Content-Length: %d\r\n" % len(body)) + body, MS)
    assert (fed.error_class, fed.finished, fed.exchange.reusable) == (None, 1, True)
    fed = Fed()
    fed.feed(head(SSE + b"Connection: close\r\n") + body, MS)
    assert fed.finished == 0
    fed.exchange.eof(2 * MS)
    assert (fed.error_class, fed.finished, fed.exchange.reusable) == (None, 1, False)


@pytest.mark.parametrize(
    ("events", "error_class"),
    [
        ([event("a"), event(finish_reason="stop")], None),
        ([event("a"), DONE], None),
        ([event(finish_reason="length")], None),
        ([event("a")], "truncated"),
        ([ROLE, DONE], "empty"),
        ([DONE], "empty"),
        ([], "empty"),
        ([b'data: {"error":{"message":"died"}}\n\n', DONE], "stream_error"),
        ([event("a"), b'data: {"error":{"message":"died"}}\n\n'], "stream_error"),
        ([event("a"), b"data: {broken\n\n", DONE], "malformed"),
        ([event("a"), b"data: [DONE]"], None),
    ],
)
def test_what_a_200_was_worth(events: list[bytes], error_class: str | None) -> None:
    fed = Fed()
    fed.feed(head() + chunked(*events) + END, MS)
    assert (fed.error_class, fed.finished) == (error_class, 1)


def test_statuses_are_refusals_with_the_servers_own_words() -> None:
    fed = Fed()
    body = b'{"error":{"message":"slow down"}}'
    fed.feed(head(b"Content-Length: %d\r\n" % len(body), b"429 Too Many Requests") + body, MS)
    assert (fed.error_class, fed.exchange.status, fed.exchange.reusable) == ("rate_limited", 429, True)
    assert "slow down" in str(fed.exchange.error)
    assert fed.line.at == []


def test_redirects_are_named() -> None:
    fed = Fed()
    fed.feed(head(b"Location: https://x/\r\nContent-Length: 0\r\n", b"307 Temporary Redirect"), MS)
    assert "https://x/" in str(fed.exchange.error)


def test_a_json_answer_to_a_stream_request_is_read_as_a_whole_reply() -> None:
    body = json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}).encode()
    fed = Fed()
    fed.feed(head(b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)) + body, MS)
    assert ("".join(fed.exchange.text), fed.error_class, fed.exchange.streamed, fed.line.at) == ("hi", None, False, [])


def test_a_page_in_place_of_a_stream_is_malformed_and_shown() -> None:
    body = b"<html><body>Please sign in</body></html>"
    fed = Fed()
    fed.feed(head(b"Content-Type: text/html\r\nContent-Length: %d\r\n" % len(body)) + body, MS)
    assert fed.error_class == "malformed"
    assert "sign in" in str(fed.exchange.error)


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]
)
def test_what_is_not_http_is_malformed(data: bytes) -> None:
    fed = Fed()
    fed.feed(data, MS)
    assert (fed.error_class, fed.finished) == ("malformed", 1)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (b"500 Oops", b"[" * 20_000),
        (b"200 OK", b"[" * 20_000),
        (b"200 OK", b'{"choices":[{"message":{"content":{"a":1},"tool_calls":5}}]}'),
        (b"200 OK", b'{"choices":[{"message":5}]}'),
    ],
)
def test_bodies_of_unknown_shape_end_the_request(status: bytes, body: bytes) -> None:
    fed = Fed()
    fed.feed(head(b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body), status) + body, MS)
    assert fed.finished == 1
    assert fed.error_class in ("malformed", "http_5xx", "empty")


def test_an_empty_finish_reason_is_none() -> None:
    fed = Fed()
    fed.feed(head() + chunked(event("a", finish_reason=""), event("b", finish_reason="")) + END, MS)
    assert fed.error_class == "truncated"


def test_a_compressed_body_is_refused_by_name() -> None:
    fed = Fed()
    fed.feed(head(b"Content-Encoding: gzip\r\nContent-Length: 3\r\n") + b"abc", MS)
    assert fed.error_class == "malformed"
    assert "gzip" in str(fed.exchange.error)


@pytest.mark.parametrize("reads", [1, 2, 50])
def test_too_many_headers_are_too_many_in_however_few_reads(reads: int) -> None:
    fed = Fed()
    data = head(b"".join(b"X-%d: y\r\n" % number for number in range(10_000))) + chunked(
        event("a", finish_reason="stop")
    )
    size = len(data) // reads + 1
    for start in range(0, len(data), size):
        fed.feed(data[start : start + size], MS)
    assert fed.error_class == "malformed"
    assert "bytes of headers" in str(fed.exchange.error)


def test_100_continue_is_not_the_answer() -> None:
    fed = Fed()
    fed.feed(b"HTTP/1.1 100 Continue\r\n\r\n" + REPLY, MS)
    assert (fed.exchange.status, fed.error_class) == (200, None)


def test_closed_before_any_answer() -> None:
    fed = Fed()
    fed.exchange.eof(MS)
    assert fed.error_class == "truncated"
    assert "before it answered" in str(fed.exchange.error)


def test_bytes_after_the_response_spoil_the_connection_but_not_the_reply() -> None:
    fed = Fed()
    fed.feed(REPLY + b"junk", MS)
    assert (fed.error_class, fed.exchange.reusable) == (None, False)


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_garbage_ends_in_one_classified_error_or_waits(pieces: list[bytes]) -> None:
    fed = Fed()
    for piece in pieces:
        if piece:
            fed.feed(piece, MS)
    fed.exchange.eof(2 * MS)
    assert fed.finished == 1
    assert fed.error_class is not None
