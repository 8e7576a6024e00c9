"""Several servers of the same model, each request to the next one in turn. Which one it was tells `remote_addr`."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from tokenswarm.transport.base import Call, Client, Transport
from tokenswarm.transport.reply import ReplyState
from tokenswarm.transport.request import Request


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

    def call(self, request: Request) -> Call[ReplyState]:
        """As `Client` has it, to the server whose turn it is."""
        return self._clients[self.transport.next()].call(request)

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
