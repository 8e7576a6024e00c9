"""Name lookup and TCP connect, timed apart, in the caller's greenlet; errors by class."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from gevent import socket as gsocket
from gevent.monkey import get_original

from tokenswarm.errors import RequestError
from tokenswarm.transport.origin import is_address

_plain_getaddrinfo: Final = get_original("socket", "getaddrinfo")


class Dialled(NamedTuple):
    """A connected gevent socket."""

    sock: Any
    remote_addr: str
    dns_ns: int
    tcp_ns: int


def dial(host: str, port: int, prepare: Callable[[Any], None], to: str) -> Dialled:
    """Connect to the first address that answers. `prepare` is given each socket before it connects; `to` is the peer's
    name in messages. Raises RequestError (`dns`, `connect`)."""
    began = time.monotonic_ns()
    addresses = _addresses(host, port)
    dns_ns = time.monotonic_ns() - began
    failure: OSError | None = None
    for family, kind, protocol, _, address in addresses:
        began = time.monotonic_ns()
        try:
            sock = gsocket.socket(family, kind, protocol)
        except OSError as error:  # no such address family, no descriptor left
            failure = error
            continue
        try:
            sock.setsockopt(gsocket.IPPROTO_TCP, gsocket.TCP_NODELAY, 1)
            prepare(sock)
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
            continue
        except BaseException:
            sock.close()
            raise
        return Dialled(sock, address_text(address), dns_ns, time.monotonic_ns() - began)
    why = os.strerror(failure.errno) if failure is not None and failure.errno else str(failure)
    raise RequestError("connect", f"cannot connect to {to}: {why}")


def address_text(address: tuple[Any, ...]) -> str:
    """A socket address as host:port."""
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def _addresses(host: str, port: int) -> list[tuple[Any, ...]]:
    flags = socket.AI_NUMERICHOST if is_address(host) else 0
    lookup = _plain_getaddrinfo if flags else gsocket.getaddrinfo  # a numeric one needs no thread to wait in
    try:
        addresses: list[tuple[Any, ...]] = lookup(host, port, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as error:
        raise RequestError("dns", f"cannot resolve {host!r}: {getattr(error, 'strerror', None) or error}") from None
    return addresses
