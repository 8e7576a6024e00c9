"""Our command-line options: added to Locust's own, kept as raw strings there, parsed once a start into `Options`.

Locust sends its options to workers in clear text and shows them in its page: no option holds a key.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Final

import msgspec

from tokenswarm import proxy
from tokenswarm.errors import OptionError
from tokenswarm.protocols import PROTOCOLS
from tokenswarm.protocols.base import WireProtocol
from tokenswarm.protocols.websocket_chat import Shape, WebSocketChat
from tokenswarm.scraping.messages import HARDWARE, SERVER_METRICS, TARGET, Source
from tokenswarm.scraping.sources import parse_sources, password
from tokenswarm.variables import expand, names

GROUP: Final = "tokenswarm"
DEFAULT_STOP_TIMEOUT: Final = 30.0
KEY_VARIABLES: Final = ("LLM_API_KEY", "OPENAI_API_KEY")

MASK: Final = "***"
LEAST_KNOWN: Final = 4
"""Characters that a secret must share with the end of an excerpt to be taken for its beginning."""
_CUT = re.compile(r"['\"]?(?:…|$)")
_SECRET_HEADER = re.compile(r"auth|key|token|cookie|secret|passw|credential|signature", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS = {
    "host",
    "content-length",
    "content-type",
    "accept",
    "accept-encoding",
    "connection",
    "transfer-encoding",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
}
_DURATION = re.compile(r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s?)?")
_TRANSPORTS = ("fast", "portable")
_WS_REPLIES = ("cumulative", "pieces")
_DATASET_ERRORS = ("skip", "fail")
_DATASET_REPLIES = ("server", "file")
_FAIL_ON = ("degraded", "invalid", "errors")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Our options, parsed. Durations are seconds."""

    protocol: str = "openai-chat"
    query_model: str | None = None
    """The file with the function that answers where the protocol is `custom`."""
    model: str | None = None
    transport: str = "fast"
    insecure: bool = False
    ca_bundle: str | None = None
    client_cert: tuple[str, ...] = ()
    """Our certificate's file, and its key's where that is another."""
    proxy: str | None = None
    """As given, variables not expanded."""
    headers: tuple[str, ...] = ()
    """As given, variables not expanded."""
    extra_body: dict[str, Any] = {}
    stream: bool = True
    keep_alive: bool = True
    check: bool = True
    request_timeout: float = 300.0
    connect_timeout: float = 10.0
    first_token_timeout: float | None = None
    stall_timeout: float | None = None
    retries: int = 0
    ws: Shape = Shape()
    """How a server over a WebSocket is asked, and how it answers."""
    dataset: str | None = None
    dataset_errors: str = "skip"
    dataset_replies: str = "server"
    """Whose replies a conversation of the dataset carries along."""
    system_prompt: str | None = None
    output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int = 0
    warmup: float | None = None
    fail_on: str | None = None
    run_dir: str | None = None
    label: str | None = None
    save_responses: bool = False
    hardware: tuple[str, ...] = ()
    """As given, variables not expanded; so is the next."""
    server_metrics: tuple[str, ...] = ()


def add_arguments(parser: Any) -> None:
    """Add our group to Locust's parser (configargparse), and our defaults for three of Locust's own options."""
    group = parser.add_argument_group(GROUP, "LLM load: what is sent, what is recorded, and where")

    def option(flag: str, text: str, **settings: Any) -> None:
        variable = "TOKENSWARM_" + flag.strip("-").replace("-", "_").upper()
        action = group.add_argument(flag, env_var=variable, help=text, **settings)
        # Locust's parser notes these for its web page, but not for arguments in a group.
        action.include_in_web_ui = settings.get("action") != "append"  # the page would split a list at its commas
        action.is_secret = action.is_required = action.is_multiple = False

    def value(flag: str, metavar: str, text: str, default: str | None = "") -> None:
        option(flag, text, metavar=metavar, default=default)

    def switch(flag: str, text: str) -> None:
        option(flag, text, action="store_true", default=False)

    value("--protocol", "NAME", f"wire protocol: {', '.join(PROTOCOLS)}", "openai-chat")
    value("--model", "NAME", "model to ask for; left out: the only one that the server lists")
    value("--query-model", "FILE", "Python file with query_model(prompt, max_resp_tokens), for --protocol custom")
    value("--transport", "|".join(_TRANSPORTS), "portable: through proxies, but timed by this process's clock", "fast")
    switch("--insecure", "trust any TLS certificate")
    value("--ca-bundle", "FILE", "PEM file of the authorities to trust for TLS")
    value("--client-cert", "FILE[,KEY]", "PEM file of a TLS client certificate; its key from a second file if need be")
    value(
        "--proxy",
        "URL",
        f"proxy ({', '.join(proxy.SCHEMES)}) for --transport portable; $VARIABLE in it is taken from the environment",
    )
    option(
        "--header",
        "'Name: value' to send with each request, may be repeated; $VARIABLE in it is taken from the environment",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
    )
    value("--extra-body", "JSON", "JSON object merged into each request's body, e.g. '{\"ignore_eos\": true}'")
    switch("--no-stream", "ask for whole replies; TTFT, TPOT and ITL are then unknown")
    value("--keep-alive", "on|off", "reuse connections; off opens one for each request", "on")
    switch("--no-check", "do not send the one small request that checks the target before load starts")
    value("--request-timeout", "TIME", "longest a whole request may take", "300s")
    value("--connect-timeout", "TIME", "longest that name lookup, connect and TLS may take", "10s")
    value("--first-token-timeout", "TIME", "longest to wait for the first output; left out: no limit of its own")
    value("--stall-timeout", "TIME", "longest pause between two pieces of output; left out: no limit of its own")
    value("--retries", "N", "how often a request that failed is tried again, after 0.5 s, 1 s, 2 s…", "0")
    value("--ws-path", "PATH", "websocket-chat: the WebSocket's path (/ws)")
    value("--ws-query-field", "NAME", "websocket-chat: the field for what is asked (query)")
    value("--ws-history-field", "NAME|none", "websocket-chat: the field for the turns before, [[question, answer], …]")
    value("--ws-id-field", "NAME", "websocket-chat: the field for the request's id, as requests.csv has it; else none")
    value("--ws-reply-field", "NAME|none", "websocket-chat: the text's field (response); none: messages are plain text")
    value("--ws-reply", "|".join(_WS_REPLIES), "websocket-chat: a message holds the text so far, or a piece of it")
    value(
        "--ws-end", "NAME=VALUE|close|TEXT", "websocket-chat: what ends a turn (status=200); close: the server closes"
    )
    value("--dataset", "FILE", "prompts and conversations to send, one a line; left out: the bundled questions")
    value("--dataset-errors", "|".join(_DATASET_ERRORS), "leave bad lines out and say so, or end the run", "skip")
    value(
        "--dataset-replies",
        "|".join(_DATASET_REPLIES),
        "what a conversation carries along as its answers: the server's own, or the file's",
        "server",
    )
    value("--system-prompt", "TEXT", "system message put before each prompt that has none")
    value("--output-tokens", "N", "most output tokens to ask for (max_tokens); left out: the server's own default")
    value("--temperature", "X", "sampling temperature; left out: the server's own default")
    value("--top-p", "X", "nucleus sampling; left out: the server's own default")
    value("--seed", "N", "seed of everything random on our side", "0")
    value("--warmup", "TIME", "settling time left out of the results; left out: 10 s or twice the median request")
    value("--fail-on", "|".join(_FAIL_ON), "exit with status 3 if the run's verdict or its errors are this bad")
    value("--run-dir", "DIR", "directory to write this run to; left out: runs/<time>-<label>")
    value("--label", "TEXT", "name of the run, used in its directory's name and its report")
    switch("--save-responses", "keep prompts and replies in responses.jsonl")
    value("--hardware", "URL,…|local", "exporters to ask what their machines do; local: the machine Locust runs on")
    value("--server-metrics", "URL,…|target", "the model server's own metrics pages; target: /metrics of each --host")
    # Locust's: the server may hold what a stop would cut, and its pages are nobody else's business.
    parser.set_defaults(stop_timeout=DEFAULT_STOP_TIMEOUT, web_host="127.0.0.1", master_bind_host="127.0.0.1")


class _Reader:
    """Reads raw values out of a namespace and gathers everything that is wrong with them."""

    def __init__(self, raw: Mapping[str, Any], here: bool) -> None:
        self.raw = raw
        self.here = here
        self.problems: list[str] = []

    def text(self, name: str) -> str | None:
        value = self.raw.get(name)
        return None if value is None or str(value).strip() == "" else str(value).strip()

    def list(self, name: str) -> tuple[str, ...]:
        return tuple(item.strip() for item in (self.text(name) or "").split(",") if item.strip())

    def wrong(self, name: str, why: str) -> None:
        self.problems.append(f"--{name.replace('_', '-')} {self.raw.get(name)!r}: {why}")

    def seconds(self, name: str, low: float = 1e-3) -> float | None:
        text = self.text(name)
        if text is None:
            return None
        match = _DURATION.fullmatch(text)
        parts = [float(part or 0) for part in match.groups()] if match else []
        total = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
        if not match:
            self.wrong(name, "not a time; write 30, 30s, 2m or 1h30m")
            return None
        if total < low:
            self.wrong(name, "must be more than 0; leave it out where nothing is to be limited")
            return None
        return total

    def number(self, name: str, low: float, high: float, integer: bool = False) -> float | None:
        text = self.text(name)
        if text is None:
            return None
        try:
            number = int(text) if integer else float(text)
        except ValueError:
            self.wrong(name, "not a whole number" if integer else "not a number")
            return None
        if not low <= number <= high:
            self.wrong(name, f"must be between {low:,} and {high:,}")
            return None
        return number

    def one_of(self, name: str, choices: Sequence[str]) -> str | None:
        text = self.text(name)
        if text is not None and text not in choices:
            self.wrong(name, f"must be one of {', '.join(choices)}")
        return text

    def json_object(self, name: str) -> dict[str, Any]:
        text = self.text(name)
        if text is None:
            return {}
        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            self.wrong(name, f"not JSON ({error}); quote it for the shell, as in '{{\"top_k\": 5}}'")
            return {}
        if not isinstance(value, dict):
            self.wrong(name, "must be a JSON object, { … }")
            return {}
        return value

    def file(self, name: str) -> str | None:
        path = self.text(name)
        if path is not None and self.here and not os.path.isfile(path):
            self.wrong(name, "a directory, where a file is wanted" if os.path.isdir(path) else "no such file")
        return path

    def files(self, name: str, most: int) -> tuple[str, ...]:
        paths = self.list(name)
        if len(paths) > most:
            self.wrong(name, f"at most {most} files")
        for path in paths:
            if self.here and not os.path.isfile(path):
                self.wrong(name, f"no such file as {path}")
        return paths

    def shape(self) -> Shape:
        usual = Shape()
        fields = {
            name: self.text(f"ws_{name}") or getattr(usual, name)
            for name in ("path", "query_field", "history_field", "id_field", "reply_field", "end")
        }
        for name in ("history_field", "reply_field"):
            fields[name] = "" if fields[name] == "none" else fields[name]
        shape = Shape(**fields, cumulative=self.one_of("ws_reply", _WS_REPLIES) != "pieces")
        try:
            shape.check()
        except OptionError as error:
            self.problems.append(str(error))
        return shape


def protocol_of(options: Options) -> WireProtocol:
    """The protocol that the options ask for, as they want it."""
    protocol = PROTOCOLS[options.protocol]
    return WebSocketChat(options.ws) if isinstance(protocol, WebSocketChat) else protocol


def parse(
    namespace: argparse.Namespace | Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
    sends: bool = True,
) -> Options:
    """Our options out of Locust's namespace. Raises OptionError with everything that is wrong, a line each.

    `sends`: whether requests are made here; a master needs neither the files nor the variables that these take.
    """
    read = _Reader(namespace if isinstance(namespace, Mapping) else vars(namespace), here=sends)
    output_tokens, seed = read.number("output_tokens", 1, 10_000_000, True), read.number("seed", 0, 2**63, True)
    options = Options(
        protocol=read.one_of("protocol", tuple(PROTOCOLS)) or "openai-chat",
        query_model=read.file("query_model"),
        model=read.text("model"),
        transport=read.one_of("transport", _TRANSPORTS) or "fast",
        insecure=bool(read.raw.get("insecure")),
        ca_bundle=read.file("ca_bundle"),
        client_cert=read.files("client_cert", 2),
        proxy=read.text("proxy"),
        headers=tuple(read.raw.get("header") or ()),
        extra_body=read.json_object("extra_body"),
        stream=not read.raw.get("no_stream"),
        keep_alive=read.one_of("keep_alive", ("on", "off")) != "off",
        check=not read.raw.get("no_check"),
        request_timeout=read.seconds("request_timeout") or 300.0,
        connect_timeout=read.seconds("connect_timeout") or 10.0,
        first_token_timeout=read.seconds("first_token_timeout"),
        stall_timeout=read.seconds("stall_timeout"),
        retries=int(read.number("retries", 0, 100, True) or 0),
        ws=read.shape(),
        dataset=read.file("dataset"),
        dataset_errors=read.one_of("dataset_errors", _DATASET_ERRORS) or "skip",
        dataset_replies=read.one_of("dataset_replies", _DATASET_REPLIES) or "server",
        system_prompt=read.text("system_prompt"),
        output_tokens=None if output_tokens is None else int(output_tokens),
        temperature=read.number("temperature", 0, 100),
        top_p=read.number("top_p", 0, 1),
        seed=int(seed or 0),
        warmup=read.seconds("warmup", 0.0),
        fail_on=read.one_of("fail_on", _FAIL_ON),
        run_dir=read.text("run_dir"),
        label=read.text("label"),
        save_responses=bool(read.raw.get("save_responses")),
        hardware=read.list("hardware"),
        server_metrics=read.list("server_metrics"),
    )
    problems = read.problems + _contradictions(options)
    for header in options.headers:
        # What a master does not know, its workers may.
        unknown = {} if sends else dict.fromkeys(names(header), "x")
        try:
            expand_header(header, {**unknown, **environ})
        except OptionError as error:
            problems.append(str(error))
    if sends or all(name in environ for name in names(options.proxy or "")):
        try:
            proxy_url(options, environ)
        except OptionError as error:
            problems.append(str(error))
    if problems:
        raise OptionError("\n".join(problems))
    return options


def _without_a_server(options: Options) -> list[str]:
    """What is wrong with how a function is named as the target."""
    if options.protocol != "custom":
        return ["--query-model needs --protocol custom"] if options.query_model else []
    if options.query_model is None:
        return ["--protocol custom needs --query-model FILE, with a function query_model(prompt, max_resp_tokens)"]
    if TARGET in options.server_metrics:
        return [f"--server-metrics {TARGET}: a function has no page of metrics; name its server's, if there is one"]
    defaults = Options()
    return [
        f"--{name.replace('_', '-')} has no effect with --protocol custom: a function has its arguments only"
        for name in ("transport", "insecure", "ca_bundle", "client_cert", "proxy", "extra_body", "temperature", "top_p")
        if getattr(options, name) != getattr(defaults, name)
    ]


def _contradictions(options: Options) -> list[str]:
    problems = _without_a_server(options)
    if options.insecure and options.ca_bundle:
        problems.append("--insecure and --ca-bundle contradict each other: one trusts anybody, the other only some")
    if options.proxy is not None and options.transport != "portable":
        problems.append("--proxy needs --transport portable: the fast transport connects directly")
    protocol = PROTOCOLS.get(options.protocol)
    if protocol is not None and protocol.request_type == "WS":
        if options.transport != "fast":
            problems.append(f"--protocol {options.protocol} needs --transport fast")
        if not options.stream:
            problems.append(f"--protocol {options.protocol}: its replies are always streamed; leave out --no-stream")
    elif options.ws != Shape():
        problems.append(f"--ws-… is for --protocol {WebSocketChat.name}, not for {options.protocol}")
    if not options.stream or (protocol is not None and not protocol.streams):
        why = "--no-stream asks for none" if not options.stream else f"--protocol {options.protocol} has none"
        for name in ("first_token_timeout", "stall_timeout"):
            if getattr(options, name) is not None:
                flag = "--" + name.replace("_", "-")
                problems.append(f"{flag} needs a stream, and {why}; use --request-timeout")
    for name in ("first_token_timeout", "stall_timeout"):
        limit = getattr(options, name)
        if limit is not None and limit > options.request_timeout:
            flag = "--" + name.replace("_", "-")
            problems.append(
                f"{flag} {limit:g} s can never be reached: --request-timeout is {options.request_timeout:g} s"
            )
    owned = {"model": "--model", "messages": "the prompts", "stream": "--no-stream"}
    problems += [
        f"--extra-body must not hold {key!r}: that is what {flag} is for"
        for key, flag in owned.items()
        if key in options.extra_body
    ]
    if options.extra_body.get("n", 1) != 1:
        problems.append(
            "--extra-body with n > 1: the choices of one reply cannot be told apart in time; send more users"
        )
    if options.output_tokens is not None and "max_tokens" in options.extra_body:
        problems.append("--output-tokens and max_tokens in --extra-body ask for two different things: give one of them")
    return problems


def expand_header(text: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """(name, value) of a --header, its variables expanded. Raises OptionError; the message never holds the value."""
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if not colon or not _HEADER_NAME.fullmatch(name):
        raise OptionError(f"--header: write it as 'Name: value' (the name here is {name[:40]!r})")
    if name.lower() in _OWN_HEADERS:
        raise OptionError(f"--header {name}: this header is set by the transport")
    if _SECRET_HEADER.search(name) and not names(value):
        raise OptionError(
            f"--header {name}: a credential on the command line ends up in logs and pages; "
            f"put it into the environment and write '{name}: $VARIABLE'"
        )
    value = expand(value, environ, f"--header {name}")
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise OptionError(f"--header {name}: the value holds a control character")
    return name, value


def api_key(environ: Mapping[str, str] = os.environ) -> str | None:
    """The key to send, from LLM_API_KEY or OPENAI_API_KEY. Raises OptionError on one that cannot be a header."""
    for variable in KEY_VARIABLES:
        key = environ.get(variable, "").strip()
        if key:
            if any(ord(c) < 33 or ord(c) > 126 for c in key):
                raise OptionError(f"{variable} holds a space, a control or a non-ASCII character")
            return key
    return None


def request_headers(options: Options, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What goes out with each request besides what the transport adds: the key, --header, our name."""
    headers = {"User-Agent": "tokenswarm"}
    key = api_key(environ)
    if key:
        headers.update(PROTOCOLS[options.protocol].credentials(key))
    for text in options.headers:
        name, value = expand_header(text, environ)
        for other in [known for known in headers if known.lower() == name.lower()]:
            del headers[other]
        headers[name] = value
    return headers


def proxy_url(options: Options, environ: Mapping[str, str] = os.environ) -> str | None:
    """The proxy's whole URL, its variables expanded. Raises OptionError; the message never holds a credential."""
    return None if options.proxy is None else proxy.url(options.proxy, environ)


def scraped_sources(options: Options, environ: Mapping[str, str] = os.environ) -> list[Source]:
    """Who is asked beside the load, variables expanded. Raises OptionError; the message never holds a credential."""
    return [
        *parse_sources(HARDWARE, options.hardware, environ),
        *parse_sources(SERVER_METRICS, options.server_metrics, environ),
    ]


def secret_values(options: Options, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Every value from the environment that goes into requests, longest first: what no file of ours may hold."""
    variables = {name for header in options.headers for name in names(header)} | set(KEY_VARIABLES)
    variables.update(name for url in (*options.hardware, *options.server_metrics) for name in names(password(url)))
    values = {environ[name].strip() for name in variables if environ.get(name, "").strip()}
    if all(name in environ for name in names(options.proxy or "")):
        values.update(proxy.secrets(proxy_url(options, environ)))
    return sorted(values, key=len, reverse=True)


def redact(text: str, secrets: Sequence[str]) -> str:
    """Text in which none of the secrets stands, nor the beginning of one that an excerpt was cut in."""
    for secret in secrets:
        text = text.replace(secret, MASK)
        start = text.find(secret[:LEAST_KNOWN]) if len(secret) > LEAST_KNOWN else -1
        while start >= 0:
            pairs = zip(secret, text[start : start + len(secret)], strict=False)
            known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            if _CUT.match(text, start + known):
                text = text[:start] + MASK + text[start + known :]
            start = text.find(secret[:LEAST_KNOWN], start + 1)
    return text
