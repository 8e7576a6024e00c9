"""Keeps Locust's master listening, whatever a peer sends.

Its port has no authentication, and its one listening greenlet dies of a message that cannot be unpacked, or that lacks
what its type should have; the run would then end without any worker's rows. No hook of Locust's is in the way of it.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any, Final, Literal, NotRequired, Required, TypedDict

import msgspec
from gevent import getcurrent
from locust.exception import RPCError
from locust.rpc import zmqrpc

from tokenswarm.errors import MessageError
from tokenswarm.record import one_line

_log = logging.getLogger("tokenswarm")
_hearing: set[int] = set()


class _Entry(TypedDict, total=False):
    name: Required[str]
    method: Required[str]
    last_request_timestamp: float | None
    start_time: float
    num_requests: int
    num_none_requests: int
    num_failures: int
    total_response_time: float
    max_response_time: float
    min_response_time: float | None
    total_content_length: float
    response_times: dict[float, int]
    num_reqs_per_sec: dict[float, int]
    num_fail_per_sec: dict[float, int]


class _Error(TypedDict):
    name: str
    method: str
    error: str
    occurrences: int
    first_seen: NotRequired[float | None]
    last_seen: NotRequired[float | None]


class _Users(TypedDict):
    user_classes_count: dict[str, int]


class _Stats(_Users):
    stats: list[_Entry]
    stats_total: _Entry
    errors: dict[str, _Error]


class _Heartbeat(TypedDict):
    state: str
    current_cpu_usage: float
    current_memory_usage: NotRequired[float]


class _Raised(TypedDict):
    msg: str
    traceback: str


class _Logs(TypedDict):
    worker_id: str
    logs: list[str]


class _Wanted(TypedDict):
    version: str


SHAPES: Final[dict[str, Any]] = {
    "client_ready": Annotated[str, msgspec.Meta(pattern=r"^[\w.+-]{1,100}$")] | Literal[-1],
    "client_stopped": Any,
    "exception": _Raised,
    "heartbeat": _Heartbeat,
    "locustfile": _Wanted,
    "logs": _Logs,
    "quit": Any,
    "spawning": Any,
    "spawning_complete": _Users,
    "stats": _Stats,
}
"""What Locust reads of its own messages, without a look at it; of some it reads nothing."""
OF_WORKERS: Final = ("exception", "logs", "stats")
"""What Locust would take from anybody."""


def keep_listening(runner: Any) -> None:
    """From now on what cannot be understood is refused with a log line."""
    handle = runner.handle_message

    def handle_message(client_id: str, message: Any) -> None:
        if not client_id.isprintable():  # it would go to the console
            _refused(client_id, "that is no name")
            return
        if message.node_id != client_id:
            _refused(client_id, f"it claims to come from {message.node_id!r}")
            return
        if message.type in OF_WORKERS and client_id not in runner.clients:
            _refused(client_id, f"{message.type!r} of nobody who is a worker")
            return
        current = id(getcurrent())
        _hearing.add(current)
        try:
            if message.type in SHAPES:
                msgspec.convert(message.data, SHAPES[message.type])
            elif message.type not in runner.custom_messages:
                raise MessageError("nobody listens to it")
            handle(client_id, message)
        except Exception as error:
            _refused(client_id, f"{message.type!r}: {error!r}")
        finally:
            _hearing.discard(current)

    runner.handle_message = handle_message
    if not hasattr(zmqrpc.Server.recv_from_client, "refuses"):
        zmqrpc.Server.recv_from_client = _refusing(zmqrpc.Server.recv_from_client)  # type: ignore[method-assign]


def hears_now() -> bool:
    """Whether it is the listening greenlet itself that runs, so that waiting for a message would be for ever."""
    return id(getcurrent()) in _hearing


def _refusing(receive: Any) -> Any:
    def recv_from_client(server: Any) -> Any:
        while True:
            try:
                return receive(server)
            except RPCError:
                raise  # Locust knows what to do
            except Exception as error:
                _refused("somebody", repr(error))

    recv_from_client.refuses = True  # type: ignore[attr-defined]
    return recv_from_client


def _refused(sender: str, why: str) -> None:
    _log.error("A message of %s to the master's port was refused: %s", one_line(sender), one_line(why)[:300])
