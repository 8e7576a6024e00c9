"""What a chunk costs in Python alone: replies replayed into connections, without sockets, Locust or a second process.

    python benchmarks/hot_path.py               µs a chunk: the best of many repetitions
    python benchmarks/hot_path.py --profile     where it goes (cProfile, which makes calls look dearer than they are)

Much less noisy than truth.py, but only a part: the kernel, the receive thread and the event loop are not in it.
"""

from __future__ import annotations

import argparse
import cProfile
import time
from collections.abc import Callable

from tokenswarm.protocols.base import Generation
from tokenswarm.protocols.openai_chat import OpenAIChat
from tokenswarm.record import RequestRecord, csv_rows, measure
from tokenswarm.timing import Anchor, Clock, Tally, Timeline
from tokenswarm.transport.clock import LoopClock
from tokenswarm.transport.connection import Connection
from tokenswarm.transport.exchange import HttpExchange
from tokenswarm.transport.origin import parse_origin
from tokenswarm.transport.request import Request

CHUNKS = 128
STREAMS = 1000
STEP_NS = 20_000_000
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = (
    '{"id":"chatcmpl-5b1c0d3e-0-123","object":"chat.completion.chunk","created":1770000000,"model":"model",'
    '"choices":[{"index":0,"delta":{"content":"%s"},"logprobs":null,"finish_reason":%s,"token_ids":null}]}'
)
_PROTOCOL = OpenAIChat()
_WIRE = _PROTOCOL.encode([], Generation(model="model"))
USAGE = '{"choices":[],"usage":{"prompt_tokens":16,"total_tokens":144,"completion_tokens":128}}'


def reads() -> list[bytes]:
    """One reply, a read an event, as vLLM sends it."""

    def chunk(event: str) -> bytes:
        data = f"data: {event}\n\n".encode()
        return b"%x\r\n%s\r\n" % (len(data), data)

    tokens = [chunk(EVENT % (text, "null")) for text in (" the", " model", ",", " 令牌")]
    end = chunk(EVENT % (".", '"length"')) + chunk(USAGE) + chunk("[DONE]") + b"0\r\n\r\n"
    return [HEAD, *(tokens[i % 4] for i in range(CHUNKS - 1)), end]


class Replay:
    """One reply to each of many connections, in turn, as their chunks come; so the processor's caches do not help."""

    def __init__(self, clock: LoopClock) -> None:
        self.lines: list[Timeline] = []
        origin = parse_origin("http://127.0.0.1")
        self._connections = [Connection(origin, clock, None) for _ in range(STREAMS)]
        self._reads = reads()
        self._tally = Tally()

    def receive(self) -> None:
        """From the bytes to the timelines."""
        self._tally.take()
        exchanges = []
        for connection in self._connections:
            line = Timeline(0)
            line.sent = STEP_NS
            request = Request(protocol=_PROTOCOL, wire=_WIRE, id="", timeline=line, tally=self._tally)
            exchange = HttpExchange(request, _nothing)
            connection.attach(exchange)
            exchanges.append(exchange)
        at = STEP_NS
        for data in self._reads:
            at += STEP_NS
            for connection in self._connections:
                connection.received(data, at, at, at, Clock.KERNEL)
        assert all(exchange.finished for exchange in exchanges)
        self.lines = [exchange.timeline for exchange in exchanges]

    def rows(self) -> None:
        """Their rows."""
        anchor = Anchor(1_770_000_000_000_000_000, 0)
        for line in self.lines:
            record = RequestRecord(
                id="5b1c0d3e-0000-4000-8000-00000000007b", status="ok", output_tokens=CHUNKS, token_source="usage"
            )
            measure(record, line, anchor)
            csv_rows([record])


def _nothing() -> None:
    pass


def best_us(work: Callable[[], None], seconds: float) -> float:
    """µs a chunk, the best of the repetitions of `work` that fit, and of one at least."""
    best, until = float("inf"), time.monotonic() + seconds
    while best == float("inf") or time.monotonic() < until:
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best / (STREAMS * CHUNKS) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure (default: %(default)s)")
    parser.add_argument("--profile", action="store_true", help="show where the time goes")
    given = parser.parse_args()
    from gevent import get_hub

    replay = Replay(LoopClock(get_hub().loop))
    replay.receive()
    if given.profile:
        profile = cProfile.Profile()
        profile.runcall(replay.receive)
        profile.runcall(replay.rows)
        profile.print_stats("tottime")
        return
    print(f"from bytes to timeline   {best_us(replay.receive, given.seconds):6.2f} µs a chunk")
    print(f"from timeline to row     {best_us(replay.rows, given.seconds):6.2f} µs a chunk")


if __name__ == "__main__":
    main()
