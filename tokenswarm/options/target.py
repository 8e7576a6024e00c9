"""Options on what is loaded: protocol, model, transport, TLS, proxy, headers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tokenswarm import proxy
from tokenswarm.options.entry import Option, file, files, flag, json_object, off, on, on_or_off, one_of, repeated, text
from tokenswarm.options.values import Options
from tokenswarm.protocols import PROTOCOLS
from tokenswarm.protocols.websocket_chat import Shape, WebSocketChat
from tokenswarm.scraping.messages import TARGET

_TRANSPORTS = ("fast", "portable")

OPTIONS: Final = (
    Option(
        "protocol", "NAME", f"wire protocol: {', '.join(PROTOCOLS)}", one_of(*PROTOCOLS), default=Options().protocol
    ),
    Option("model", "NAME", "model to ask for; left out: the only one that the server lists", text),
    Option("query_model", "FILE", "Python file with query_model(prompt, max_resp_tokens), for --protocol custom", file),
    Option(
        "transport",
        "|".join(_TRANSPORTS),
        "portable: through proxies, but timed by this process's clock",
        one_of(*_TRANSPORTS),
        default="fast",
    ),
    Option("insecure", "", "trust any TLS certificate", on, default=False),
    Option("ca_bundle", "FILE", "PEM file of the authorities to trust for TLS", file),
    Option(
        "client_cert",
        "FILE[,KEY]",
        "PEM file of a TLS client certificate; its key from a second file if need be",
        files(2),
    ),
    Option(
        "proxy",
        "URL",
        f"proxy ({', '.join(proxy.SCHEMES)}) for --transport portable; $VARIABLE in it is taken from the environment",
        text,
    ),
    Option(
        "header",
        "'NAME: VALUE'",
        "'Name: value' to send with each request, may be repeated; $VARIABLE in it is taken from the environment",
        repeated,
        default=[],
        field="headers",
    ),
    Option(
        "extra_body",
        "JSON",
        "JSON object merged into each request's body, e.g. '{\"top_k\": 5}'",
        json_object,
    ),
    Option(
        "no_stream",
        "",
        "ask for whole replies; TTFT, TPOT and ITL are then unknown",
        off,
        default=False,
        field="stream",
    ),
    Option("keep_alive", "on|off", "reuse connections; off opens one for each request", on_or_off, default="on"),
    Option(
        "no_check",
        "",
        "do not send the one small request that checks the target before load starts",
        off,
        default=False,
        field="check",
    ),
)


def problems(options: Options) -> Iterator[str]:
    """What contradicts itself."""
    yield from _without_a_server(options)
    if options.insecure and options.ca_bundle:
        yield "--insecure and --ca-bundle contradict each other: one trusts anybody, the other only some"
    if options.proxy is not None and options.transport != "portable":
        yield "--proxy needs --transport portable: the fast transport connects directly"
    protocol = PROTOCOLS.get(options.protocol)
    if protocol is not None and protocol.request_type == "WS":
        if options.transport != "fast":
            yield f"--protocol {options.protocol} needs --transport fast"
        if not options.stream:
            yield f"--protocol {options.protocol}: its replies are always streamed; leave out --no-stream"
    elif options.ws != Shape():
        yield f"--ws-… is for --protocol {WebSocketChat.name}, not for {options.protocol}"
    owned = {"model": "--model", "messages": "the prompts", "stream": "--no-stream"}
    for key, owner in owned.items():
        if key in options.extra_body:
            yield f"--extra-body must not hold {key!r}: that is what {owner} is for"
    if options.extra_body.get("n", 1) != 1:
        yield "--extra-body with n > 1: the choices of one reply cannot be told apart in time; send more users"


def _without_a_server(options: Options) -> Iterator[str]:
    """What is wrong with how a function is named as the target."""
    if options.protocol != "custom":
        if options.query_model:
            yield "--query-model needs --protocol custom"
        return
    if options.query_model is None:
        yield "--protocol custom needs --query-model FILE, with a function query_model(prompt, max_resp_tokens)"
        return
    if TARGET in options.server_metrics:
        yield f"--server-metrics {TARGET}: a function has no page of metrics; name its server's, if there is one"
        return
    defaults = Options()
    for name in ("transport", "insecure", "ca_bundle", "client_cert", "proxy", "extra_body", "temperature", "top_p"):
        if getattr(options, name) != getattr(defaults, name):
            yield f"{flag(name)} has no effect with --protocol custom: a function has its arguments only"
