"""The WebSocket side of the simulator: the handshake and its faults, then one turn after another.

aiohttp reads; what the engine makes is written past it, as for HTTP, so that the log has the time of each send.
"""

from __future__ import annotations

import random
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from aiohttp import WSMsgType, web

from tokenswarm.simulator.answer import Backend, Call
from tokenswarm.simulator.dialects.base import Events, Reply
from tokenswarm.simulator.dialects.websocket_chat import (
    WebSocketChat,
    WebSocketChatEvents,
    frame,
)
from tokenswarm.simulator.faults import FaultKind, draw
from tokenswarm.simulator.plan import Plan
from tokenswarm.simulator.request import ApiError, on_purpose
from tokenswarm.simulator.sendlog import SendRecord
from tokenswarm.simulator.wire import SentResponse, Wire

MAX_MESSAGE_BYTES: Final = 64 << 20
AT_THE_HANDSHAKE: Final[tuple[FaultKind, ...]] = ("status", "rate-limit", "reset-early", "wrong-type")
"""Faults of `--fault` that a WebSocket meets before it is one; its turns meet the others."""

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,200}")
_DIALECT = WebSocketChat()


@dataclass(slots=True)
class Turn(Call):
    """One turn, from its message to its line in the log."""

    def _open_stream(self, request: Any, plan: Plan, reply: Reply) -> Events:
        self.keep_alive = plan.fault.fault not in ("no-done", "close-delimited")
        return WebSocketChatEvents(reply, request, closes=not self.keep_alive)

    def _send_whole(
        self,
        status: int,
        body: bytes,
        *,
        delimited: bool = True,
        content_type: str | None = None,
        more: Mapping[str, str] | None = None,
    ) -> bool:
        """A message of its own: there are no headers, nor a status but in the message."""
        record = self.record
        record.status = status
        record.end_ns = time.monotonic_ns()
        exact = self.wire.send(frame(body))
        if self.wire.gone:
            record.end_ns = None
        return exact


class Conversations:
    """`GET /ws`. `authorise` takes the key that came with the handshake and may raise ApiError; `account` takes each
    turn's record at its end."""

    def __init__(
        self, backend: Backend, authorise: Callable[[str], None], account: Callable[[SendRecord], None]
    ) -> None:
        faults = backend.style.faults
        self._refusals = tuple(each for each in faults if each.kind in AT_THE_HANDSHAKE)
        turns = tuple(each for each in faults if each.kind not in AT_THE_HANDSHAKE)
        self._backend = replace(backend, style=replace(backend.style, faults=turns))
        self._authorise = authorise
        self._account = account
        self._handshakes = 0

    async def converse(self, request: web.Request) -> web.StreamResponse:
        """From the handshake to the end of the connection."""
        self._handshakes += 1
        try:
            self._authorise(_DIALECT.key(request.headers))
        except ApiError as error:
            return _refusal(error)
        source = random.Random(f"{self._backend.seed}:handshake:{self._handshakes}")
        fault = draw(self._refusals, source)
        if fault.fault != "none":
            return _fail(request, fault.fault, fault.status)
        socket = web.WebSocketResponse(compress=False, max_msg_size=MAX_MESSAGE_BYTES)
        await socket.prepare(request)
        await self._turns(request, socket)
        return socket

    async def _turns(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        transport = request.transport
        if transport is None:
            return
        wire = Wire(transport)
        asked = request.headers.get("X-Request-Id", "")
        first = asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        number = 0
        async for message in socket:
            received_ns = time.monotonic_ns()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                continue
            number += 1
            body = message.data.encode() if isinstance(message.data, str) else message.data
            name = _named(body) or (first if number == 1 else f"{first}.{number}")
            record = SendRecord(id=name, received_ns=received_ns)
            turn = Turn(self._backend, _DIALECT, record, wire, chunks_allowed=False, keep_alive=True)
            try:
                await turn.answer(body, request.headers)
            except ApiError as error:
                record.outcome = "rejected"
                turn.refuse(error)
            finally:
                if turn.sequence is not None:
                    self._backend.engine.cancel(turn.sequence)
                self._account(record)
            if not turn.keep_alive or transport.is_closing():
                wire.close()
                return


def _refusal(error: ApiError, more: Mapping[str, str] | None = None) -> web.StreamResponse:
    """As FastAPI refuses a handshake."""
    body = msgspec.json.encode({"detail": str(error)})
    return web.Response(status=error.status, body=body, content_type="application/json", headers=more)


def _fail(request: web.Request, kind: FaultKind, status: int) -> web.StreamResponse:
    """Play a fault of the handshake."""
    if kind == "rate-limit":
        return _refusal(on_purpose(429), {"Retry-After": "1"})
    if kind == "wrong-type":
        return web.Response(text="<!DOCTYPE html>\n<title>Welcome</title>\n", content_type="text/html")
    if kind == "reset-early" and request.transport is not None:
        Wire(request.transport).reset()
        return SentResponse(keep_alive=False)
    return _refusal(on_purpose(status))


class _Named(msgspec.Struct):
    id: str = ""


def _named(body: bytes) -> str:
    """The id that a turn gives itself, empty if none or if it is no request at all."""
    try:
        return msgspec.json.decode(body, type=_Named).id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
