"""Several servers of the same model, each request to the next one in turn. Which one it was tells `remote_addr`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence

from tokenswarm.protocols.base import WireProtocol, WireRequest
from tokenswarm.timing import Tally, Timeline
from tokenswarm.transport.base import Call, Client, Transport
from tokenswarm.transport.reply import ReplyState


class Replicas:
    """A `Transport` made of one for each server; all users together go round."""

    def __init__(self, transports: Sequence[Transport]) -> None:
        first = transports[0]
        self.name = first.name
        self.origin = first.origin
        self.clock = first.clock
        self.kernel_clock = first.kernel_clock
        self.transports = transports
        self._turn = itertools.cycle(range(len(transports)))

    def client(self) -> ReplicaClient:
        """As `Transport` has it."""
        return ReplicaClient(self)

    def next(self) -> int:
        """Whose turn it is."""
        return next(self._turn)

    def close(self) -> None:
        """As `Transport` has it."""
        for transport in self.transports:
            transport.close()


class ReplicaClient:
    """One user's connections to all of them."""

    def __init__(self, transport: Replicas) -> None:
        self.transport = transport
        self._clients: list[Client] = [each.client() for each in transport.transports]

    def call(
        self,
        protocol: WireProtocol,
        request: WireRequest,
        request_id: str,
        timeline: Timeline,
        tally: Tally,
        on_first_token: Callable[[], None] | None = None,
        expect_stream: bool = True,
    ) -> Call[ReplyState]:
        """As `Client` has it, to the server whose turn it is."""
        client = self._clients[self.transport.next()]
        return client.call(protocol, request, request_id, timeline, tally, on_first_token, expect_stream)

    @property
    def busy(self) -> Collection[object]:
        """As `Client` has it."""
        return [call for client in self._clients for call in client.busy]

    def retire(self) -> None:
        """As `Client` has it."""
        for client in self._clients:
            client.retire()

    def close(self) -> None:
        """As `Client` has it."""
        for client in self._clients:
            client.close()
