"""What master and workers say to each other: whatever arrives that is not exactly that is refused with a reason."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenswarm.errors import MessageError
from tokenswarm.recording import messages
from tokenswarm.recording.messages import Batch, Done, Hello, Totals, decode, encode, kind


def batch(**fields: Any) -> Batch:
    plain: dict[str, Any] = {
        "run": "r",
        "worker": 1,
        "seq": 4,
        "rows": b"a,b\nc,d\n",
        "row_count": 2,
        "interval": b'{"seq":4}\n',
        "responses": b"",
        "totals": Totals(ok=2),
        "in_flight": 3,
    }
    return Batch(**plain | fields)


def test_a_batch_arrives_as_it_was_sent() -> None:
    sent = batch(exceptions={"ValueError": 2}, problems=["a disk"], offset_ns=-5, uncertainty_ns=7)
    assert decode(encode(sent), Batch) == sent


def test_every_message_has_a_name_of_its_own() -> None:
    names = [kind(message) for message in messages.Message.__subclasses__()]
    assert len(set(names)) == len(names) == 10
    assert all(name.startswith("tokenswarm-") for name in names)


@pytest.mark.parametrize("data", [None, {"run": "r"}, ["x"], "text", 7, 1.5, bytearray(b"x")])
def test_what_is_no_bytes_value_is_refused(data: Any) -> None:
    with pytest.raises(MessageError, match="no bytes value"):
        decode(data, Batch)


@pytest.mark.parametrize(
    "data",
    [b"", bytes(100_000), b"\xc1", b"\x81\xa4type", b"\x91" * 10_000, encode(Done(run="r", worker=0, batches=1))],
    ids=["empty", "zeros", "never used", "cut", "deep", "another message"],
)
def test_bytes_that_are_no_batch_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode(data, Batch)


@given(st.binary(max_size=300))
def test_no_bytes_whatever_raise_anything_else(data: bytes) -> None:
    for expected in messages.Message.__subclasses__():
        with suppress(MessageError):
            decode(data, expected)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"row_count": 3}, "2 lines, not the 3"),
        ({"rows": b"a,b\nc", "row_count": 1}, "middle of a line"),
        ({"interval": b"{}\n{}\n"}, "2 lines, not the 1"),
        ({"interval": b"{}"}, "middle of a line"),
        ({"responses": b"{"}, "middle of a line"),
        ({"worker": -1}, "worker"),
        ({"seq": -1}, "seq"),
    ],
)
def test_a_batch_of_torn_lines_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(MessageError, match=why):
        decode(encode(batch(**fields)), Batch)


def test_another_version_is_refused_by_name_even_where_its_fields_differ() -> None:
    same = msgspec.structs.replace(Hello(version="1", hostname="h", pid=1), schema=7)
    with pytest.raises(MessageError, match=r"schema 7, here 1.*same version"):
        decode(encode(same), Hello)
    other = msgspec.msgpack.encode({"type": "tokenswarm-batch", "schema": 2, "lines": []})
    with pytest.raises(MessageError, match="schema 2, here 1"):
        decode(other, Batch)


def test_totals_add_up() -> None:
    assert Totals(ok=1, ttft_ms=2.5) + Totals(ok=2, ttft_ms=1.0, chunks=9) == Totals(ok=3, ttft_ms=3.5, chunks=9)
