"""What comes from the environment because it is secret, where it goes, and how it is kept out of everything written."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Final

from tokenswarm import proxy
from tokenswarm.errors import OptionError
from tokenswarm.options.values import Options
from tokenswarm.protocols import PROTOCOLS
from tokenswarm.scraping.messages import HARDWARE, SERVER_METRICS, Source
from tokenswarm.scraping.sources import parse_sources, password
from tokenswarm.variables import expand, names

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
