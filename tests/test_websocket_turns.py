"""What a WebSocket receives, fed by hand: the handshake's answer and frames, cut anywhere, turn after turn."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websocket_peer import (
    BINARY,
    CONTINUATION,
    END,
    PING,
    PONG,
    TEXT,
    acceptance,
    close,
    frame,
    message,
    so_far,
)
from wire import request

from tokenswarm.framing import MAX_EVENT_BYTES
from tokenswarm.protocols.websocket_chat import Shape, WebSocketChat
from tokenswarm.timing import Clock, Tally, Timeline
from tokenswarm.transport.messages import Messages, Turn

MS = 1_000_000
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPTANCE = acceptance(KEY)
REPLY = so_far("你") + so_far("你好") + message(END)


class Fed:
    """The messages of one connection, and the turn that is on."""

    def __init__(self, shape: Shape | None = None, opened: bool = True) -> None:
        self.protocol = WebSocketChat(shape)
        self.messages = Messages()
        self.tally = Tally()
        self.accepted = 0
        self.next_turn()
        if opened:
            self.feed(ACCEPTANCE, MS)
            assert self.messages.open
            self.turn.begin()

    def next_turn(self) -> Turn:
        self.finished = 0
        self.line = Timeline(start=0)
        self.turn = Turn(request(self.protocol, self.line, self.tally), self._finish)
        self.messages.turn = self.turn
        if self.messages.open:
            self.turn.begin()
        else:
            self.turn.expect_acceptance(KEY.encode(), self._accept)
        return self.turn

    def _finish(self) -> None:
        self.finished += 1

    def _accept(self) -> None:
        self.accepted += 1

    def feed(self, data: bytes, at: int, low: int | None = None) -> None:
        self.messages.feed(data, at, at if low is None else low, at, Clock.KERNEL)

    @property
    def outcome(self) -> tuple[str, str | None]:
        error = self.turn.error
        return "".join(self.turn.text), None if error is None else error.error_class


def test_a_reply_message_by_message() -> None:
    fed = Fed()
    for number, part in enumerate((so_far("a"), so_far("ab"), message(END)), 2):
        fed.feed(part, number * MS)
    assert (fed.outcome, fed.finished, fed.turn.reusable) == (("ab", None), 1, True)
    assert (fed.line.at, fed.line.end) == ([2 * MS, 3 * MS], 4 * MS)
    assert fed.turn.status == 101
    assert fed.turn.response_bytes == len(ACCEPTANCE + so_far("a") + so_far("ab") + message(END))


def test_turns_follow_each_other_on_one_connection() -> None:
    fed = Fed()
    fed.feed(REPLY, MS)
    first = fed.turn
    fed.next_turn()
    fed.feed(so_far("again"), 2 * MS)
    fed.feed(message(END), 3 * MS)
    assert first.reusable
    assert (fed.outcome, fed.turn.reusable, fed.messages.over) == (("again", None), True, False)


@given(st.lists(st.integers(0, len(ACCEPTANCE + REPLY)), max_size=12))
def test_cuts_anywhere_give_the_same_reply(cuts: list[int]) -> None:
    fed = Fed(opened=False)
    data = ACCEPTANCE + REPLY
    edges = sorted({0, *cuts, len(ACCEPTANCE), len(data)})
    for number, (a, b) in enumerate(itertools.pairwise(edges), 1):
        fed.feed(data[a:b], number * MS)
        if b == len(ACCEPTANCE):
            fed.turn.begin()
    assert (fed.outcome, fed.finished, fed.accepted, fed.turn.reusable) == (("你好", None), 1, 1, True)
    assert len(fed.line.at) == 2


def test_a_message_over_several_reads_arrives_with_its_last_byte() -> None:
    fed = Fed()
    data = so_far("a" * 300)
    fed.feed(data[:1], 2 * MS)
    fed.feed(data[1:150], 3 * MS)
    fed.feed(data[150:], 9 * MS)
    assert fed.line.at == [9 * MS]


def test_several_messages_in_one_read_arrive_together() -> None:
    fed = Fed()
    fed.feed(so_far("a") + so_far("ab") + so_far("abc"), 60 * MS, low=20 * MS)
    assert (fed.line.at, fed.line.low) == ([60 * MS] * 3, [20 * MS, 20 * MS, 60 * MS])
    assert fed.tally.late_merged_reads == 1


@pytest.mark.parametrize(
    "after", [so_far("ab")[:1], so_far("ab")[:9], frame(b"", PING), message(END), frame(b"x", TEXT, False)]
)
def test_a_late_message_that_something_follows_has_no_certain_time(after: bytes) -> None:
    fed = Fed()
    fed.feed(so_far("a") + after, 60 * MS, low=20 * MS)
    assert (fed.line.at, fed.line.low) == ([60 * MS], [20 * MS])


def test_a_message_in_frames_with_a_ping_between_them() -> None:
    fed = Fed()
    whole = '{"response": "你好", "status": 202}'.encode()
    cut = whole.index("你".encode()) + 1
    fed.feed(frame(whole[:cut], TEXT, False) + frame(b"?", PING) + frame(b"", CONTINUATION, False), 2 * MS)
    assert fed.messages.take_answer()[0] == 0x80 | PONG
    fed.feed(frame(whole[cut:], CONTINUATION), 3 * MS)
    fed.feed(message(END), 4 * MS)
    assert (fed.outcome, fed.line.at) == (("你好", None), [3 * MS])


def test_binary_messages_are_messages() -> None:
    fed = Fed()
    fed.feed(frame(b'{"response": "a"}', BINARY) + frame(b'{"status": 200}', BINARY), 2 * MS)
    assert fed.outcome == ("a", None)


def test_pings_are_answered_during_a_turn_and_between_two() -> None:
    fed = Fed()
    fed.feed(frame(b"one", PING), 2 * MS)
    assert unmasked(fed.messages.take_answer()) == (PONG, b"one")
    fed.feed(REPLY, 3 * MS)
    fed.messages.turn = None
    fed.feed(frame(b"two", PING), 4 * MS)
    assert unmasked(fed.messages.take_answer()) == (PONG, b"two")
    assert fed.messages.take_answer() == b""
    assert not fed.messages.over


def unmasked(data: bytes) -> tuple[int, bytes]:
    assert data[1] & 0x80, "a client masks"
    return data[0] & 15, bytes(a ^ b for a, b in zip(data[6:], data[2:6] * 40, strict=False))


def test_a_greeting_is_no_part_of_the_reply() -> None:
    fed = Fed(opened=False)
    fed.feed(ACCEPTANCE + message({"response": "Welcome!"}), MS)
    fed.feed(message("Ask me anything"), 2 * MS)
    assert (fed.finished, fed.messages.over, fed.line.at) == (0, False, [])
    fed.turn.begin()
    fed.feed(REPLY, 3 * MS)
    assert fed.outcome == ("你好", None)


def test_a_message_between_two_turns_ends_the_connection() -> None:
    fed = Fed()
    fed.feed(REPLY, MS)
    fed.messages.turn = None
    fed.feed(so_far("late")[:4], 2 * MS)
    assert not fed.messages.over
    fed.feed(so_far("late")[4:], 3 * MS)
    assert fed.messages.over


@pytest.mark.parametrize("more", [so_far("b"), so_far("b")[:3], frame(b"x", TEXT, False)])
def test_more_than_the_reply_spoils_the_connection_but_not_the_reply(more: bytes) -> None:
    fed = Fed()
    fed.feed(REPLY + more, MS)
    assert (fed.outcome, fed.turn.reusable) == (("你好", None), False)


def test_after_an_error_nobody_knows_where_the_reply_ends() -> None:
    fed = Fed()
    fed.feed(message({"error": "died"}), MS)
    assert (fed.outcome, fed.turn.reusable) == (("", "stream_error"), False)


@pytest.mark.parametrize(
    ("code", "error_class"),
    [
        (None, "truncated"),
        (1000, "truncated"),
        (1001, "truncated"),
        (1012, "truncated"),
        (1011, "stream_error"),
        (1008, "stream_error"),
        (1013, "stream_error"),
        (4001, "stream_error"),
        (999, "stream_error"),
    ],
)
def test_close_codes_in_mid_reply(code: int | None, error_class: str) -> None:
    fed = Fed()
    fed.feed(so_far("a") + close(code, "" if code is None else "so long"), MS)
    assert (fed.outcome, fed.finished, fed.messages.over) == (("a", error_class), 1, True)
    assert str(code or 1005) in str(fed.turn.error)
    assert code is None or "so long" in str(fed.turn.error)
    assert fed.line.at == [MS], "what came before it counts"
    assert fed.messages.take_answer()[0] == 0x88, "a close is answered"


@pytest.mark.parametrize("code", [None, 1000, 1001])
def test_a_close_may_be_the_end(code: int | None) -> None:
    fed = Fed(Shape(end="close"))
    fed.feed(so_far("a"), MS)
    fed.feed(close(code), 2 * MS)
    assert (fed.outcome, fed.line.end, fed.turn.reusable) == (("a", None), 2 * MS, False)


def test_a_close_that_says_nothing_was_wrong_is_still_empty_without_a_reply() -> None:
    fed = Fed(Shape(end="close"))
    fed.feed(close(1000), MS)
    assert fed.outcome == ("", "empty")


@pytest.mark.parametrize("end", ["close", "status=200"])
@pytest.mark.parametrize("cut", [0, 1, 10, len(so_far("a"))])
def test_a_connection_that_ends_without_a_close_is_truncated(end: str, cut: int) -> None:
    fed = Fed(Shape(end=end))
    fed.feed(so_far("a")[:cut] or frame(b"", PING), MS)
    fed.messages.eof(2 * MS)
    assert (fed.outcome[1], fed.finished) == ("truncated", 1)


def test_only_messages_count_as_an_answer() -> None:
    """A server that gives up an idle connection may say so just as we ask: then we ask again."""
    fed = Fed()
    fed.feed(close(1001), MS)
    assert not fed.turn.answered
    fed = Fed()
    fed.feed(so_far("a") + close(1001), MS)
    assert fed.turn.answered


@pytest.mark.parametrize(
    "data",
    [
        b"\xf1\x00",  # a reserved bit
        b"\x83\x00",  # no such opcode
        b"\x81\x80abcd",  # masked
        b"\x09\x00",  # a ping in two frames
        b"\x88\x01a",  # half a close code
        b"\x81\x7e\x00\x05",  # a length longer than need be
        frame(b"a", CONTINUATION),
        frame(b"a", TEXT, False) + frame(b"b", TEXT),
        message("hello"),
        frame(b"\xff"),
    ],
)
def test_what_is_no_frame_or_no_reply_is_malformed(data: bytes) -> None:
    fed = Fed()
    fed.feed(data, MS)
    assert (fed.outcome[1], fed.finished, fed.messages.over or not fed.turn.reusable) == ("malformed", 1, True)


def test_a_message_without_end_is_malformed_not_memory() -> None:
    fed = Fed()
    piece = frame(b"x" * (1 << 20), CONTINUATION, False)
    fed.feed(frame(b"", TEXT, False), MS)
    for _ in range(MAX_EVENT_BYTES >> 20):
        fed.feed(piece, MS)
    assert fed.finished == 0
    fed.feed(piece, MS)
    assert fed.outcome[1] == "malformed"


# The handshake


def refused(status: str, body: bytes, headers: bytes = b"") -> Fed:
    fed = Fed(opened=False)
    head = b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n" % (status.encode(), headers, len(body))
    fed.feed(head + body, MS)
    return fed


@pytest.mark.parametrize(
    ("status", "body", "error_class", "words"),
    [
        ("403 Forbidden", b'{"detail": "no entry"}', "http_4xx", "no entry"),
        ("404 Not Found", b"", "http_4xx", "HTTP 404"),
        ("429 Too Many Requests", b'{"error": "later"}', "rate_limited", "later"),
        ("503 Service Unavailable", b"full", "http_5xx", "full"),
        ("200 OK", b"<html>", "malformed", "--ws-path"),
    ],
)
def test_a_refused_handshake_has_the_servers_words(status: str, body: bytes, error_class: str, words: str) -> None:
    fed = refused(status, body)
    assert (fed.outcome[1], fed.finished, fed.messages.open) == (error_class, 1, False)
    assert words in str(fed.turn.error)
    assert fed.turn.status == int(status[:3])


def test_a_redirect_is_named() -> None:
    fed = refused("307 Temporary Redirect", b"", b"Location: wss://x/ws\r\n")
    assert "wss://x/ws" in str(fed.turn.error)


@pytest.mark.parametrize(
    "answer",
    [
        acceptance("another key"),
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        ACCEPTANCE.replace(b"Connection: Upgrade\r\n", b""),
        b"\x81\x02hi",
        b"SSH-2.0-OpenSSH\r\n",
    ],
)
def test_an_answer_that_is_no_acceptance_is_malformed(answer: bytes) -> None:
    fed = Fed(opened=False)
    fed.feed(answer, MS)
    assert (fed.outcome[1], fed.finished, fed.messages.open) == ("malformed", 1, False)


def test_a_server_that_leaves_during_the_handshake() -> None:
    fed = Fed(opened=False)
    fed.feed(ACCEPTANCE[:30], MS)
    fed.messages.eof(2 * MS)
    assert fed.outcome[1] == "truncated"


@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans())
def test_garbage_ends_in_one_classified_error(pieces: list[bytes], opened: bool) -> None:
    fed = Fed(opened=opened)
    for piece in pieces:
        if piece and not fed.messages.over:
            fed.feed(piece, MS)
    fed.messages.eof(2 * MS)
    assert fed.finished == 1
    assert fed.outcome[1] is not None


FRAMES: Any = st.builds(frame, st.binary(max_size=30), st.integers(0, 15), st.booleans())


@given(st.lists(FRAMES, max_size=8))
def test_any_frames_end_in_one_classified_error(frames: list[bytes]) -> None:
    fed = Fed()
    for each in frames:
        if not fed.messages.over:
            fed.feed(each, MS)
    fed.messages.eof(2 * MS)
    assert fed.finished == 1
    assert fed.outcome[1] is not None
