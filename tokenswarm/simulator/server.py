"""The HTTP side of the simulator: routes and authorisation; `answer.py` has one request's way from there."""

from __future__ import annotations

import hmac
import re
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from aiohttp import HttpVersion11, web
from prometheus_client import CONTENT_TYPE_LATEST

from tokenswarm.simulator.answer import Backend, Call
from tokenswarm.simulator.dialects import DIALECTS, fastchat, ollama, openai_chat, tgi, websocket_chat
from tokenswarm.simulator.dialects.base import Dialect
from tokenswarm.simulator.metrics import Metrics
from tokenswarm.simulator.pacing import EngineLoop
from tokenswarm.simulator.plan import Style
from tokenswarm.simulator.request import ApiError
from tokenswarm.simulator.sendlog import SendLog, SendRecord
from tokenswarm.simulator.text import Tape
from tokenswarm.simulator.websocket import Conversations
from tokenswarm.simulator.wire import SentResponse, Wire

MAX_BODY_BYTES = 64 << 20

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,200}")
_OPENAI = DIALECTS[0]

Listing = Callable[[web.Request, bytes], dict[str, Any]]
"""What a request with this body is told. May raise ApiError."""


class Simulator:
    """One model on one engine. `api_key` None lets everybody in; `log` None logs nothing."""

    def __init__(
        self, engine_loop: EngineLoop, *, model: str, style: Style, seed: int, api_key: str | None, log: SendLog | None
    ) -> None:
        self._backend = Backend(engine_loop, model, style, Tape(seed), seed)
        self._conversations = Conversations(self._backend, self._authorise, self._account)
        self._metrics = Metrics(engine_loop)
        self._model = model
        self._api_key = api_key
        self._log = log
        self._created = int(time.time())

    def application(self, base_path: str = "") -> web.Application:
        """Everything it serves, under `base_path`."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        for dialect in DIALECTS:
            app.router.add_post(f"{base_path}{dialect.path}", partial(self._generate, dialect))
        model, window = self._model, self._backend.style.max_model_len

        def models(request: web.Request, body: bytes) -> dict[str, Any]:
            return openai_chat.models(model, self._created, window)

        listings: list[tuple[str, str, Listing]] = [
            ("GET", "/v1/models", models),
            ("GET", "/compatible-mode/v1/models", models),  # DashScope's
            ("GET", "/api/tags", lambda request, body: ollama.tags(model)),
            ("GET", "/info", lambda request, body: tgi.info(model, window)),
            ("POST", "/list_models", lambda request, body: fastchat.list_models(model)),
            (
                "POST",
                "/get_worker_address",
                lambda request, body: fastchat.worker_address(body, model, f"{request.url.origin()}{base_path}"),
            ),
        ]
        for method, path, listing in listings:
            app.router.add_route(method, f"{base_path}{path}", partial(self._list, listing))
        app.router.add_get(f"{base_path}{websocket_chat.WebSocketChat.path}", self._conversations.converse)
        app.router.add_get(f"{base_path}/metrics", self._page)
        app.router.add_get(f"{base_path}/health", self._health)
        app.router.add_route("*", "/{path:.*}", self._unknown)
        return app

    async def _health(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "ok"})

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self._metrics.page(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _list(self, listing: Listing, request: web.Request) -> web.StreamResponse:
        """What there is, for those who may know."""
        body = await request.read()
        try:
            self._authorise(_OPENAI.key(request.headers))
            said = msgspec.json.encode(listing(request, body))
        except ApiError as error:
            return web.Response(status=error.status, body=_OPENAI.refusal(error), content_type="application/json")
        return web.Response(body=said, content_type="application/json")

    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        served = ", ".join([dialect.path for dialect in DIALECTS])
        message = f"{request.method} {request.path} is not served; {served}, /ws, /v1/models, /metrics, /health are."
        return web.Response(status=404, body=_OPENAI.refusal(ApiError(404, message)), content_type="application/json")

    async def _generate(self, dialect: Dialect[Any], request: web.Request) -> web.StreamResponse:
        body = await request.read()
        received_ns = time.monotonic_ns()
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client left while its request was read")
        asked = request.headers.get("X-Request-Id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        call = Call(
            self._backend,
            dialect,
            SendRecord(id=request_id, received_ns=received_ns),
            Wire(transport),
            chunks_allowed=request.version >= HttpVersion11,
            keep_alive=request.keep_alive,
        )
        try:
            self._authorise(dialect.key(request.headers))
            await call.answer(body, request.headers)
        except ApiError as error:
            call.record.outcome = "rejected"
            call.refuse(error)
        finally:
            if call.sequence is not None:
                self._backend.engine.cancel(call.sequence)
            self._account(call.record)
        return SentResponse(keep_alive=call.keep_alive)

    def _authorise(self, given: str) -> None:
        if self._api_key is None:
            return
        if not hmac.compare_digest(given.encode(errors="replace"), self._api_key.encode()):
            raise ApiError(401, "No API key, or a wrong one, in the request's headers.", code="invalid_api_key")

    def _account(self, record: SendRecord) -> None:
        ttft_ns = record.sent_ns[0] - record.received_ns if record.stream and record.sent_ns else None
        self._metrics.ended(record.outcome, ttft_ns)
        if self._log is not None:
            self._log.write(record)
