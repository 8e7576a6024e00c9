"""The HTTP side of the simulator: routes, authorisation, and one request's way through plan, engine and wire."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
import uuid
from dataclasses import dataclass, field

import msgspec
from aiohttp import HttpVersion11, web
from prometheus_client import CONTENT_TYPE_LATEST

from tokenswarm.simulator import openai
from tokenswarm.simulator.engine import QueueFull, Sequence
from tokenswarm.simulator.faults import TOLD_TOKENS
from tokenswarm.simulator.metrics import Metrics
from tokenswarm.simulator.openai import ApiError, ChatRequest, Events
from tokenswarm.simulator.pacing import EngineLoop
from tokenswarm.simulator.reply import Plan, ReplyStream, Style, plan_reply
from tokenswarm.simulator.sendlog import SendLog, SendRecord
from tokenswarm.simulator.text import Tape
from tokenswarm.simulator.wire import SentResponse, Wire, response_head

MAX_BODY_BYTES = 64 << 20
CATCH_UP_SECONDS = 0.005
"""How often a slow reader is looked at once its reply is complete."""

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(slots=True)
class Call:
    """One chat request from its arrival to its line in the log."""

    record: SendRecord
    wire: Wire
    chunks_allowed: bool
    keep_alive: bool
    sequence: Sequence | None = field(default=None)


class Simulator:
    """One model on one engine. `api_key` None lets everybody in; `log` None logs nothing."""

    def __init__(
        self, engine_loop: EngineLoop, *, model: str, style: Style, seed: int, api_key: str | None, log: SendLog | None
    ) -> None:
        self._engine = engine_loop
        self._metrics = Metrics(engine_loop)
        self._model = model
        self._style = style
        self._seed = seed
        self._api_key = api_key
        self._log = log
        self._tape = Tape(seed)
        self._created = int(time.time())
        self._received = 0

    def application(self, base_path: str = "") -> web.Application:
        """Everything it serves, under `base_path`."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post(f"{base_path}/v1/chat/completions", self._chat)
        app.router.add_get(f"{base_path}/v1/models", self._models)
        app.router.add_get(f"{base_path}/metrics", self._page)
        app.router.add_get(f"{base_path}/health", self._health)
        app.router.add_route("*", "/{path:.*}", self._unknown)
        return app

    async def _health(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "ok"})

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self._metrics.page(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _models(self, request: web.Request) -> web.StreamResponse:
        try:
            self._authorise(request)
        except ApiError as error:
            return web.Response(status=error.status, body=error.body(), content_type="application/json")
        entry = {"id": self._model, "object": "model", "created": self._created, "owned_by": "tokenswarm"}
        body = msgspec.json.encode({"object": "list", "data": [entry | {"max_model_len": self._style.max_model_len}]})
        return web.Response(body=body, content_type="application/json")

    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        message = (
            f"{request.method} {request.path} is not served; /v1/chat/completions, /v1/models, /metrics, /health are."
        )
        return web.Response(status=404, body=openai.envelope(404, message), content_type="application/json")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        received_ns = time.monotonic_ns()
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client left while its request was read")
        asked = request.headers.get("X-Request-Id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        call = Call(
            SendRecord(id=request_id, received_ns=received_ns),
            Wire(transport),
            chunks_allowed=request.version >= HttpVersion11,
            keep_alive=request.keep_alive,
        )
        try:
            self._authorise(request)
            await self._answer(call, body)
        except ApiError as error:
            call.record.outcome = "rejected"
            self._send_whole(call, error.status, error.body())
        finally:
            if call.sequence is not None:
                self._engine.cancel(call.sequence)
            self._account(call.record)
        return SentResponse(keep_alive=call.keep_alive)

    def _authorise(self, request: web.Request) -> None:
        if self._api_key is None:
            return
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(errors="replace"), self._api_key.encode()):
            raise ApiError(401, "No API key, or a wrong one, in the Authorization header.", code="invalid_api_key")

    async def _answer(self, call: Call, body: bytes) -> None:
        chat = openai.parse_chat(body)
        call.record.stream = bool(chat.stream)
        if chat.model != self._model:
            message = f"The model {chat.model!r} does not exist; this server has {self._model!r}."
            raise ApiError(404, message, param="model", code="model_not_found")
        self._received += 1
        plan = plan_reply(chat, self._style, self._tape, self._seed, self._received)
        call.record.input_tokens = plan.input_tokens
        if await self._fails_at_once(call, chat, plan):
            return
        if chat.stream:
            await self._stream(call, plan)
        else:
            await self._whole(call, plan)

    async def _fails_at_once(self, call: Call, chat: ChatRequest, plan: Plan) -> bool:
        """Play the faults that need no engine. True if one of them has ended the request."""
        fault, record = plan.fault, call.record
        if fault.fault in ("status", "silent", "empty"):
            record.outcome = fault.fault
        if fault.fault == "status":
            message = "The server fails on purpose."
            self._send_whole(call, fault.status, openai.envelope(fault.status, message, code=fault.status))
        elif fault.fault == "silent":
            await asyncio.get_running_loop().create_future()
        elif fault.fault == "empty" and chat.stream:
            events = self._open_stream(call, plan)
            record.end_ns = time.monotonic_ns()
            call.wire.send(events.done + events.end)
        elif fault.fault == "empty":
            counts = openai.usage(plan.input_tokens, 0, 0)
            self._send_whole(call, 200, openai.completion(self._reply_id(call), self._model, "", "", None, counts))
        else:
            return False
        return True

    def _submit(self, call: Call, sequence: Sequence) -> None:
        try:
            self._engine.submit(sequence, call.record.received_ns)
        except QueueFull as error:
            raise ApiError(429, f"The server is full: {error}.", code="queue_full") from None
        call.sequence = sequence

    async def _stream(self, call: Call, plan: Plan) -> None:
        sequence = Sequence(plan.input_tokens, plan.length, _nothing)
        self._submit(call, sequence)
        events = self._open_stream(call, plan)
        stream = ReplyStream(
            plan, self._style, self._tape, events, call.wire, call.record, lambda: self._engine.cancel(sequence)
        )
        sequence.emit = stream.emit
        await stream.wake
        while not stream.over:
            await asyncio.sleep(CATCH_UP_SECONDS)
            stream.flush()

    def _open_stream(self, call: Call, plan: Plan) -> Events:
        chunked = call.chunks_allowed and plan.fault.fault != "close-delimited"
        call.keep_alive = call.keep_alive and chunked
        call.wire.send(
            response_head(
                200,
                call.record.id,
                "text/event-stream; charset=utf-8",
                length=None,
                chunked=chunked,
                keep_alive=call.keep_alive,
            )
        )
        return Events(self._reply_id(call), self._model, chunked=chunked)

    async def _whole(self, call: Call, plan: Plan) -> None:
        complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def emit(tokens: int, last: bool) -> None:
            if last and not complete.done():
                complete.set_result(None)

        self._submit(call, Sequence(plan.input_tokens, plan.length, emit))
        await complete
        tape, split = self._tape, plan.start + plan.reasoning
        reasoning, text = tape.text(plan.start, plan.reasoning), tape.text(split, plan.length - plan.reasoning)
        body = openai.completion(self._reply_id(call), self._model, text, reasoning, plan.finish_reason, plan.usage())
        kind, record = plan.fault.fault, call.record
        if kind not in (*TOLD_TOKENS, "no-done"):
            record.outcome = kind
            await self._break_whole(call, kind, body)
            return
        exact = self._send_whole(call, 200, body, delimited=kind != "close-delimited")
        if record.end_ns is not None:
            record.outcome = "ok"
            record.output_tokens = plan.length
            record.sent_ns, record.done_ns = [record.end_ns], [time.monotonic_ns()]
            record.tokens, record.chars = [plan.length], [len(reasoning) + len(text)]
            record.reasoning, record.batched = [False], [1]
            record.inexact = [] if exact else [0]

    async def _break_whole(self, call: Call, kind: str, body: bytes) -> None:
        """The faults of a reply that is not streamed: half a body, broken JSON, or an error instead."""
        half = body[: len(body) // 2]
        if kind == "stream-error":
            self._send_whole(call, 500, openai.envelope(500, "The engine failed on purpose.", code=500))
            return
        if kind == "malformed":
            self._send_whole(call, 200, half)
            return
        head = response_head(200, call.record.id, "application/json", length=len(body), chunked=False, keep_alive=False)
        call.wire.send(head + half)
        if kind == "stall":
            await asyncio.get_running_loop().create_future()
        elif kind == "reset":
            call.wire.reset()
        else:
            call.wire.close()

    def _send_whole(self, call: Call, status: int, body: bytes, *, delimited: bool = True) -> bool:
        """Head and body in one send. True if the kernel took it all at once. Sets `end_ns` unless nobody is there."""
        record = call.record
        record.status = status
        call.keep_alive = call.keep_alive and delimited
        length = len(body) if delimited else None
        head = response_head(
            status, record.id, "application/json", length=length, chunked=False, keep_alive=call.keep_alive
        )
        record.end_ns = time.monotonic_ns()
        exact = call.wire.send(head + body)
        if call.wire.gone:
            record.end_ns = None
        return exact

    def _reply_id(self, call: Call) -> str:
        return f"chatcmpl-{call.record.id}"

    def _account(self, record: SendRecord) -> None:
        ttft_ns = record.sent_ns[0] - record.received_ns if record.stream and record.sent_ns else None
        self._metrics.ended(record.outcome, ttft_ns)
        if self._log is not None:
            self._log.write(record)


def _nothing(tokens: int, last: bool) -> None:
    """Stands in until the stream is there; the engine never emits before the next turn of the loop."""
