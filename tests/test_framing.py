"""The SSE framer against the grammar, against cuts anywhere, and against another implementation."""

import itertools

import pytest
import sseclient
from hypothesis import given
from hypothesis import strategies as st

from tokenswarm.errors import RequestError
from tokenswarm.framing import MAX_EVENT_BYTES, Event, SseFramer


def frame(*pieces: bytes) -> list[Event]:
    framer = SseFramer()
    return [event for piece in pieces for event in framer.feed(piece)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\r\n\r\n", [b"a"]),
        (b"data: a\r\r", [b"a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\n\n", [b""]),
        (b": ping\n\ndata: a\n\n", [b"a"]),
        (b": ping\ndata: a\n\n", [b"a"]),
        (b"data: a\n\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"\n\n\ndata: a\n\n", [b"a"]),
        (b"id: 1\nevent: x\nretry: 5\n\ndata: a\n\n", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\ndata: cut", [b"a"]),
    ],
)
def test_grammar(stream: bytes, events: list[bytes]) -> None:
    assert [event.data for event in frame(stream)] == events


def test_event_type_belongs_to_its_own_event_only() -> None:
    events = frame(b"event: error\ndata: a\n\ndata: b\n\n")
    assert events == [Event(b"a", b"error"), Event(b"b", b"")]


def test_an_event_is_given_out_as_soon_as_its_last_byte_is_there() -> None:
    framer = SseFramer()
    assert framer.feed(b"data: a\r\n\r") == [Event(b"a")], (
        "a CR ends a line; the LF that may follow must not be awaited"
    )
    assert framer.feed(b"\ndata: b\r\n\r\n") == [Event(b"b")]
    assert not framer.pending


def test_pending_says_whether_bytes_follow_the_last_event() -> None:
    framer = SseFramer()
    framer.feed(b"data: a\n\n")
    assert not framer.pending
    framer.feed(b"data: b\n\nda")
    assert framer.pending
    framer.feed(b"ta: c\n\n")
    assert not framer.pending
    framer.feed(b"data: d\n\n: ping\n\n")
    assert framer.pending
    framer.feed(b"data: e\n\n\n\n")
    assert not framer.pending


def test_finish_gives_what_lacks_its_blank_line() -> None:
    framer = SseFramer()
    assert framer.feed(b"data: [DONE]\n") == []
    assert framer.finish() == Event(b"[DONE]")
    assert framer.finish() is None


def test_an_endless_event_is_refused() -> None:
    framer = SseFramer()
    with pytest.raises(RequestError) as caught:
        for _ in range(MAX_EVENT_BYTES // 1_000_000 + 2):
            framer.feed(b"x" * 1_000_000)
    assert caught.value.error_class == "malformed"


LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
PLAIN = st.text(st.characters(blacklist_characters="\r\n\0", blacklist_categories=("Cs",)), max_size=12)
LINES = st.one_of(
    PLAIN.map(lambda t: b"data: " + t.encode()),
    PLAIN.map(lambda t: b"data:" + t.encode()),
    PLAIN.map(lambda t: b":" + t.encode()),
    st.sampled_from([b"event: error", b"event:x", b"id: 7", b"", b"", b"data", b"unknown: y"]),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    ends = draw(LINE_ENDS)
    return b"".join(line + ends for line in draw(st.lists(LINES, max_size=20)))


@given(streams(), st.lists(st.integers(0, 400), max_size=8))
def test_cuts_change_nothing(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert frame(*pieces) == frame(stream)
    assert frame(*[stream[i : i + 1] for i in range(len(stream))]) == frame(stream)


@given(st.lists(st.one_of(LINES, PLAIN.map(lambda t: f"data: {t}\ndata: {t}".encode())), max_size=12), LINE_ENDS)
def test_events_fed_one_by_one_are_the_same(blocks: list[bytes], end: bytes) -> None:
    pieces = [block.replace(b"\n", end) + end * 2 for block in blocks]
    one_by_one, whole = SseFramer(), SseFramer()
    assert [event for piece in pieces for event in one_by_one.feed(piece)] == whole.feed(b"".join(pieces))
    if pieces:  # else nothing was fed at all, and that is no end
        assert (one_by_one.pending, one_by_one.finish()) == (whole.pending, whole.finish())


@given(
    st.lists(st.tuples(st.sampled_from(["data: ", "data:"]), PLAIN), min_size=1, max_size=5),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_agrees_with_sseclient(lines: list[tuple[str, str]], end: bytes) -> None:
    # Inside the grammar that sseclient-py gets right: every event ends in a blank line, no BOM, no mixed line ends.
    stream = b"".join((prefix + text).encode() + end * 2 for prefix, text in lines)
    # It splits on U+2028, U+0085 and the like, which the grammar does not: leave such texts out.
    if len(stream.decode().splitlines()) != stream.count(end):
        return
    oracle = [event.data for event in sseclient.SSEClient(iter([stream])).events()]
    ours = [event.data.decode() for event in frame(stream)]
    assert [text for text in ours if text] == [text for text in oracle if text]


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_garbage_never_raises_anything_unexpected(pieces: list[bytes]) -> None:
    framer = SseFramer()
    for piece in pieces:
        for event in framer.feed(piece):
            assert isinstance(event.data, bytes)
    framer.finish()
