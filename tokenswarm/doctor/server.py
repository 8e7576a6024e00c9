"""The model server: the check that a run makes too, then one short reply, timed as in a run, and its certificate."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from tokenswarm import options as opts
from tokenswarm.doctor.finding import Finding, fail, ok, warn
from tokenswarm.errors import OptionError, TargetError
from tokenswarm.protocols.base import Generation
from tokenswarm.run import make_transport
from tokenswarm.target import PROBE_PROMPT, check
from tokenswarm.timing import Tally, Timeline
from tokenswarm.transport.base import Call, Transport
from tokenswarm.transport.origin import Origin, Origins
from tokenswarm.transport.reply import ReplyState
from tokenswarm.transport.request import Request
from tokenswarm.transport.tls import tls_context

_TOKENS: Final = 16
_SOON_DAYS: Final = 14.0


def none_named() -> Finding:
    """No --host: nobody must take what follows for a real server."""
    advice = "name the model server with --host http://..."
    return warn("target", f"no --host: a run would load the embedded simulator, not a real server; {advice}")


def target(origin: Origin, options: opts.Options) -> Iterator[Finding]:
    """What there is to say of the server, as it is found out. Keys are left out of everything it said."""
    secrets = opts.secret_values(options)
    for finding in _target(origin, options):
        text = finding.text
        for secret in secrets:
            text = text.replace(secret, "***")
        yield Finding(finding.level, finding.subject, text)


def _target(origin: Origin, options: opts.Options) -> Iterator[Finding]:
    connect = partial(make_transport, options)
    try:
        connect(Origins((origin,))).close()
    except OptionError as error:
        yield fail("target", str(error))
        return
    except OSError as error:  # ssl.SSLError is one
        yield fail("tls", f"--ca-bundle {options.ca_bundle}: {error.strerror or error}; it must hold PEM certificates")
        return
    try:
        found = check(connect, Origins((origin,)), opts.protocol_of(options), options)
        answers = "answers" if options.check else "is not asked (--no-check)"
        yield ok("target", f"{origin.url} {answers}, model {found.model!r}")
        for note in found.notes:
            yield warn("model", note)
        if origin.secure and options.proxy is None:
            yield certificate(origin, options)
        if options.check:
            transport = connect(found.origins)
            call = _ask(transport, options, found.model)
            transport.close()
            streaming = options.stream and opts.protocol_of(options).streams
            yield _reply(call, streaming, transport.kernel_clock, opts.secret_values(options))
    except TargetError as error:
        yield fail("target", str(error))


def _ask(transport: Transport, options: opts.Options, model: str) -> Call[ReplyState]:
    protocol = opts.protocol_of(options)
    stream = options.stream and protocol.streams
    limited = {"max_tokens", "max_completion_tokens"} & options.extra_body.keys()
    generation = Generation(
        model=model,
        stream=stream,
        max_tokens=None if limited else _TOKENS,
        extra_body=options.extra_body,
        request_id="tokenswarm-doctor",
    )
    wire = protocol.encode([{"role": "user", "content": PROBE_PROMPT}], generation)
    client = transport.client()
    try:
        request = Request(
            protocol=protocol,
            wire=wire,
            id="tokenswarm-doctor",
            timeline=Timeline(time.monotonic_ns()),
            tally=Tally(),
            expect_stream=stream,
        )
        call = client.call(request)
        call.run()
        return call
    finally:
        client.close()


def _reply(call: Call[ReplyState], streaming: bool, kernel_clock: bool, secrets: Sequence[str]) -> Finding:
    line, exchange = call.timeline, call.exchange
    if exchange.error is not None:
        said = opts.redact(str(exchange.error), secrets)
        return fail("reply", f"{said}; the request for one token before it went well")
    whole = ((line.end or line.start) - line.start) / 1e6
    counted = None if exchange.usage is None else exchange.usage.output_tokens
    if exchange.vectors is not None:
        return ok("reply", f"{exchange.vectors.size} numbers after {whole:.1f} ms")
    if not streaming:
        return _counted(f"whole after {whole:.1f} ms", counted)
    if not exchange.streamed:
        return warn("reply", f"came whole after {whole:.1f} ms though a stream was asked for: TTFT will be unknown")
    if not line.at:
        return warn("reply", f"no output within {_TOKENS} tokens; nothing to time")
    ttft = (line.at[0] - line.start) / 1e6
    connecting = ((line.dns_ns or 0) + (line.tcp_ns or 0) + (line.tls_ns or 0)) / 1e6
    text = f"TTFT {ttft:.1f} ms, {connecting:.1f} of it to connect; {len(line.at)} chunks within {whole:.1f} ms"
    if line.max_read_chunks == len(line.at) >= _TOKENS // 4:
        return warn("reply", f"{text}, all in one piece: something on the way buffers the stream, so ITL means nothing")
    if kernel_clock and not exchange.kernel_clock:
        return warn("reply", f"{text}; timed without the kernel's stamps, see there")
    return _counted(text, counted)


def _counted(text: str, tokens: int | None) -> Finding:
    if tokens is None:
        return warn("reply", f"{text}; the server counts no tokens (usage), so a run counts each chunk as one")
    return ok("reply", f"{text}; {tokens} tokens by the server's count")


def certificate(origin: Origin, options: opts.Options) -> Finding:
    """The TLS that was agreed on, and for how long the server's certificate holds."""
    context = tls_context(options.insecure, options.ca_bundle, options.client_cert)
    address = (origin.host, origin.port)
    try:
        with (
            socket.create_connection(address, timeout=options.connect_timeout) as plain,
            context.wrap_socket(plain, server_hostname=origin.host) as secured,
        ):
            agreed, shown = secured.version(), secured.getpeercert() or {}
    except OSError as error:
        return fail("tls", f"{origin.url}: {error.strerror or error}")
    if options.insecure:
        return warn("tls", f"{agreed}, certificate not checked (--insecure): anybody may be answering")
    until = str(shown.get("notAfter", ""))
    days = (ssl.cert_time_to_seconds(until) - time.time()) / 86400
    text = f"{agreed}, certificate valid until {until}"
    return warn("tls", f"{text}, {days:.0f} days from now: renew it") if days < _SOON_DAYS else ok("tls", text)
