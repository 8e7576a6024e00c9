"""The model server before load starts: which model, and does it answer one small request as it should?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from tokenswarm.errors import OptionError, RequestError, TargetError
from tokenswarm.framing import Event
from tokenswarm.options import KEY_VARIABLES, Options, redact, secret_values
from tokenswarm.protocols.base import Delta, Generation, HttpProtocol, Message, WireProtocol, WireRequest
from tokenswarm.record import ERROR_LENGTH, one_line
from tokenswarm.timing import Tally, Timeline
from tokenswarm.transport.base import Call, Client, Transport
from tokenswarm.transport.origin import Origin, Origins, parse_origin
from tokenswarm.transport.reply import ReplyState
from tokenswarm.transport.request import Request

Connect = Callable[[Origins], Transport]
PROBE_PROMPT = "Say hello."
CHECK_ID = "00000000-0000-4000-8000-000000000000"
"""The X-Request-Id of what is sent before the load; a UUID, as those of the load are."""


class Target(msgspec.Struct, frozen=True):
    """What the check found: `origins` are where requests go. `notes` are sentences for the console."""

    model: str
    origins: Origins
    notes: tuple[str, ...] = ()


class _Page(HttpProtocol):
    """Fetches a page as if it were a protocol, so that it goes over the same transport as the load."""

    name = "page"

    def encode(self, messages: Sequence[Message], generation: Generation) -> WireRequest:
        raise NotImplementedError

    def decoder(self) -> _Page:
        return self

    def decode(self, event: Event) -> Delta | None:
        return None

    def decode_whole(self, body: bytes) -> Delta:
        return Delta(text=body.decode("utf-8", "replace"))


def check(connect: Connect, origins: Origins, protocol: WireProtocol, options: Options) -> Target:
    """Find the model and where it is served; send one small request to each server. Raises TargetError with what to do
    about it."""
    try:
        found = [_check(connect, origin, protocol, options) for origin in origins.each]
    except TargetError as error:
        raise TargetError(redact(str(error), secret_values(options))) from None
    models = sorted({target.model for target in found})
    if len(models) > 1:
        raise TargetError(f"the servers of --host serve different models: {_join(models)}; name one with --model")
    served = Origins(tuple(origin for target in found for origin in target.origins.each))
    return Target(models[0], served, tuple(dict.fromkeys(note for target in found for note in target.notes)))


def _check(connect: Connect, origin: Origin, protocol: WireProtocol, options: Options) -> Target:
    with _client(connect, origin) as client:
        listed = _listed_models(client, protocol, required=options.model is None)
        model = options.model or _only_one(listed, origin.url, protocol.default_model)
        served = _prepared(client, protocol, model)
    if not options.check:
        return Target(model, Origins((served,)))
    try:
        with _client(connect, served) as client:
            _probe(client, protocol, options, model)
    except TargetError as error:
        raise TargetError(f"{error}{_names(listed, model)}") from None
    if not listed or model in listed:
        return Target(model, Origins((served,)))
    note = f"The server lists no model {model!r} (but {_join(listed)}), and answered all the same."
    return Target(model, Origins((served,)), (note,))


@contextmanager
def _client(connect: Connect, origin: Origin) -> Iterator[Client]:
    transport = connect(Origins((origin,)))
    client = transport.client()
    try:
        yield client
    finally:
        client.close()
        transport.close()


def _prepared(client: Client, protocol: WireProtocol, model: str) -> Origin:
    """Where the model is served: elsewhere, if the protocol has somebody to ask for that."""
    origin = client.transport.origin
    request = protocol.preparation(model)
    if request is None:
        return origin
    exchange = _run(client, _Page(), request, stream=False).exchange
    try:
        if exchange.error is not None:
            raise exchange.error
        return parse_origin(protocol.prepared("".join(exchange.text).encode()))
    except RequestError as error:
        raise TargetError(_advice(origin.url, error)) from None
    except OptionError as error:
        raise TargetError(f"{origin.url} names a server that cannot be: {error}") from None


def _listed_models(client: Client, protocol: WireProtocol, required: bool) -> list[str]:
    request = protocol.listing()
    if request is None:
        return []
    call = _run(client, _Page(), request, stream=False)
    error = call.exchange.error
    try:
        if error is None:
            return protocol.models("".join(call.exchange.text).encode())
    except RequestError as malformed:
        error = malformed
    if required or error.error_class in ("connect", "dns", "tls", "connect_timeout"):
        unlisted = error.http_status in (404, 405, 501) or error.error_class == "malformed"
        hint = "; name the model with --model" if unlisted else ""
        raise TargetError(_advice(client.transport.origin.url, error) + hint)
    return []


def _only_one(listed: list[str], url: str, default: str | None) -> str:
    if len(listed) == 1:
        return listed[0]
    if not listed and default is not None:
        return default
    if not listed:
        raise TargetError(f"{url} lists no model; name one with --model")
    raise TargetError(f"{url} serves {len(listed)} models; choose one with --model: {_join(listed)}")


def _probe(client: Client, protocol: WireProtocol, options: Options, model: str) -> None:
    stream = options.stream and protocol.streams
    generation = Generation(
        model=model,
        stream=stream,
        max_tokens=_probe_tokens(protocol, options),
        ignore_eos=options.ignore_eos,
        extra_body=options.extra_body,
        request_id=CHECK_ID,
    )
    request = protocol.encode([{"role": "user", "content": PROBE_PROMPT}], generation)
    error = _run(client, protocol, request, stream).exchange.error
    # One token can be the end mark itself, so an empty reply proves nothing here.
    if error is not None and error.error_class != "empty":
        raise TargetError(_advice(client.transport.origin.url, error))


def _probe_tokens(protocol: WireProtocol, options: Options) -> int | None:
    asked = {"max_tokens", "max_completion_tokens"} & options.extra_body.keys()
    return None if asked else protocol.fewest_tokens


def _run(client: Client, protocol: WireProtocol, wire: WireRequest, stream: bool) -> Call[ReplyState]:
    request = Request(
        protocol=protocol,
        wire=wire,
        id=CHECK_ID,
        timeline=Timeline(time.monotonic_ns()),
        tally=Tally(),
        expect_stream=stream,
    )
    call = client.call(request)
    call.run()
    return call


def _advice(url: str, error: RequestError) -> str:
    status = error.http_status
    said = one_line(str(error))
    said = said if len(said) <= ERROR_LENGTH else f"{said[:ERROR_LENGTH]}…"
    if status in (401, 403):
        what = f"put the key into {KEY_VARIABLES[0]} in the environment, or check the one that is there"
    elif status == 404:
        what = "the path or the model is unknown there; check --host, --model and --protocol"
    elif status is not None and 400 <= status < 500:
        what = "check --model, --extra-body and the other options that go into the request"
    elif error.error_class == "connect":
        what = "is the server running, and is this its port?"
    elif error.error_class == "malformed" and status is None:
        what = "something else than an HTTP server listens there; is this the right port?"
    elif error.error_class == "truncated" and status is None:
        what = "is this the right port, and should it be https:// instead of http:// (or the other way round)?"
    else:
        return f"{url}: {said}"
    return f"{url}: {said} — {what}"


def _names(listed: list[str], model: str) -> str:
    return f" (asked for {model!r}; the server lists {_join(listed)})" if listed and model not in listed else ""


def _join(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
