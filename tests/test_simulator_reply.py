"""How one reply is cut into sends, with a wire that only writes down what it is given."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
import uvloop
from simulator_process import deltas, events

from tokenswarm.simulator.dialects.base import Reply
from tokenswarm.simulator.dialects.openai_chat import ChatEvents
from tokenswarm.simulator.faults import Fault
from tokenswarm.simulator.plan import Plan, Style
from tokenswarm.simulator.reply import ReplyStream
from tokenswarm.simulator.sendlog import SendRecord
from tokenswarm.simulator.text import Tape
from tokenswarm.simulator.wire import Wire

TAPE = Tape(0)


class Paper:
    """A wire made of paper."""

    def __init__(self) -> None:
        self.sends: list[bytes] = []
        self.gone = False
        self.full = False

    def send(self, data: bytes) -> bool:
        self.sends.append(data)
        return True

    def blocked(self) -> bool:
        return self.full


def reply(length: int, style: Style, act: Callable[[ReplyStream, Paper], None]) -> tuple[Paper, SendRecord]:
    """Let `act` play the engine for a reply of `length` tokens."""
    paper, record = Paper(), SendRecord(id="r", received_ns=0)
    plan = Plan(1, TAPE.starts[7], length, min(style.reasoning, length), "length", Fault(), random.Random(5))
    said = Reply("id", "m", 0, 1, length, plan.reasoning, "length")

    async def run() -> None:
        wire = cast(Wire, paper)
        stream = ReplyStream(plan, style, TAPE, ChatEvents(said, chunked=False), wire, record, lambda: None)
        act(stream, paper)
        assert stream.over and stream.wake.done()

    asyncio.run(run())
    return paper, record


def steps(length: int, size: int = 1) -> Callable[[ReplyStream, Paper], None]:
    def act(stream: ReplyStream, paper: Paper) -> None:
        for made in range(size, length + size, size):
            stream.emit(min(size, length - made + size), made >= length)

    return act


def test_cut_writes_cut_every_chunk_in_two_also_inside_a_code_point() -> None:
    paper, record = reply(400, Style(cut_writes=True), steps(400))
    assert len(paper.sends) == 801
    assert "".join(deltas(events(b"".join(paper.sends)))) == TAPE.text(TAPE.starts[7], 400)
    assert len(record.sent_ns) == 400
    inside = 0
    for first, second in zip(paper.sends[:800:2], paper.sends[1:800:2], strict=True):
        assert first and not first.endswith(b"\n")
        assert second.endswith(b"\n\n")
        try:
            first.decode()
        except UnicodeDecodeError:
            inside += 1
    assert inside > 10


def test_empty_chunks_hold_their_token_back_for_the_next() -> None:
    paper, record = reply(300, Style(empty_chunks=0.4), steps(300))
    parsed = events(b"".join(paper.sends))
    assert "".join(deltas(parsed)) == TAPE.text(TAPE.starts[7], 300)
    assert parsed[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    empty = sum(1 for event in parsed[1:-3] if not event["choices"][0]["delta"]["content"])
    assert empty == 300 - len(record.sent_ns) > 60
    assert sum(record.tokens) == 300 and max(record.tokens) > 1


def test_reasoning_comes_first_and_is_split_at_its_border() -> None:
    paper, record = reply(12, Style(reasoning=6), steps(12, 4))
    parsed = events(b"".join(paper.sends))
    at = TAPE.starts[7]
    assert "".join(deltas(parsed, "reasoning_content")) == TAPE.text(at, 6)
    assert "".join(deltas(parsed)) == TAPE.text(at + 6, 6)
    assert record.tokens == [4, 2, 2, 4]
    assert record.reasoning == [True, True, False, False]
    assert parsed[-2]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 6}


@pytest.mark.parametrize("still_full_at_the_end", [False, True])
def test_what_a_slow_reader_is_owed_comes_as_one_chunk(still_full_at_the_end: bool) -> None:
    def act(stream: ReplyStream, paper: Paper) -> None:
        for made in range(1, 31):
            paper.full = made > 10 and (made < 25 or still_full_at_the_end)
            stream.emit(1, made == 30)
        if still_full_at_the_end:
            stream.flush()
            assert stream.wake.done() and not stream.over
            paper.full = False
            stream.flush()

    paper, record = reply(30, Style(), act)
    assert record.tokens == [1] * 10 + ([20] if still_full_at_the_end else [15] + [1] * 5)
    assert record.output_tokens == 30
    assert "".join(deltas(events(b"".join(paper.sends)))) == TAPE.text(TAPE.starts[7], 30)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.Transport, socket.socket]]:
    """A server's transport and the client's socket at the other end."""
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[asyncio.Transport] = loop.create_future()

    class Accept(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.set_result(cast(asyncio.Transport, transport))

    listener = await loop.create_server(Accept, "127.0.0.1", 0)
    with socket.create_connection(listener.sockets[0].getsockname()) as client:
        client.setblocking(False)
        yield await accepted, client
    listener.close()


def test_what_the_transport_keeps_is_not_overtaken() -> None:
    """The socket may have room again before the transport has sent what it keeps."""
    block = b"a" * 16_384

    async def run() -> bytes:
        loop = asyncio.get_running_loop()
        async with connected() as (transport, client):
            wire = Wire(transport)
            size = len(block)
            while wire.send(block):
                size += len(block)
            received = bytearray(client.recv(size))
            assert wire.blocked()
            assert not wire.send(b"last")
            while len(received) < size + 4:
                received += await loop.sock_recv(client, size)
            assert not wire.blocked()
            assert wire.send(b"!")
        return bytes(received)

    assert uvloop.run(run()).strip(b"a") == b"last"


def test_wire_whose_peer_is_gone_says_so() -> None:
    async def run() -> None:
        async with connected() as (transport, client):
            wire = Wire(transport)
            client.close()
            while not transport.is_closing():
                await asyncio.sleep(0.001)
            assert not wire.send(b"anyone?")
            assert wire.gone and not wire.blocked()

    uvloop.run(run())
